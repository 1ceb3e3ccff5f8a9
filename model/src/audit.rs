//! The record of an attempt, its canonical bytes, and the chain of them.
//!
//! Each row of `klaxon.delivery` carries HMAC-SHA256, under a key that only the worker holds, over
//! an unambiguous encoding of every column and the MAC of the row before it. Every field is
//! written with its length, an absent one differs from an empty one, and the whole begins with a
//! domain and version, so no two records have the same bytes. A body is covered by its hash alone,
//! so that retention may blank it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest, Sha256};
use zeroize::{ZeroizeOnDrop, Zeroizing};

mod adoption;
mod checkpoint;
mod finding;
mod start;
mod verify;

pub use adoption::Adoption;
pub use checkpoint::{Checkpoint, CheckpointError};
pub use finding::{Finding, FindingKind, Verdict};
pub use verify::Verifier;

/// What every record's bytes begin with.
const DOMAIN: &[u8] = b"klaxon.audit.v1";
/// What an audit key's name is derived under.
const KEY_DOMAIN: &[u8] = b"klaxon.audit.key";

/// A MAC.
pub type Tag = [u8; 32];
/// What stands before the first row.
pub const GENESIS: Tag = [0; 32];

/// A row of `klaxon.delivery`, without its MAC and without the body its hash covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// Position in the chain, gapless from 1.
    pub seq: i64,
    /// `attempt`, or a record of the log itself.
    pub kind: &'a str,
    /// The delivery.
    pub delivery_id: Option<[u8; 16]>,
    /// Counts from 1.
    pub attempt: Option<i32>,
    /// The event.
    pub event_id: Option<[u8; 16]>,
    /// Its type.
    pub event_type: Option<&'a str>,
    /// Its project.
    pub project: Option<&'a str>,
    /// The subscription.
    pub subscription_id: Option<i64>,
    /// The channel.
    pub channel_id: Option<i64>,
    /// Its name.
    pub channel_name: Option<&'a str>,
    /// Its kind.
    pub channel_kind: Option<&'a str>,
    /// `sent`, `failed` or `dead`.
    pub status: Option<&'a str>,
    /// HTTP status or SMTP reply.
    pub response_code: Option<i32>,
    /// What went wrong.
    pub error: Option<&'a str>,
    /// Milliseconds.
    pub duration_ms: Option<i32>,
    /// Microseconds since 2000-01-01 00:00 UTC, as Postgres counts.
    pub attempted_at: i64,
    /// The worker.
    pub worker: Option<[u8; 16]>,
    /// JSON of records that are no attempts.
    pub detail: Option<&'a str>,
    /// The chain's id.
    pub chain: [u8; 16],
    /// The key's id.
    pub key_id: &'a str,
    /// [`body_hash`] of the body, where there was one.
    pub body_hash: Option<Tag>,
}

impl Record<'_> {
    /// Appends the canonical bytes: what the MAC is over.
    pub fn encode(&self, previous: &Tag, out: &mut Vec<u8>) {
        self.encode_around(previous, out);
    }

    /// The same, and where in `out` the previous MAC stands.
    fn encode_around(&self, previous: &Tag, out: &mut Vec<u8>) -> usize {
        bytes(out, Some(DOMAIN));
        bytes(out, Some(&self.chain));
        bytes(out, Some(self.key_id.as_bytes()));
        bytes(out, Some(&self.seq.to_be_bytes()));
        bytes(out, Some(previous));
        let previous_at = out.len() - previous.len();
        bytes(out, Some(self.kind.as_bytes()));
        bytes(out, self.delivery_id.as_ref().map(<[u8; 16]>::as_slice));
        integer(out, self.attempt.map(i64::from));
        bytes(out, self.event_id.as_ref().map(<[u8; 16]>::as_slice));
        bytes(out, self.event_type.map(str::as_bytes));
        bytes(out, self.project.map(str::as_bytes));
        integer(out, self.subscription_id);
        integer(out, self.channel_id);
        bytes(out, self.channel_name.map(str::as_bytes));
        bytes(out, self.channel_kind.map(str::as_bytes));
        bytes(out, self.status.map(str::as_bytes));
        integer(out, self.response_code.map(i64::from));
        bytes(out, self.error.map(str::as_bytes));
        integer(out, self.duration_ms.map(i64::from));
        integer(out, Some(self.attempted_at));
        bytes(out, self.worker.as_ref().map(<[u8; 16]>::as_slice));
        bytes(out, self.detail.map(str::as_bytes));
        bytes(out, self.body_hash.as_ref().map(Tag::as_slice));
        previous_at
    }
}

/// A presence byte, and where there is something its length in four bytes and itself.
fn bytes(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => out.push(0),
        Some(field) => {
            out.push(1);
            // A column cannot hold 4 GiB.
            out.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(field);
        }
    }
}

fn integer(out: &mut Vec<u8>, field: Option<i64>) {
    bytes(out, field.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
}

/// SHA-256 of a body's UTF-8 bytes.
#[must_use]
pub fn body_hash(body: &str) -> Tag {
    Sha256::digest(body.as_bytes()).into()
}

/// A key is 32 bytes in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an audit key is 32 bytes in base64")]
pub struct NotAKey;

/// An audit key: wiped when it is dropped, and printed as its name alone.
#[derive(Clone)]
pub struct Key {
    id: String,
    secret: Zeroizing<[u8; 32]>,
    /// HMAC with the key taken in already; it, too, wipes itself.
    keyed: Hmac<Sha256>,
}

impl ZeroizeOnDrop for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Key {
    /// A key of these bytes.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        let secret = Zeroizing::new(secret);
        let name = Sha256::new().chain_update(KEY_DOMAIN).chain_update(*secret).finalize();
        let keyed = Hmac::new_from_slice(secret.as_slice()).expect("HMAC takes a key of any length");
        Self { id: hex::encode(&name[..8]), secret, keyed }
    }

    /// A new key from the operating system's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        let mut secret = [0; 32];
        crypto_box::aead::rand_core::RngCore::fill_bytes(&mut crypto_box::aead::OsRng, &mut secret);
        Self::new(secret)
    }

    /// Reads 32 bytes of base64.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_base64(text: &str) -> Result<Self, NotAKey> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| NotAKey)?);
        Ok(Self::new(bytes.as_slice().try_into().map_err(|_| NotAKey)?))
    }

    /// 32 bytes in base64.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.secret))
    }

    /// Its name: 16 hexadecimal digits that say nothing about it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// HMAC-SHA256 of some bytes.
    #[must_use]
    pub fn mac(&self, bytes: &[u8]) -> Tag {
        self.keyed.clone().chain_update(bytes).finalize().into_bytes().into()
    }

    /// The MAC of a record after `previous`, through a buffer that is reused.
    pub fn seal(&self, record: &Record<'_>, previous: &Tag, buffer: &mut Vec<u8>) -> Tag {
        buffer.clear();
        record.encode(previous, buffer);
        self.mac(buffer)
    }
}

#[cfg(test)]
mod tests;
