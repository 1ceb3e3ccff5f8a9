//! Verification of a chain, row by row in order of `seq`, in memory that does not grow with it.
//!
//! After a finding the verifier finds its place again, so that one wrong row is one finding. A row
//! that was changed leaves two MACs that the next one may follow: the stored one, where its columns
//! were changed, and the computed one, where its MAC was. A row that follows either was written by
//! a key's holder, at that `seq`.

use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use super::adoption::{Adoption, Eras, Place};
use super::start::Start;
use super::{Checkpoint, Finding, FindingKind, GENESIS, Key, Record, Tag, Verdict, body_hash};

/// MACs remembered past wrong rows: enough for two rows that changed places.
const REMEMBERED: usize = 8;

/// The key that rows must be under.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Valid {
    /// No row was vouched for yet.
    Any,
    /// The position of one of ours, of which the newest is the first.
    Ours(usize),
    /// One that a rotation names and we do not hold.
    Other,
}

/// What a `rotation` record's detail says.
#[derive(Deserialize)]
struct Rotation {
    /// The key that the rows after it are under.
    key_id: String,
}

/// Reads a chain from its first row to its last.
pub struct Verifier {
    keys: Vec<Key>,
    chain: [u8; 16],
    checkpoint: Option<Checkpoint>,
    /// MACs the next row may follow: one, unless the rows before it were wrong; none after a gap.
    previous: Vec<Tag>,
    valid: Valid,
    /// Whether a rotation may have been among what is wrong or missing: then a newer key may have begun.
    unsure: bool,
    rows: u64,
    first: Option<i64>,
    last: i64,
    start: Option<Start>,
    eras: Eras,
    /// Whether the checkpoint's row was met.
    anchored: bool,
    /// Whether it has another row where the checkpoint is.
    parted: bool,
    findings: Vec<Finding>,
    buffer: Vec<u8>,
}

impl Verifier {
    /// Begins before the first row. `keys` are in the key file's order, the newest first; `adoptions` what the
    /// log's records say of those who wrote it before, which is believed once the records are met and vouched for.
    #[must_use]
    pub fn new(
        keys: Vec<Key>,
        chain: [u8; 16],
        checkpoint: Option<Checkpoint>,
        adoptions: Vec<Adoption>,
    ) -> Self {
        Self {
            eras: Eras::new(adoptions, |id| keys.iter().any(|key| key.id() == id)),
            keys,
            chain,
            checkpoint,
            previous: vec![GENESIS],
            valid: Valid::Any,
            unsure: false,
            rows: 0,
            first: None,
            last: 0,
            start: None,
            anchored: false,
            parted: false,
            findings: Vec::new(),
            buffer: Vec::with_capacity(1024),
        }
    }

    /// Takes the next row, in order of `seq`, with its stored MAC and body.
    pub fn push(&mut self, row: &Record<'_>, body: Option<&str>, mac: Option<&[u8]>) {
        self.rows += 1;
        let mac = mac.and_then(|mac| Tag::try_from(mac).ok());
        if row.seq < 1 {
            self.find(FindingKind::Foreign, row.seq, "rows are numbered from 1".into());
            return;
        }
        if self.first.is_some() && row.seq <= self.last {
            self.find(FindingKind::Duplicate, row.seq, "the row appears twice".into());
            // Which of the two was written, the row after them says.
            self.remember(mac);
            return;
        }
        let (place, passed) = self.eras.meet(row.seq, self.chain);
        match passed {
            // An adoption's record may be under a key that is newer than the last, as after a gap.
            Some(true) => self.unsure = true,
            // Nobody vouched for a key of theirs.
            Some(false) => self.valid = Valid::Any,
            None => {}
        }
        if self.first.is_none() && row.seq > 1 {
            self.start = Some(Start::at(row, &self.keys, mac, place.held));
            self.previous.clear();
            self.unsure = true;
        } else if row.seq > self.last + 1 {
            let missing = match row.seq - self.last - 1 {
                1 => "one row is missing".into(),
                many => format!("{many} rows are missing, {} to {}", self.last + 1, row.seq - 1),
            };
            let detail = format!("{missing}; without it nothing vouches for row {}", row.seq);
            self.find(FindingKind::Missing, self.last + 1, detail);
            self.previous.clear();
            self.unsure = true;
        }
        self.first.get_or_insert(row.seq);
        self.last = row.seq;
        self.judge(row, body, mac, &place);
        self.meet_checkpoint(row.seq);
    }

