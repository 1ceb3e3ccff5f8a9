//! Verification of a chain, row by row in order of `seq`, in constant memory.

use std::fmt;

use serde::Serialize;
use subtle::ConstantTimeEq as _;

use super::{Checkpoint, GENESIS, Key, Record, Tag, body_hash};

/// What is wrong with a chain, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which kind of wrong.
    pub kind: FindingKind,
    /// At which row.
    pub seq: i64,
    /// In words.
    pub detail: String,
}

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A row's MAC is not that of its columns and the row before it.
    Altered,
    /// Rows are not there.
    Missing,
    /// A `seq` appears twice.
    Duplicate,
    /// A row is of another chain.
    Foreign,
    /// A row has no MAC.
    Unsealed,
    /// A row is under a key that is not valid there.
    WrongKey,
    /// The checkpoint and the chain have different rows at the same `seq`.
    Forked,
    /// The chain ends before the checkpoint, or before its own head.
    Truncated,
    /// The chain is whole and older than the checkpoint: a backup was restored.
    Rewound,
    /// The checkpoint cannot be used.
    BadCheckpoint,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Altered => "altered",
            Self::Missing => "missing",
            Self::Duplicate => "duplicate",
            Self::Foreign => "foreign",
            Self::Unsealed => "unsealed",
            Self::WrongKey => "wrong_key",
            Self::Forked => "forked",
            Self::Truncated => "truncated",
            Self::Rewound => "rewound",
            Self::BadCheckpoint => "bad_checkpoint",
        })
    }
}

/// What verification comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Whole, up to a checkpoint held outside and on from there.
    Clean,
    /// Somebody changed it.
    Tampered,
    /// Whole, and older than the checkpoint.
    Rewound,
    /// Whole; without a checkpoint a cut tail cannot be excluded.
    Unanchored,
}

impl Verdict {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_ok(self) -> bool {
        matches!(self, Self::Clean | Self::Unanchored)
    }
}

/// Reads a chain from its first row to its last.
pub struct Verifier {
    keys: Vec<Key>,
    chain: [u8; 16],
    checkpoint: Option<Checkpoint>,
    previous: Tag,
    /// The key that rows must be under, once one was seen; a rotation record names the next.
    valid: Option<String>,
    rows: u64,
    first: Option<i64>,
    last: i64,
    /// Whether the checkpoint's row was met.
    anchored: bool,
    findings: Vec<Finding>,
    buffer: Vec<u8>,
}

impl Verifier {
    /// Begins before the first row.
    #[must_use]
    pub fn new(keys: Vec<Key>, chain: [u8; 16], checkpoint: Option<Checkpoint>) -> Self {
        Self {
            keys,
            chain,
            checkpoint,
            previous: GENESIS,
            valid: None,
            rows: 0,
            first: None,
            last: 0,
            anchored: false,
            findings: Vec::new(),
            buffer: Vec::with_capacity(1024),
        }
    }

    /// Takes the next row, in order of `seq`, with its stored MAC and body.
    pub fn push(&mut self, row: &Record<'_>, body: Option<&str>, mac: Option<&[u8]>) {
        self.rows += 1;
        if self.first.is_none() {
            self.first = Some(row.seq);
            self.begin(row);
        } else if row.seq == self.last {
            self.find(FindingKind::Duplicate, row.seq, "the row appears twice".into());
            return;
        }
        let gap = row.seq > self.last + 1;
        if gap {
            let detail = match row.seq - self.last - 1 {
                1 => "one row is missing".into(),
                many => format!("{many} rows are missing, {} to {}", self.last + 1, row.seq - 1),
            };
            self.find(FindingKind::Missing, self.last + 1, detail);
        }
        self.last = row.seq;
        let Some(mac) = mac.and_then(|mac| Tag::try_from(mac).ok()) else {
            self.find(FindingKind::Unsealed, row.seq, "the row has no MAC".into());
            return;
        };
        self.judge(row, body, &mac, gap);
        self.previous = mac;
        self.meet_checkpoint(row.seq, &mac);
    }

