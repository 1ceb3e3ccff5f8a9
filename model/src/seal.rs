//! Secrets sealed to the worker's public key.
//!
//! The database seals with a public key and can open nothing; the worker holds the private one. A
//! seal is a libsodium sealed box (`crypto_box_seal`: X25519, XSalsa20-Poly1305, a fresh key pair
//! each time) around a small JSON object that says which channel and destination the secret is
//! for, so that a sealed value copied elsewhere is refused there.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_box::aead::OsRng;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// What every sealed value begins with.
pub const PREFIX: &str = "sealed:v1:";

/// Why something is not sealed, or not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not 32 bytes of base64.
    #[error("a key is 32 bytes in base64")]
    NotAKey,
    /// A point of low order, under which every secret would be the same.
    #[error("a point of low order is no key")]
    LowOrder,
    /// Not `sealed:v1:` and base64.
    #[error("not a sealed value: it does not read as sealed:v1: and base64")]
    NotSealed,
    /// No key opens it.
    #[error("no key opens this sealed value")]
    WrongKey,
    /// It opened and holds something else.
    #[error("the sealed value holds no secret of version 1")]
    NotASecret,
}

/// An X25519 public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(crypto_box::PublicKey);

impl PublicKey {
    /// Reads 32 bytes of base64.
    ///
    /// # Errors
    /// Where it is none, or a point of low order (RFC 7748 section 6.1).
    pub fn from_base64(text: &str) -> Result<Self, SealError> {
        let bytes: [u8; 32] =
            STANDARD.decode(text.trim()).ok().and_then(|b| b.try_into().ok()).ok_or(SealError::NotAKey)?;
        // A point is of low order exactly when a clamped scalar takes it to the identity.
        let mut scalar = [0u8; 32];
        scalar[0] = 8;
        let point = curve25519_dalek::MontgomeryPoint(bytes);
        if point.mul_clamped(scalar).to_bytes() == [0; 32] {
            return Err(SealError::LowOrder);
        }
        Ok(Self(crypto_box::PublicKey::from(bytes)))
    }

    /// 32 bytes in base64.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0.as_bytes())
    }
}

/// An X25519 private key: wiped when it is dropped, and printed as nothing.
#[derive(Clone)]
pub struct SecretKey(crypto_box::SecretKey);

// crypto_box wipes its key when it is dropped.
impl ZeroizeOnDrop for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl SecretKey {
    /// A new key from the operating system's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        Self(crypto_box::SecretKey::generate(&mut OsRng))
    }

    /// Reads 32 bytes of base64.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_base64(text: &str) -> Result<Self, SealError> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| SealError::NotAKey)?);
        let bytes: Zeroizing<[u8; 32]> =
            Zeroizing::new(bytes.as_slice().try_into().map_err(|_| SealError::NotAKey)?);
        Ok(Self(crypto_box::SecretKey::from(*bytes)))
    }

    /// 32 bytes in base64.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(self.0.to_bytes());
        Zeroizing::new(STANDARD.encode(*bytes))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key())
    }
}

/// What is inside a seal. It is printed without the secret, and serialised by [`seal`] alone.
#[derive(Clone, Debug)]
pub struct Plaintext {
    /// Version: 1.
    pub v: u8,
    /// The channel; `None` where it was sealed by hand before the channel existed.
    pub channel: Option<i64>,
    /// Scheme, host and port it may be sent to.
    pub destination: Option<String>,
    /// The field of the channel's configuration.
    pub field: String,
    /// The secret.
    pub value: SecretString,
}

/// The JSON of it, as it is written.
#[derive(Serialize)]
struct Written<'p> {
    v: u8,
    channel: Option<i64>,
    destination: Option<&'p str>,
    field: &'p str,
    value: &'p str,
}

/// The same, as it is read.
#[derive(Deserialize)]
struct Read {
    v: u8,
    channel: Option<i64>,
    destination: Option<String>,
    field: String,
    value: Zeroizing<String>,
}

/// Whether a text looks sealed.
#[must_use]
pub fn is_sealed(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|rest| STANDARD.decode(rest).is_ok())
}

