//! A pending delivery as it was read from `klaxon.outbox`.

use std::time::Duration;

use klaxon_model::event_type::Severity;
use klaxon_model::traceparent::Traceparent;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::clock::DbTime;

/// Shards there are (DESIGN: a shard is a hash of the channel).
pub const SHARDS: u8 = 64;

/// The shard a channel's deliveries are in, as the matcher computes it. The worker goes by this and
/// never by what a row says of itself: a damaged row cannot hide the others of its channel.
pub fn shard_of(channel_id: i64) -> i16 {
    (channel_id & i64::from(SHARDS - 1)) as i16
}

/// Some of the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shards(u64);

impl Shards {
    /// All there are.
    pub fn all() -> Self {
        (0..i16::from(SHARDS)).collect()
    }

    /// Whether `shard` is among them; a number that is no shard never is.
    pub fn contains(self, shard: i16) -> bool {
        (0..i16::from(SHARDS)).contains(&shard) && self.0 & (1 << shard) != 0
    }

    /// Those of either.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = i16> {
        (0..i16::from(SHARDS)).filter(move |shard| self.contains(*shard))
    }
}

impl FromIterator<i16> for Shards {
    fn from_iter<I: IntoIterator<Item = i16>>(shards: I) -> Self {
        let bits = shards.into_iter().filter(|shard| (0..i16::from(SHARDS)).contains(shard));
        Self(bits.fold(0, |bits, shard| bits | 1 << shard))
    }
}

/// A row's place in its channel's queue: `klaxon.outbox` is indexed by channel and this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it is due.
    pub due_at: DbTime,
    /// The delivery, to tell apart what is due at once.
    pub id: Uuid,
}

impl Place {
    /// The first place at `due_at`: no row due then or later comes before it.
    pub fn first_at(due_at: DbTime) -> Self {
        Self { due_at, id: Uuid::nil() }
    }
}

/// What happened, as `klaxon.event` has it, or what a digest says of many events.
#[derive(Clone, Debug)]
pub struct Happening {
    /// The event's payload, byte for byte as Postgres prints it.
    pub payload: Box<RawValue>,
    /// When it occurred.
    pub occurred_at: DbTime,
    /// How bad the worst event of a digest is; `None` for an event, whose type says it.
    pub severity: Option<Severity>,
    /// Where in a trace it was emitted, if it was in one.
    pub traceparent: Option<Traceparent>,
}

/// `last_error` of a row whose attempt was counted before it was made, until that attempt is settled.
pub const INTERRUPTED: &str = "the worker ended during this attempt";

/// A delivery that waits.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The delivery id.
    pub id: Uuid,
    /// The event; `None` for a digest, and for a row somebody damaged.
    pub event_id: Option<Uuid>,
    /// The subscription that matched.
    pub subscription_id: Option<i64>,
    /// Where it goes.
    pub channel_id: i64,
    /// When the next attempt is due.
    pub due_at: DbTime,
    /// When the transaction that wrote it began.
    pub created_at: DbTime,
    /// Attempts made so far.
    pub attempts: i32,
    /// Whether the last of them was counted and never settled: its worker ended.
    pub interrupted: bool,
    /// Whether the one that is about to be made is among them.
    pub counted: bool,
    /// Whether a replay wrote it.
    pub replayed: bool,
    /// The event's type.
    pub event_type: String,
    /// The event's project.
    pub project: Option<String>,
    /// The task whose cooldown is yet to be settled before this is sent, empty for an event without
    /// one; `None` where there is nothing to settle.
    pub cooldown_task: Option<String>,
    /// Events a cooldown held back before it.
    pub held_back: i64,
    /// How long those were collected.
    pub held_for: Option<Duration>,
    /// The event; `None` where there is none of that id, or its payload cannot be read.
    pub event: Option<Happening>,
}

/// Bytes a pending delivery takes beside its payload, roughly.
const OVERHEAD: usize = 384;

impl Pending {
    /// Its place in its channel's queue.
    pub fn place(&self) -> Place {
        Place { due_at: self.due_at, id: self.id }
    }

    /// Bytes of memory it is counted as.
    pub fn size(&self) -> usize {
        OVERHEAD + self.event.as_ref().map_or(0, |event| event.payload.get().len())
    }

    /// The number of the attempt that is about to be made, from 1.
    pub fn attempt(&self) -> i32 {
        self.attempts.saturating_add(i32::from(!self.counted))
    }

    /// What to remember of it while it is on its way.
    pub fn ticket(&self) -> Ticket {
        Ticket { id: self.id, channel_id: self.channel_id, size: self.size() }
    }
}

/// A delivery on its way, for the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The delivery id.
    pub id: Uuid,
    /// Where it goes.
    pub channel_id: i64,
    /// Bytes it is counted as.
    pub size: usize,
}

impl Ticket {
    /// Its channel's shard.
    pub fn shard(&self) -> i16 {
        shard_of(self.channel_id)
    }
}

/// What a read brought: a whole row, or only its place where the read's bound on bytes was used up.
#[derive(Debug)]
pub enum Fetched {
    /// The row.
    Whole(Box<Pending>),
    /// It is there, and is to be read another time.
    Cut {
        /// Its channel.
        channel_id: i64,
        /// Where it stands.
        place: Place,
    },
}

impl Fetched {
    /// Its channel.
    pub fn channel_id(&self) -> i64 {
        match self {
            Self::Whole(row) => row.channel_id,
            Self::Cut { channel_id, .. } => *channel_id,
        }
    }

    /// Its place in its channel's queue.
    pub fn place(&self) -> Place {
        match self {
            Self::Whole(row) => row.place(),
            Self::Cut { place, .. } => *place,
        }
    }
}
