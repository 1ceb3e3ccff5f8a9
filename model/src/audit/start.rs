//! A chain that does not begin at row 1, because retention removed what stood before.
//!
//! The removal is itself a record, of kind `prune`, written at the chain's end like every other. Its
//! detail is JSON, `{"through": 1200, "mac": "<hex>"}`: the last row that was removed, and its MAC.
//! The first row is held back until that record is met further on, and is then checked against it:
//! a chain that begins anywhere else has lost rows that no record speaks of.

use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use super::{Finding, FindingKind, Key, Record, Tag};

/// What a `prune` record's detail says.
#[derive(Deserialize)]
struct Prune {
    /// The last row that was removed.
    through: i64,
    /// Its MAC in hexadecimal.
    mac: String,
}

impl Prune {
    fn read(row: &Record<'_>) -> Option<(i64, Tag)> {
        let prune: Self = serde_json::from_str(row.detail?).ok()?;
        Some((prune.through, Tag::try_from(hex::decode(prune.mac).ok()?.as_slice()).ok()?))
    }
}

/// The first row there is, until a record says what stood before it.
pub struct Start {
    seq: i64,
    key_id: String,
    mac: Option<Tag>,
    /// Its canonical bytes, and where in them the MAC before it stands.
    bytes: Vec<u8>,
    previous_at: usize,
    /// The first row is a prune's record, of all rows before it, and bears its own MAC.
    proves_itself: bool,
    /// The last row that the records say was removed, and its MAC.
    pruned: Option<(i64, Tag)>,
    /// Whether the first row follows it.
    follows: bool,
    /// Whether that can be said: the key is held.
    held: bool,
}

impl Start {
    pub fn at(row: &Record<'_>, keys: &[Key], mac: Option<Tag>, held: bool) -> Self {
        let mut bytes = Vec::new();
        let previous_at = row.encode_around(&super::GENESIS, &mut bytes);
        let mut start = Self {
            seq: row.seq,
            key_id: row.key_id.to_owned(),
            mac,
            bytes,
            previous_at,
            proves_itself: false,
            pruned: None,
            follows: false,
            held,
        };
        if row.kind == "prune" {
            start.heed(row, keys);
            start.proves_itself = start.follows;
            // One that speaks of other rows is vouched for by none; one that is not what was written
            // is a finding of its own.
            start.pruned = start.pruned.filter(|(through, _)| through + 1 == row.seq);
        }
        start
    }

    pub fn seq(&self) -> i64 {
        self.seq
    }

    pub fn proves_itself(&self, row: &Record<'_>) -> bool {
        self.proves_itself && row.seq == self.seq
    }

    /// Takes a prune's record that a MAC vouches for.
    pub fn heed(&mut self, row: &Record<'_>, keys: &[Key]) {
        let Some((through, mac)) = Prune::read(row) else { return };
        if through >= self.seq || self.pruned.is_some_and(|(before, _)| before >= through) {
            return;
        }
        self.pruned = Some((through, mac));
        if through + 1 == self.seq {
            self.bytes[self.previous_at..][..mac.len()].copy_from_slice(&mac);
            let key = keys.iter().find(|key| key.id() == self.key_id);
            self.follows =
                key.zip(self.mac).is_some_and(|(key, mac)| key.mac(&self.bytes).ct_eq(&mac).into());
        }
    }

    /// The MAC of row `seq`, where the records say it was the last that was removed.
    pub fn mac_of(&self, seq: i64) -> Option<Tag> {
        self.pruned.filter(|(through, _)| *through == seq && seq + 1 == self.seq).map(|(_, mac)| mac)
    }

    /// What is wrong with where the chain begins.
    pub fn finding(&self) -> Option<Finding> {
        let through = self.pruned.map_or(0, |(through, _)| through);
        let (kind, seq, detail) = if through + 1 < self.seq {
            let first = through + 1;
            let removal = match through {
                0 => "no record of a prune accounts for that".into(),
                _ => format!("the record of a prune accounts for those to {through} only"),
            };
            let detail = format!("the chain begins at row {}, and {removal}", self.seq);
            (FindingKind::Missing, first, detail)
        } else if !self.follows && self.held && self.mac.is_some() {
            (FindingKind::Altered, self.seq, "the row does not follow what was pruned".into())
        } else {
            return None;
        };
        Some(Finding { kind, seq, detail })
    }
}