/// Seals a secret.
///
/// # Panics
/// Never for a key that [`PublicKey`] let in: sealing has no other way to fail.
#[must_use]
pub fn seal(key: &PublicKey, plaintext: &Plaintext) -> String {
    // Room for all of it from the start: a buffer that grows leaves what it held behind.
    let room = 256
        + 6 * (plaintext.value.expose_secret().len()
            + plaintext.field.len()
            + plaintext.destination.as_ref().map_or(0, String::len));
    let mut json = Zeroizing::new(Vec::with_capacity(room));
    let written = Written {
        v: plaintext.v,
        channel: plaintext.channel,
        destination: plaintext.destination.as_deref(),
        field: &plaintext.field,
        value: plaintext.value.expose_secret(),
    };
    serde_json::to_writer(&mut *json, &written).expect("a plaintext is JSON");
    let sealed = key.0.seal(&mut OsRng, &json).expect("sealing to a sound key succeeds");
    format!("{PREFIX}{}", STANDARD.encode(sealed))
}

/// Opens a sealed secret with the first key that fits.
///
/// # Errors
/// Where it is not sealed, no key fits, or it holds no secret.
pub fn open(keys: &[SecretKey], text: &str) -> Result<Plaintext, SealError> {
    let encoded = text.strip_prefix(PREFIX).ok_or(SealError::NotSealed)?;
    let sealed = STANDARD.decode(encoded).map_err(|_| SealError::NotSealed)?;
    let json = keys
        .iter()
        .find_map(|key| key.0.unseal(&sealed).ok())
        .map(Zeroizing::new)
        .ok_or(SealError::WrongKey)?;
    let read: Read = serde_json::from_slice(&json).map_err(|_| SealError::NotASecret)?;
    if read.v != 1 {
        return Err(SealError::NotASecret);
    }
    let Read { v, channel, destination, field, value } = read;
    Ok(Plaintext { v, channel, destination, field, value: SecretString::from(value.as_str()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No secret of these types can be printed or serialised, and none leaves anything behind.
    mod types {
        use std::fmt::Display;

        use serde::Serialize;
        use static_assertions::{assert_impl_all, assert_not_impl_any};
        use zeroize::ZeroizeOnDrop;

        use super::super::{Plaintext, SecretKey, SecretString};

        assert_not_impl_any!(SecretKey: Display, Serialize, Copy, AsRef<[u8]>);
        assert_not_impl_any!(Plaintext: Display, Serialize);
        assert_not_impl_any!(SecretString: Display, Serialize, AsRef<str>, std::ops::Deref);
        assert_impl_all!(SecretKey: ZeroizeOnDrop);
        assert_impl_all!(SecretString: ZeroizeOnDrop);
    }

    fn secret() -> Plaintext {
        Plaintext {
            v: 1,
            channel: Some(7),
            destination: Some("https://hooks.example.com:443".into()),
            field: "hmac_secret".into(),
            value: "s3cret ü".into(),
        }
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_alone() {
        let (old, new, other) = (SecretKey::generate(), SecretKey::generate(), SecretKey::generate());
        let sealed = seal(&old.public(), &secret());
        assert!(is_sealed(&sealed));
        let opened = open(&[new, old], &sealed).unwrap();
        assert_eq!((opened.value.expose_secret(), opened.channel), ("s3cret ü", Some(7)));
        assert_eq!(open(&[other], &sealed).unwrap_err(), SealError::WrongKey);
        assert!(!format!("{opened:?}").contains("s3cret"));
    }

    /// Made by PyNaCl 1.6.2: `SealedBox(PrivateKey(bytes(range(32))).public_key).encrypt(…)`.
    #[test]
    fn what_libsodium_sealed_opens() {
        const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        const PUBLIC: &str = "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=";
        const SEALED: &str = "sealed:v1:ZxQl1Ig1WrfXtOCmjwb3QdKgCoO7s++FWs0Sp9n1oBM3mHWuSIYlUSgjzOcHAuILS4I4nWpJaVPSpYcL8TdA\
            R97XIRm9Sfq9XhYqKJutxEnNres1XpVqObXl3WaTkwYx9mMwK7groBrHaWhy82glNSASCueJ47KpA/7hG15hJQ2y7m68QLpS7hzakpq3Lptsp\
            TKMRsfAcDGtUqZJK9UdZxlvJ7s=";
        let key = SecretKey::from_base64(KEY).unwrap();
        assert_eq!(key.public().to_base64(), PUBLIC);
        let opened = open(&[key], SEALED).unwrap();
        assert_eq!(opened.value.expose_secret(), "s3cret ü");
        assert_eq!((opened.v, opened.channel, opened.field.as_str()), (1, Some(7), "hmac_secret"));
        assert_eq!(opened.destination.as_deref(), Some("https://hooks.example.com:443"));
    }

    #[test]
    fn a_changed_seal_opens_nowhere() {
        let key = SecretKey::generate();
        let sealed = STANDARD.decode(&seal(&key.public(), &secret())[PREFIX.len()..]).unwrap();
        for at in (0..sealed.len()).step_by(9) {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            let text = format!("{PREFIX}{}", STANDARD.encode(changed));
            assert_eq!(
                open(std::slice::from_ref(&key), &text).unwrap_err(),
                SealError::WrongKey,
                "byte {at}"
            );
        }
    }

    #[test]
    fn what_is_no_seal_is_refused() {
        let key = SecretKey::generate();
        for (text, error) in [
            ("plain", SealError::NotSealed),
            ("sealed:v1:***", SealError::NotSealed),
            ("sealed:v2:AAAA", SealError::NotSealed),
            ("sealed:v1:", SealError::WrongKey),
            ("sealed:v1:AAAA", SealError::WrongKey),
        ] {
            assert_eq!(open(std::slice::from_ref(&key), text).unwrap_err(), error, "{text}");
        }
        let mut later = secret();
        later.v = 2;
        let sealed = seal(&key.public(), &later);
        assert_eq!(open(&[key], &sealed).unwrap_err(), SealError::NotASecret);
    }

    proptest::proptest! {
        // Each makes a key, which takes its time without optimisation.
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]

        #[test]
        fn only_what_was_sealed_to_a_key_opens_with_it(
            text in "\\PC{0,60}|sealed:v1:[A-Za-z0-9+/]{0,160}={0,2}",
            noise in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            cut in proptest::num::usize::ANY,
        ) {
            let key = SecretKey::generate();
            let sealed = seal(&key.public(), &secret());
            let shorter = &sealed[..cut % sealed.len()];
            let noise = format!("{PREFIX}{}", STANDARD.encode(noise));
            for text in [&text, shorter, &noise] {
                let error = open(std::slice::from_ref(&key), text).unwrap_err();
                proptest::prop_assert!(matches!(error, SealError::NotSealed | SealError::WrongKey));
            }
            // Sealed to the key, and no secret all the same.
            let foreign = key.public().0.seal(&mut OsRng, text.as_bytes()).unwrap();
            let foreign = format!("{PREFIX}{}", STANDARD.encode(foreign));
            proptest::prop_assert_eq!(open(&[key], &foreign).unwrap_err(), SealError::NotASecret);
        }
    }

    #[test]
    fn keys_read_back() {
        let key = SecretKey::generate();
        assert_eq!(SecretKey::from_base64(&key.to_base64()).unwrap().public(), key.public());
        assert_eq!(PublicKey::from_base64(&key.public().to_base64()).unwrap(), key.public());
        assert_eq!(PublicKey::from_base64("AAAA").unwrap_err(), SealError::NotAKey);
    }

    /// The points of small order, as libsodium's blocklist has them.
    #[test]
    fn points_of_low_order_are_refused() {
        for hex in [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ] {
            let key = STANDARD.encode(hex::decode(hex).unwrap());
            assert_eq!(PublicKey::from_base64(&key).unwrap_err(), SealError::LowOrder, "{hex}");
        }
    }
}
