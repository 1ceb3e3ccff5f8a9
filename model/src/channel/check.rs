//! Validation of a configuration when it is written.

use std::str::FromStr;

use lettre::Address;
use serde_json::{Map, Value};

use super::{
    Checked, ConfigError, Given, Kind, MASK, MAX_CONFIG, Rules, SecretField, field, header, present,
};
use crate::event_type::{Severity, is_name};

const COMMON: [&str; 3] = ["retry_schedule", "max_age", "template"];

fn fields(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Webhook => &["url", "headers", "hmac_secret", "previous_hmac_secret", "signature_header"],
        Kind::Email => {
            &["smtp_host", "smtp_port", "smtp_user", "smtp_pass", "smtp_tls", "from_addr", "to_addrs"]
        }
        Kind::Slack | Kind::Discord => &["webhook_url"],
        Kind::Telegram => &["bot_token", "chat_id"],
        Kind::Pagerduty => &["integration_key", "severity_default", "severity_map"],
    }
}

/// Validates a configuration and takes its secrets out.
///
/// # Errors
/// The first field that is unknown, missing, or not what its kind can use.
pub fn check(kind: Kind, config: &Value, rules: &Rules) -> Result<Checked, ConfigError> {
    if serde_json::to_string(config).map_or(usize::MAX, |text| text.len()) > MAX_CONFIG {
        return Err(ConfigError::new("", "is over 16 KiB", "Shorten it."));
    }
    fields_of(kind, present(config)?, rules)
}

/// [`check`] without the bound on the whole: what the worker puts together again, with secrets that
/// were kept from one writing to the next, may be longer than any one writing was.
pub fn fields_of(kind: Kind, map: Map<String, Value>, rules: &Rules) -> Result<Checked, ConfigError> {
    if let Some(unknown) =
        map.keys().find(|key| !fields(kind).contains(&key.as_str()) && !COMMON.contains(&key.as_str()))
    {
        let known = fields(kind).iter().chain(&COMMON).copied().collect::<Vec<_>>().join(", ");
        return Err(ConfigError::new(
            shown(unknown),
            format!("is unknown to kind \"{kind}\""),
            format!("The fields are: {known}."),
        ));
    }
    check_common(&map)?;
    let (secrets, destination) = match kind {
        Kind::Webhook => webhook(&map, rules)?,
        Kind::Email => email(&map, rules)?,
        Kind::Slack => vendor_url(&map, &["hooks.slack.com", "hooks.slack-gov.com"])?,
        Kind::Discord => {
            vendor_url(&map, &["discord.com", "discordapp.com", "canary.discord.com", "ptb.discord.com"])?
        }
        Kind::Telegram => telegram(&map)?,
        Kind::Pagerduty => pagerduty(&map)?,
    };
    Ok(Checked { stored: masked(map), secrets, destination })
}

type Secrets = (Vec<SecretField>, Option<String>);

fn masked(mut map: Map<String, Value>) -> Value {
    for field in
        ["hmac_secret", "previous_hmac_secret", "smtp_pass", "webhook_url", "bot_token", "integration_key"]
    {
        if let Some(value) = map.get_mut(field) {
            *value = MASK.into();
        }
    }
    if let Some(Value::Object(headers)) = map.get_mut("headers") {
        headers.retain(|_, value| !value.is_null());
        headers.values_mut().for_each(|value| *value = MASK.into());
    }
    Value::Object(map)
}

