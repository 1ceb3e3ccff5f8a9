//! What a receiver checks of a signed webhook: Standard Webhooks by its authors' own crate, and the
//! plain header by our reading of its description. Neither shares code with what signs.

use base64::Engine as _;
use hmac::{Hmac, Mac as _};
use hyper::HeaderMap;
use sha2::Sha256;
use standardwebhooks::Webhook;

/// The header of the plain scheme.
pub const PLAIN: &str = "x-klaxon-signature";

/// Why a request is not the sender's.
///
/// # Errors
/// Says which of the two signatures is missing, stale or wrong.
pub fn check(secret: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => {
            base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|error| error.to_string())?
        }
        None => secret.as_bytes().to_vec(),
    };
    Webhook::from_bytes(key)
        .and_then(|webhook| webhook.verify(body, headers))
        .map_err(|error| format!("webhook-signature: {error}"))?;
    let said = headers.get(PLAIN).ok_or_else(|| format!("{PLAIN} is missing"))?;
    let said = said
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("sha256="))
        .and_then(|digits| hex::decode(digits).ok())
        .ok_or_else(|| format!("{PLAIN} is not sha256=<hex>"))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|error| error.to_string())?;
    mac.update(body);
    mac.verify_slice(&said).map_err(|_| format!("{PLAIN} does not verify"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(secret: &str, body: &[u8]) -> HeaderMap {
        let seconds =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        let signature =
            Webhook::from_bytes(secret.as_bytes().to_vec()).unwrap().sign("id", seconds, body).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(body);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("webhook-id", "id".to_owned()),
            ("webhook-timestamp", seconds.to_string()),
            ("webhook-signature", signature),
            (PLAIN, format!("sha256={}", hex::encode(mac.finalize().into_bytes()))),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_the_secret_and_the_body_that_were_signed_verify() {
        let headers = signed("correct horse", b"{}");
        assert_eq!(check("correct horse", &headers, b"{}"), Ok(()));
        assert!(check("battery staple", &headers, b"{}").is_err());
        assert!(check("correct horse", &headers, b"[]").is_err());
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature", PLAIN] {
            let mut headers = headers.clone();
            headers.remove(name);
            assert!(check("correct horse", &headers, b"{}").is_err(), "without {name}");
        }
    }
}
