//! A point of the chain, signed, to be kept where the database cannot reach it.

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::{Key, Tag};

const DOMAIN: &[u8] = b"klaxon.checkpoint.v1";

/// Where the chain was at a time: what `klaxon audit checkpoint --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The chain's id.
    pub chain: String,
    /// The last row's `seq`; 0 before the first.
    pub seq: i64,
    /// Its MAC in hexadecimal.
    pub mac: String,
    /// When it was taken, RFC 3339.
    pub at: String,
    /// HMAC-SHA256 of the rest in hexadecimal.
    pub signature: String,
}

/// Why a checkpoint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It does not read as one.
    #[error("the checkpoint does not read: {0}")]
    Unreadable(String),
    /// No key signed it.
    #[error("the checkpoint's signature fits none of the keys")]
    Signature,
}

impl Checkpoint {
    /// Signs a point of the chain.
    #[must_use]
    pub fn sign(key: &Key, chain: &str, seq: i64, mac: &Tag, at: &str) -> Self {
        let mut checkpoint = Self {
            chain: chain.to_owned(),
            seq,
            mac: hex::encode(mac),
            at: at.to_owned(),
            signature: String::new(),
        };
        checkpoint.signature = hex::encode(key.mac(&checkpoint.bytes()));
        checkpoint
    }

    /// Of a text with a checkpoint a line the last one of `chain`; the last one where none is, and the whole
    /// of a text that has no lines of its own.
    #[must_use]
    pub fn last_of<'t>(text: &'t str, chain: Option<&str>) -> &'t str {
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty()).rev();
        let parsed = |line: &&str| serde_json::from_str::<Self>(line).ok();
        let of_chain =
            |line: &&str| parsed(line).is_some_and(|kept| chain.is_none_or(|chain| kept.chain == chain));
        lines().find(of_chain).or_else(|| lines().find(|line| parsed(line).is_some())).unwrap_or(text)
    }

    /// Reads a checkpoint and checks its signature.
    ///
    /// # Errors
    /// Where it does not read, or none of the keys signed it.
    pub fn read(json: &str, keys: &[Key]) -> Result<Self, CheckpointError> {
        let checkpoint: Self =
            serde_json::from_str(json).map_err(|error| CheckpointError::Unreadable(error.to_string()))?;
        let tag = |text: &str| hex::decode(text).ok().filter(|bytes| bytes.len() == 32);
        let (Some(signature), Some(_)) = (tag(&checkpoint.signature), tag(&checkpoint.mac)) else {
            return Err(CheckpointError::Unreadable("mac or signature is no 32 bytes of hexadecimal".into()));
        };
        let bytes = checkpoint.bytes();
        if keys.iter().any(|key| bool::from(key.mac(&bytes).as_slice().ct_eq(&signature))) {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Signature)
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for field in
            [DOMAIN, self.chain.as_bytes(), &self.seq.to_be_bytes(), self.mac.as_bytes(), self.at.as_bytes()]
        {
            super::bytes(&mut out, Some(field));
        }
        out
    }
}