fn webhook(map: &Map<String, Value>, rules: &Rules) -> Result<Secrets, ConfigError> {
    let url = field::url("url", field::required(map, "url")?, rules.allow_http)?;
    let signature_header = field::text(map, "signature_header")?.unwrap_or(super::SIGNATURE_HEADER);
    header::name("signature_header", signature_header)?;
    if !signature_header.eq_ignore_ascii_case(super::SIGNATURE_HEADER) {
        header::not_reserved("signature_header", signature_header)?;
    }
    let mut secrets = header::secrets(map, signature_header)?;
    for name in ["hmac_secret", "previous_hmac_secret"] {
        if let Some(value) = field::secret(map, name)? {
            if let Given::Clear(secret) = &value {
                crate::signature::check_secret(secret)
                    .map_err(|problem| ConfigError::new(name, problem, "After whsec_ comes base64."))?;
            }
            secrets.push(SecretField { name: name.into(), value });
        }
    }
    if map.contains_key("previous_hmac_secret") && !map.contains_key("hmac_secret") {
        return Err(ConfigError::new(
            "previous_hmac_secret",
            "needs \"hmac_secret\"",
            "It is the one before it.",
        ));
    }
    Ok((secrets, Some(field::origin(&url))))
}

fn email(map: &Map<String, Value>, rules: &Rules) -> Result<Secrets, ConfigError> {
    let host = field::text(map, "smtp_host")?;
    if let Some(host) = host {
        url::Host::parse(host).map_err(|_| {
            ConfigError::new("smtp_host", "is no host name", "It looks like smtp.example.com.")
        })?;
    } else {
        if rules.needs_smtp_host {
            return Err(field::missing("smtp_host"));
        }
        for needs in ["smtp_port", "smtp_user", "smtp_pass", "smtp_tls"] {
            if map.contains_key(needs) {
                return Err(ConfigError::new(
                    needs,
                    "needs \"smtp_host\"",
                    "Without it the worker's own server is used.",
                ));
            }
        }
    }
    let port = field::integer(map, "smtp_port")?.unwrap_or(587);
    if ![25, 465, 587, 2525].contains(&port) {
        return Err(ConfigError::new(
            "smtp_port",
            format!("must be 25, 465, 587 or 2525, not {port}"),
            "587 is the usual one.",
        ));
    }
    let tls = field::flag(map, "smtp_tls")?.unwrap_or(true);
    if !tls && port != 25 {
        return Err(ConfigError::new("smtp_tls", "can be false on port 25 only", "Leave it out."));
    }
    let user = field::text(map, "smtp_user")?;
    let pass = field::secret(map, "smtp_pass")?;
    if pass.is_some() && user.is_none() {
        return Err(ConfigError::new(
            "smtp_user",
            "is required with \"smtp_pass\"",
            "A password is somebody's.",
        ));
    }
    if pass.is_some() && !tls {
        return Err(ConfigError::new(
            "smtp_pass",
            "is not sent without TLS",
            "Set smtp_tls to true, or leave the password out.",
        ));
    }
    match (field::text(map, "from_addr")?, user) {
        (Some(from), _) => address("from_addr", from)?,
        (None, Some(user)) => address("from_addr", user).map_err(|_| {
            ConfigError::new(
                "from_addr",
                "is required where \"smtp_user\" is no mail address",
                "It looks like klaxon@example.com.",
            )
        })?,
        (None, None) if host.is_some() => return Err(field::missing("from_addr")),
        (None, None) => {}
    }
    recipients(map)?;
    let secrets = pass.map(|value| SecretField { name: "smtp_pass".into(), value }).into_iter().collect();
    Ok((secrets, host.map(|host| format!("smtp://{}:{port}", host.to_lowercase()))))
}

fn recipients(map: &Map<String, Value>) -> Result<(), ConfigError> {
    let list = map.get("to_addrs").ok_or_else(|| field::missing("to_addrs"))?;
    let hint = "It is a list of mail addresses.";
    let list = list.as_array().ok_or_else(|| ConfigError::new("to_addrs", "must be a list", hint))?;
    if !(1..=100).contains(&list.len()) {
        return Err(ConfigError::new("to_addrs", format!("has {} entries, not 1 to 100", list.len()), hint));
    }
    for each in list {
        address(
            "to_addrs",
            each.as_str().ok_or_else(|| ConfigError::new("to_addrs", "must be a list of strings", hint))?,
        )?;
    }
    Ok(())
}