    /// Judges a row's place, key and MAC, and remembers what the next may follow.
    fn judge(&mut self, row: &Record<'_>, body: Option<&str>, mac: Option<Tag>, place: &Place) {
        let before = self.findings.len();
        let vouched = self.vouched(row, mac, place);
        let blamed = self.findings.len() > before;
        if !blamed && body.is_some_and(|body| row.body_hash != Some(body_hash(body))) {
            self.find(FindingKind::Altered, row.seq, "response_body is not what was written there".into());
        }
        if vouched {
            self.unsure = false;
            self.previous.clear();
        } else {
            self.unsure = true;
            self.remember_computed(row);
        }
        self.remember(mac);
    }

    fn remember(&mut self, mac: Option<Tag>) {
        self.previous.extend(mac);
        let surplus = self.previous.len().saturating_sub(REMEMBERED);
        self.previous.drain(..surplus);
    }

    /// Whether the row is proven to be what was written there. `false` without a finding is a row
    /// after a gap, of which nothing can be said.
    fn vouched(&mut self, row: &Record<'_>, mac: Option<Tag>, place: &Place) -> bool {
        if row.chain != place.chain {
            self.find(FindingKind::Foreign, row.seq, "the row is of another chain".into());
            return false;
        }
        let Some(mac) = mac else {
            self.find(FindingKind::Unsealed, row.seq, "the row has no MAC".into());
            return false;
        };
        if !place.held {
            // Somebody else's to verify: ours is that the row after them follows the last of them.
            if row.kind == "prune" && self.start.as_ref().is_some_and(|start| !self.eras.is_held(start.seq()))
            {
                self.start.iter_mut().for_each(|start| start.heed(row, &self.keys));
            }
            if row.kind == "adoption" {
                self.eras.heed(row);
            }
            return true;
        }
        let Some(held) = self.keys.iter().position(|key| key.id() == row.key_id) else {
            let detail = format!("the row is under key {}, which is not ours", row.key_id);
            self.find(FindingKind::WrongKey, row.seq, detail);
            return false;
        };
        let in_range = match self.valid {
            Valid::Any => true,
            Valid::Ours(valid) => held == valid || (self.unsure && held < valid),
            Valid::Other => false,
        };
        if !in_range {
            let detail = format!("the row is under key {} outside the range where that is valid", row.key_id);
            self.find(FindingKind::WrongKey, row.seq, detail);
            return false;
        }
        if self.previous.is_empty() && !self.start.as_ref().is_some_and(|start| start.proves_itself(row)) {
            return false;
        }
        let key = &self.keys[held];
        let buffer = &mut self.buffer;
        let follows = |previous| bool::from(key.seal(row, previous, buffer).as_slice().ct_eq(&mac));
        if !self.previous.is_empty() && !self.previous.iter().any(follows) {
            self.find(FindingKind::Altered, row.seq, "the row is not what was written there".into());
            return false;
        }
        self.valid = Valid::Ours(held);
        self.heed(row);
        true
    }

    /// Follows a record of the log itself that a MAC vouches for.
    fn heed(&mut self, row: &Record<'_>) {
        match row.kind {
            "rotation" => {
                let next = row.detail.and_then(|detail| serde_json::from_str::<Rotation>(detail).ok());
                if let Some(next) = next {
                    let held = self.keys.iter().position(|key| key.id() == next.key_id);
                    self.valid = held.map_or(Valid::Other, Valid::Ours);
                }
            }
            "adoption" => self.eras.heed(row),
            "prune" => {
                if let Some(start) = &mut self.start {
                    start.heed(row, &self.keys);
                }
            }
            _ => {}
        }
    }

    /// Where a row's MAC was changed and its columns were not, the next row follows the computed one.
    fn remember_computed(&mut self, row: &Record<'_>) {
        let Some(key) = self.keys.iter().find(|key| key.id() == row.key_id) else { return };
        for at in 0..self.previous.len() {
            let computed = key.seal(row, &self.previous[at], &mut self.buffer);
            self.previous.push(computed);
        }
    }