    /// A chain may begin after row 1 where its first row is the record of a prune: it carries the
    /// MAC of the row that stood before it.
    fn begin(&mut self, row: &Record<'_>) {
        if row.kind == "prune"
            && let Some(detail) =
                row.detail.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok())
            && let Some(mac) = detail["previous_mac"].as_str().and_then(|text| hex::decode(text).ok())
            && let Ok(mac) = Tag::try_from(mac.as_slice())
        {
            self.previous = mac;
            self.last = row.seq - 1;
        }
    }

    fn judge(&mut self, row: &Record<'_>, body: Option<&str>, mac: &Tag, after_gap: bool) {
        if row.chain != self.chain {
            self.find(FindingKind::Foreign, row.seq, "the row is of another chain".into());
            return;
        }
        let Some(key) = self.keys.iter().find(|key| key.id() == row.key_id) else {
            let detail = format!("the row is under key {}, which is not ours", row.key_id);
            self.find(FindingKind::WrongKey, row.seq, detail);
            return;
        };
        if self.valid.as_deref().is_some_and(|valid| valid != row.key_id) {
            let detail = format!("the row is under key {} outside the range where that is valid", row.key_id);
            self.find(FindingKind::WrongKey, row.seq, detail);
            return;
        }
        let expected = key.seal(row, &self.previous, &mut self.buffer);
        let mut fits = bool::from(expected.as_slice().ct_eq(mac));
        // After a gap the row before is unknown: the gap is the finding, and this row's own columns
        // are vouched for by the row after it.
        fits |= after_gap;
        if !fits {
            self.find(FindingKind::Altered, row.seq, "the row is not what was written there".into());
        } else if let Some(body) = body
            && row.body_hash != Some(body_hash(body))
        {
            self.find(FindingKind::Altered, row.seq, "response_body is not what was written there".into());
        }
        if fits {
            self.valid = Some(row.key_id.to_owned());
            if row.kind == "rotation"
                && let Some(next) = row
                    .detail
                    .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok())
                    .and_then(|detail| detail["key_id"].as_str().map(str::to_owned))
            {
                self.valid = Some(next);
            }
        }
    }

    fn meet_checkpoint(&mut self, seq: i64, mac: &Tag) {
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|checkpoint| checkpoint.seq == seq) else {
            return;
        };
        self.anchored = true;
        if checkpoint.mac != hex::encode(mac) {
            let detail = format!("the checkpoint of {} has another row here", checkpoint.at);
            self.find(FindingKind::Forked, seq, detail);
        }
    }

    fn find(&mut self, kind: FindingKind, seq: i64, detail: String) {
        self.findings.push(Finding { kind, seq, detail });
    }

    /// How many rows were read.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The first and the last row's `seq`.
    #[must_use]
    pub fn range(&self) -> Option<(i64, i64)> {
        self.first.map(|first| (first, self.last))
    }

    /// Ends the chain. `head` is what the database says its last row is.
    #[must_use]
    pub fn finish(mut self, head: Option<(i64, Tag)>) -> (Verdict, Vec<Finding>) {
        let mut rewound = false;
        if let Some((seq, mac)) = head {
            if seq > self.last {
                let detail = format!("the chain's head is row {seq}");
                self.find(FindingKind::Truncated, self.last + 1, detail);
            } else if seq < self.last || mac != self.previous {
                let detail = format!("the chain's head says row {seq}, and the log goes on differently");
                self.find(FindingKind::Forked, seq, detail);
            }
        }
        if let Some(checkpoint) = self.checkpoint.clone() {
            if checkpoint.chain != uuid_text(&self.chain) {
                self.find(
                    FindingKind::BadCheckpoint,
                    checkpoint.seq,
                    "the checkpoint is of another chain".into(),
                );
            } else if checkpoint.seq > self.last {
                // The head travels with a backup, so a restored database agrees with itself.
                let consistent = self.findings.is_empty() && head.is_some();
                rewound = consistent;
                let kind = if consistent { FindingKind::Rewound } else { FindingKind::Truncated };
                let detail = format!(
                    "the checkpoint of {} is at row {}, the log ends at {}",
                    checkpoint.at, checkpoint.seq, self.last
                );
                self.find(kind, self.last + 1, detail);
            } else if !self.anchored
                && checkpoint.seq > 0
                && self.first.is_some_and(|first| checkpoint.seq >= first)
            {
                self.find(FindingKind::Missing, checkpoint.seq, "the checkpoint's row is missing".into());
            }
        }
        let verdict = match (self.findings.is_empty(), rewound, self.checkpoint.is_some()) {
            (true, _, true) => Verdict::Clean,
            (true, _, false) => Verdict::Unanchored,
            (false, true, _) => Verdict::Rewound,
            (false, false, _) => Verdict::Tampered,
        };
        (verdict, self.findings)
    }
}

/// As Postgres prints a UUID.
fn uuid_text(bytes: &[u8; 16]) -> String {
    let digits = hex::encode(bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
