//! How a webhook's receiver knows it is us.
//!
//! Two schemes over the same body: Standard Webhooks (`v1`, over id, timestamp and body), and the
//! plain one that older receivers know (`sha256=` and the HMAC of the body alone).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

const PREFIX: &str = "whsec_";

/// `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
///
/// A secret that begins with `whsec_` is base64 of the key, any other is the key itself
/// (Standard Webhooks, "Signature scheme").
#[must_use]
pub fn standard_webhooks(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut mac = keyed(&key(secret));
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// `X-Klaxon-Signature`: `sha256=` and the hex of HMAC-SHA256 over the body, under the secret as written.
#[must_use]
pub fn plain(secret: &str, body: &[u8]) -> String {
    let mut mac = keyed(secret.as_bytes());
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// Refuses a `whsec_` secret that is no base64.
///
/// # Errors
/// What is wrong with it.
pub fn check_secret(secret: &str) -> Result<(), &'static str> {
    match secret.strip_prefix(PREFIX).map(|encoded| STANDARD.decode(encoded)) {
        Some(Err(_)) => Err("begins with whsec_ and is no base64 after it"),
        Some(Ok(key)) if key.is_empty() => Err("is whsec_ and nothing after it"),
        _ => Ok(()),
    }
}

fn key(secret: &str) -> Zeroizing<Vec<u8>> {
    let decoded = secret.strip_prefix(PREFIX).and_then(|encoded| STANDARD.decode(encoded).ok());
    Zeroizing::new(decoded.unwrap_or_else(|| secret.as_bytes().to_vec()))
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification.
    #[test]
    fn the_specifications_example_signs_the_same() {
        assert_eq!(
            standard_webhooks(
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    /// RFC 4231, test case 2.
    #[test]
    fn the_plain_scheme_is_hmac_sha256() {
        assert_eq!(
            plain("Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn a_secret_without_prefix_is_its_bytes() {
        assert_eq!(standard_webhooks("abc", "i", 1, b"x"), standard_webhooks("whsec_YWJj", "i", 1, b"x"));
    }

    #[test]
    fn a_prefixed_secret_is_base64() {
        for (secret, fits) in
            [("whsec_YWJj", true), ("anything!", true), ("whsec_", false), ("whsec_%", false)]
        {
            assert_eq!(check_secret(secret).is_ok(), fits, "{secret}");
        }
    }
}