    fn meet_checkpoint(&mut self, seq: i64) {
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|checkpoint| checkpoint.seq == seq) else {
            return;
        };
        self.anchored = true;
        if !self.previous.iter().any(|mac| hex::encode(mac) == checkpoint.mac) {
            let detail = format!("the checkpoint of {} has another row here", checkpoint.at);
            self.parted = true;
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

    /// The first and the last row that another deployment wrote, under a key that is not held, before the database was
    /// adopted: whether they are what was written there is not for us to say.
    #[must_use]
    pub fn not_ours(&self) -> Option<(i64, i64)> {
        self.eras.not_ours()
    }

    /// Ends the chain. `head` is what the database says its last row is. Findings are in order of `seq`.
    #[must_use]
    pub fn finish(mut self, head: Option<(i64, Tag)>) -> (Verdict, Vec<Finding>) {
        for seq in self.eras.unaccounted().collect::<Vec<_>>() {
            let detail = "from here rows are of another chain, and no record of an adoption that a key vouches for accounts for them";
            self.find(FindingKind::Foreign, seq, detail.into());
        }
        if let Some(start) = self.start.take() {
            self.findings.extend(start.finding());
            // A pruned chain's last removed row is the checkpoint's own: its record has that row's MAC.
            if let Some(checkpoint) = &self.checkpoint
                && let Some(mac) = start.mac_of(checkpoint.seq)
            {
                self.anchored = hex::encode(mac) == checkpoint.mac;
                if !self.anchored {
                    let detail = format!("the checkpoint of {} has another row here", checkpoint.at);
                    self.parted = true;
                    self.find(FindingKind::Forked, start.seq() - 1, detail);
                }
            }
        }
        if let Some((seq, mac)) = head {
            if seq > self.last {
                let detail = format!("the chain's head is row {seq}");
                self.find(FindingKind::Truncated, self.last + 1, detail);
            } else if seq < self.last || !self.previous.contains(&mac) {
                let detail = format!("the chain's head says row {seq}, and the log goes on differently");
                self.find(FindingKind::Forked, seq, detail);
            }
        }
        // Nobody without the key writes a row that the chain vouches for: a worker went on from a backup, or
        // from a standby that had not got everything.
        let went_on = self.parted && self.findings.len() == 1 && head.is_some();
        let rewound = self.compare_checkpoint(head.is_some()) || went_on;
        self.findings.sort_by_key(|finding| finding.seq);
        let verdict = match (self.findings.is_empty(), rewound, self.anchored) {
            (true, _, true) => Verdict::Clean,
            (true, _, false) => Verdict::Unanchored,
            (false, true, _) => Verdict::Rewound,
            (false, false, _) => Verdict::Tampered,
        };
        (verdict, self.findings)
    }

    /// Whether the chain is whole and ends before the checkpoint, as a restored backup does.
    fn compare_checkpoint(&mut self, has_head: bool) -> bool {
        let Some(checkpoint) = self.checkpoint.clone() else { return false };
        if checkpoint.chain != uuid_text(&self.eras.chain_of(checkpoint.seq, self.chain)) {
            self.anchored = false;
            let detail = "the checkpoint is of another chain".into();
            self.find(FindingKind::BadCheckpoint, checkpoint.seq, detail);
        } else if checkpoint.seq > self.last {
            // The head travels with a backup, so a restored database agrees with itself.
            let whole = self.findings.is_empty() && has_head;
            let kind = if whole { FindingKind::Rewound } else { FindingKind::Truncated };
            let detail = format!(
                "the checkpoint of {} is at row {}, the log ends at {}",
                checkpoint.at, checkpoint.seq, self.last
            );
            self.find(kind, self.last + 1, detail);
            return whole;
        } else if checkpoint.seq == 0 {
            self.anchored = true;
        }
        // One whose row is missing or pruned leaves the chain unanchored; what is missing was found.
        false
    }
}

/// As Postgres prints a UUID.
pub(super) fn uuid_text(bytes: &[u8; 16]) -> String {
    let digits = hex::encode(bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
