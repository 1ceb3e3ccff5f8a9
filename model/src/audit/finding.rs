//! What a verification says.

use std::fmt;

use serde::Serialize;

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
    /// Whole, and older than the checkpoint, or gone on from where it was older.
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
