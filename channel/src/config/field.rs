//! Fields of a configuration, read with errors that name them.

use klaxon_model::seal::{PREFIX, is_sealed};
use serde_json::{Map, Value};
use url::Url;
use zeroize::Zeroizing;

use super::{ConfigError, Given, MASK};

/// Longest URL, in bytes.
const MAX_URL: usize = 2048;

pub fn text<'a>(map: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>, ConfigError> {
    match map.get(field) {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => {
            Err(ConfigError::new(field, "is empty", "Leave the field out instead."))
        }
        Some(Value::String(text)) if text.chars().any(char::is_control) => {
            Err(ConfigError::new(field, "contains a control character", "It is one line of text."))
        }
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(no_string(field)),
    }
}

pub fn required<'a>(map: &'a Map<String, Value>, field: &str) -> Result<&'a str, ConfigError> {
    text(map, field)?.ok_or_else(|| missing(field))
}

pub fn no_string(field: &str) -> ConfigError {
    ConfigError::new(field, "must be a string", "Write it in double quotes.")
}

/// What of a value an error repeats.
pub fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

pub fn missing(field: &str) -> ConfigError {
    ConfigError::new(field, "is required", "See the table of channels in the documentation.")
}

/// What was given for a secret, its empty string and its mask meaning that it is kept.
pub fn secret(map: &Map<String, Value>, field: &str) -> Result<Option<Given>, ConfigError> {
    match map.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => given(field, text).map(Some),
        Some(_) => Err(no_string(field)),
    }
}

pub fn required_secret(map: &Map<String, Value>, field: &str) -> Result<Given, ConfigError> {
    secret(map, field)?.ok_or_else(|| missing(field))
}

pub fn given(field: &str, text: &str) -> Result<Given, ConfigError> {
    match text {
        "" | MASK => Ok(Given::Keep),
        sealed if is_sealed(sealed) => Ok(Given::Sealed(sealed.to_owned())),
        // Half of a sealed value would be taken for the secret itself.
        broken if broken.starts_with(PREFIX) => Err(ConfigError::new(
            field,
            "begins as a sealed value and is none",
            "Copy the whole line that klaxon seal printed.",
        )),
        clear if clear.chars().any(char::is_control) => {
            Err(ConfigError::new(field, "contains a control character", "Secrets are one line of text."))
        }
        clear if clear.contains('•') => Err(ConfigError::new(
            field,
            "contains part of the mask",
            "Give the whole secret, or the mask alone to keep what is stored.",
        )),
        clear if clear.len() > 4096 => {
            Err(ConfigError::new(field, "is longer than 4096 bytes", "Secrets are short."))
        }
        clear => Ok(Given::Clear(Zeroizing::new(clear.to_owned()))),
    }
}

/// An absolute http(s) URL with a host and without credentials or fragment.
pub fn url(field: &str, text: &str, allow_http: bool) -> Result<Url, ConfigError> {
    let wrong = |problem: &str, hint: &str| Err(ConfigError::new(field, problem, hint));
    if text.len() > MAX_URL {
        return wrong("is longer than 2048 bytes", "Put what is long into a header or the body.");
    }
    let Ok(url) = Url::parse(text) else {
        return wrong("is no URL", "It looks like https://host/path.");
    };
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => {
            return wrong(
                "must be https",
                "The database's superuser can set klaxon.allow_http, and the worker has allow-http.",
            );
        }
        _ => return wrong("must be https", "It looks like https://host/path."),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return wrong("has no host", "It looks like https://host/path.");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("contains a user or password", "Use an Authorization header, which is stored sealed.");
    }
    if url.fragment().is_some() {
        return wrong("has a fragment", "What follows the # is never sent.");
    }
    Ok(url)
}

/// An https URL that is a secret, on one of a vendor's hosts: `*.` stands for what comes before.
pub fn vendor_url(map: &Map<String, Value>, field: &str, hosts: &[&str]) -> Result<Given, ConfigError> {
    let value = required_secret(map, field)?;
    if let Given::Clear(text) = &value {
        let url = url(field, text, true)?;
        if url.scheme() != "https" {
            return Err(ConfigError::new(field, "must be https", "It is so on the vendor's page."));
        }
        let host = url.host_str().unwrap_or_default();
        let is_theirs = hosts.iter().any(|theirs| match theirs.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == *theirs,
        });
        if !is_theirs || url.port_or_known_default() != Some(443) {
            return Err(ConfigError::new(
                field,
                format!("is not on {}", hosts.join(" or ")),
                "Copy it from the vendor's page of incoming webhooks.",
            ));
        }
    }
    Ok(value)
}

/// Where a URL that is a secret leads, where it is at hand.
pub fn secret_origin(url: &Given) -> Option<String> {
    Some(origin(&Url::parse(url.clear().ok()?).ok()?))
}

/// Scheme, host and port, the port always written.
pub fn origin(url: &Url) -> String {
    format!(
        "{}://{}:{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or_default()
    )
}

pub fn integer(map: &Map<String, Value>, field: &str) -> Result<Option<i64>, ConfigError> {
    map.get(field)
        .map(|value| {
            value
                .as_i64()
                .ok_or_else(|| ConfigError::new(field, "must be an integer", "Write it without quotes."))
        })
        .transpose()
}

pub fn flag(map: &Map<String, Value>, field: &str) -> Result<Option<bool>, ConfigError> {
    map.get(field)
        .map(|value| {
            value
                .as_bool()
                .ok_or_else(|| ConfigError::new(field, "must be true or false", "Write it without quotes."))
        })
        .transpose()
}