fn address(field: &str, text: &str) -> Result<(), ConfigError> {
    Address::from_str(text).map(drop).map_err(|_| {
        ConfigError::new(
            field,
            format!("holds \"{}\", which is no mail address", shown(text)),
            "It looks like ann@example.com.",
        )
    })
}

/// What of a value an error repeats.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

fn vendor_url(map: &Map<String, Value>, hosts: &[&str]) -> Result<Secrets, ConfigError> {
    let value = field::secret(map, "webhook_url")?.ok_or_else(|| field::missing("webhook_url"))?;
    let mut destination = None;
    if let Given::Clear(text) = &value {
        let url = field::url("webhook_url", text, false)?;
        let host = url.host_str().unwrap_or_default();
        if !hosts.contains(&host) || url.port_or_known_default() != Some(443) {
            return Err(ConfigError::new(
                "webhook_url",
                format!("is not on {}", hosts.join(" or ")),
                "Copy it from the vendor's page of incoming webhooks.",
            ));
        }
        destination = Some(field::origin(&url));
    }
    Ok((vec![SecretField { name: "webhook_url".into(), value }], destination))
}

fn telegram(map: &Map<String, Value>) -> Result<Secrets, ConfigError> {
    let value = field::secret(map, "bot_token")?.ok_or_else(|| field::missing("bot_token"))?;
    if let Given::Clear(token) = &value {
        let fits = token.split_once(':').is_some_and(|(id, key)| {
            !id.is_empty()
                && id.bytes().all(|b| b.is_ascii_digit())
                && !key.is_empty()
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        });
        if !fits {
            return Err(ConfigError::new(
                "bot_token",
                "is no bot token",
                "It looks like 123456:ABC-def, from @BotFather.",
            ));
        }
    }
    let chat = match map.get("chat_id") {
        Some(Value::Number(number)) if number.is_i64() => number.to_string(),
        _ => field::required(map, "chat_id")?.to_owned(),
    };
    let handle = chat.strip_prefix('@').is_some_and(|name| {
        (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    });
    if !handle && chat.parse::<i64>().is_err() {
        return Err(ConfigError::new("chat_id", "is no chat", "It is a signed integer or an @handle."));
    }
    Ok((vec![SecretField { name: "bot_token".into(), value }], Some("https://api.telegram.org:443".into())))
}

fn pagerduty(map: &Map<String, Value>) -> Result<Secrets, ConfigError> {
    let value = field::secret(map, "integration_key")?.ok_or_else(|| field::missing("integration_key"))?;
    if let Given::Clear(key) = &value
        && (key.len() != 32 || !key.bytes().all(|b| b.is_ascii_alphanumeric()))
    {
        return Err(ConfigError::new(
            "integration_key",
            "is not 32 letters and digits",
            "It is the service's Events API v2 key.",
        ));
    }
    if let Some(default) = field::text(map, "severity_default")? {
        severity("severity_default", default)?;
    }
    if let Some(value) = map.get("severity_map") {
        let Value::Object(entries) = value else {
            return Err(ConfigError::new(
                "severity_map",
                "must be an object",
                "It maps an event type or severity to a severity.",
            ));
        };
        for (from, to) in entries {
            if !is_name(from) {
                return Err(ConfigError::new(
                    "severity_map",
                    format!("maps \"{}\", which is no event type", shown(from)),
                    "Keys are event types or severities.",
                ));
            }
            severity("severity_map", to.as_str().unwrap_or_default())?;
        }
    }
    Ok((
        vec![SecretField { name: "integration_key".into(), value }],
        Some("https://events.pagerduty.com:443".into()),
    ))
}

fn severity(field: &str, word: &str) -> Result<(), ConfigError> {
    Severity::from_str(word).map(drop).map_err(|_| {
        ConfigError::new(field, "is no severity", "There are critical, error, warning and info.")
    })
}

fn check_common(map: &Map<String, Value>) -> Result<(), ConfigError> {
    super::settings::delivery_rules(map).map(drop)
}
