//! Which headers a webhook may set.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use klaxon_model::seal::is_sealed;
use serde_json::{Map, Value};

use crate::config::{ConfigError, Given, field};

/// Where a webhook's plain signature goes unless it says otherwise.
pub const SIGNATURE: &str = "X-Klaxon-Signature";

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

/// The name that the plain signature goes by.
pub fn signature(map: &Map<String, Value>) -> Result<String, ConfigError> {
    let chosen = field::text(map, "signature_header")?.unwrap_or(SIGNATURE);
    name("signature_header", chosen)?;
    if !chosen.eq_ignore_ascii_case(SIGNATURE) {
        not_reserved("signature_header", chosen)?;
    }
    Ok(chosen.to_owned())
}

/// The headers beside ours, the value of each a secret.
pub fn headers(
    map: &Map<String, Value>,
    signature_header: &str,
) -> Result<Vec<(String, Given)>, ConfigError> {
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
    let mut read: Vec<(String, Given)> = Vec::new();
    for (header, value) in headers {
        let path = format!("headers.{header}");
        name(&path, header)?;
        if !header.eq_ignore_ascii_case(SIGNATURE) || header.eq_ignore_ascii_case(signature_header) {
            not_reserved(&path, header)?;
        }
        if header.eq_ignore_ascii_case(signature_header) {
            return Err(ConfigError::new(path, "is reserved", "The signature goes there."));
        }
        if read.iter().any(|(other, _)| other.eq_ignore_ascii_case(header)) {
            return Err(ConfigError::new(
                path,
                "appears twice",
                "A header's name counts once, whatever its case.",
            ));
        }
        let text = value.as_str().ok_or_else(|| field::no_string(&path))?;
        if text.len() > MAX_VALUE && !is_sealed(text) {
            return Err(ConfigError::new(path, "is longer than 1024 bytes", "Header values are short."));
        }
        read.push((header.clone(), field::given(&path, text)?));
    }
    Ok(read)
}

/// A header is often a scheme and the secret after it; of `Basic` that is a user and a password
/// (RFC 7617).
pub fn strike(value: &str, strike: &mut dyn FnMut(&str)) {
    strike(value);
    let Some((scheme, credentials)) = value.split_once(' ') else { return };
    strike(credentials);
    if scheme.eq_ignore_ascii_case("basic")
        && let Some(pair) =
            STANDARD.decode(credentials.trim()).ok().and_then(|pair| String::from_utf8(pair).ok())
    {
        strike(&pair);
        strike(pair.split_once(':').map_or("", |(_, pass)| pass));
    }
}
