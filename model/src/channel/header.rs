//! Which headers a webhook may set.

use serde_json::{Map, Value};

use super::{ConfigError, SecretField, field};

const MAX_HEADERS: usize = 20;
const MAX_NAME: usize = 100;
const MAX_VALUE: usize = 1024;

/// Ours to set, or meant for one hop only (RFC 9110 section 7.6.1).
const RESERVED: [&str; 16] = [
    "host",
    "cookie",
    "set-cookie",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "content-length",
    "content-type",
    "content-encoding",
    "forwarded",
    "x-real-ip",
    "x-klaxon-signature",
];
const RESERVED_PREFIXES: [&str; 3] = ["proxy-", "x-forwarded-", "webhook-"];

/// A header's name: a token of RFC 9110 section 5.6.2, at most 100 bytes.
pub fn name(field: &str, name: &str) -> Result<(), ConfigError> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(token) {
        return Err(ConfigError::new(field, "is no header name", "1 to 100 letters, digits and hyphens."));
    }
    Ok(())
}

/// Refuses the names that are ours or a hop's.
pub fn not_reserved(field: &str, name: &str) -> Result<(), ConfigError> {
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
    {
        return Err(ConfigError::new(field, "is reserved", "Choose another name; Authorization is allowed."));
    }
    Ok(())
}

/// The values of `headers`, each a secret.
pub fn secrets(map: &Map<String, Value>, signature_header: &str) -> Result<Vec<SecretField>, ConfigError> {
    let Some(value) = map.get("headers") else { return Ok(Vec::new()) };
    let Value::Object(headers) = value else {
        return Err(ConfigError::new(
            "headers",
            "must be an object",
            "It maps a header's name to its value.",
        ));
    };
    if headers.len() > MAX_HEADERS {
        return Err(ConfigError::new(
            "headers",
            "has more than 20 entries",
            "Put what is long into the URL.",
        ));
    }
    let mut seen: Vec<String> = Vec::new();
    let mut secrets = Vec::new();
    for (header, value) in headers.iter().filter(|(_, value)| !value.is_null()) {
        let path = format!("headers.{header}");
        name(&path, header)?;
        if !header.eq_ignore_ascii_case(super::SIGNATURE_HEADER)
            || header.eq_ignore_ascii_case(signature_header)
        {
            not_reserved(&path, header)?;
        }
        if header.eq_ignore_ascii_case(signature_header) {
            return Err(ConfigError::new(path, "is reserved", "The signature goes there."));
        }
        let lower = header.to_ascii_lowercase();
        if seen.contains(&lower) {
            return Err(ConfigError::new(
                path,
                "appears twice",
                "A header's name counts once, whatever its case.",
            ));
        }
        seen.push(lower);
        let Value::String(text) = value else {
            return Err(ConfigError::new(path, "must be a string", "Write it in double quotes."));
        };
        if text.len() > MAX_VALUE && !crate::seal::is_sealed(text) {
            return Err(ConfigError::new(path, "is longer than 1024 bytes", "Header values are short."));
        }
        secrets.push(SecretField { value: field::given(&path, text)?, name: path });
    }
    Ok(secrets)
}
