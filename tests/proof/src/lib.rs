//! Discovery, ownership and settling, model-checked: every interleaving of a few transactions, workers
//! and faults, by `stateright`.
//!
//! # What is modelled
//!
//! The algorithm as `worker/src/{discover,ownership,settle,schedule,run}` and `worker/src/sql` have it:
//!
//! - **Transactions** get their id in the order in which they first write, write one outbox row, and
//!   commit in any order or abort. [`state::Snapshot`] is `pg_current_snapshot()`: one past the newest
//!   transaction that has ended, and which were then in progress.
//! - **Sessions** hold the advisory locks of shards. One ends when it is terminated, or some time after its
//!   client closed it or a fence asked for it, and its locks with it. Its client notices later, and until
//!   then goes on sending. A *black hole* is a connection that the client has given up and the server
//!   has not heard of: that session lasts, with its locks, until somebody ends it.
//! - **Workers** are processes: one that is killed does not come back, its successor is another worker.
//!   They register, show signs of life, want their part of the shards by the roll, lock (snapshot, locks and
//!   scan are three statements), read by snapshot, read again what they had no room for, send, settle
//!   on the owning session, hand over by draining, and end the sessions of those that are silent.
//!   They are killed, stopped and let go on, drained, and lose their connection at any moment, a
//!   COMMIT's answer included.
//! - **Poison**, where a model has it: the first row ends every worker that sends it. Where an owner has ended
//!   without giving its shards up, the next works them with care, from the first death on ([`care::DEATHS`]) and
//!   with one counted attempt ([`care::ATTEMPTS`]); a shard of which nothing is left is trusted again.
//! - **Notifications** reach the sessions that listen when a transaction commits. In [`Wakeup::Poll`] a
//!   worker may read at any time, which is whatever notifications come or are lost; in [`Wakeup::Hints`] it
//!   reads after a notification only, and none is lost: what is proved there is that the hints are
//!   complete.
//!
//! Left out, being about when and not about what: due times and their order within a channel, retry
//! schedules, breakers, bounds (a read that overflows is here, at any moment), the audit chain's hashes,
//! the cooldown's own transaction, and that care ends with time or with what was survived. Ten seconds of silence
//! after which a worker is taken for dead, and two without a session, are both some time. A channel is a shard.
//! What a session is asked and what it answers is one step wherever nothing can come between that is not the
//! same before or after it: reads, signs of life, unlocking.
//!
//! # What is proved, for all states within the bounds of each test
//!
//! See [`property`]. "Nothing is lost" is two statements: what is pending and visible is always known
//! to its owner, marked to be read, or new to the owner's snapshot; and from *every* reachable state, if
//! there are no more faults, workers that each do what they can in turn deliver everything. So delivery
//! stays within reach whatever has happened; the states being finitely many, a run with an end of its faults,
//! in which what is possible again and again is done some time, delivers everything.
//!
//! # Bounds, states, time
//!
//! Exhausted in `tests/exhausted.rs`, which prints what it visits; the last two by `make proof` only.
//!
//! | | transactions | shards | workers | faults | reads | attempts fail | states |
//! |---|---|---|---|---|---|---|---|
//! | discovery by polling | 3 | 1 | 1 | 2 | any time | | 265,290 |
//! | discovery by hints | 3 | 1 | 1 | 1 | notified; overflow | | 137,319 |
//! | retries | 2 | 1 | 1 | 3 | any time | once | 316,224 |
//! | ownership | 2 | 2 | 2 | 1 | any time | | 1,239,484 |
//! | settling | 1 | 1 | 2 | 2 | any time | once | 867,102 |
//! | succession | 1 | 1 | 3 | 1 | any time | | 538,743 |
//! | poison | 2 | 1 | 3 | 0 | any time | | 180,045 |
//! | poison and a fault | 1 | 1 | 3 | 1 | any time | | 1,097,590 |
//! | settling, three faults | 1 | 1 | 2 | 3 | any time | once | 7,939,351 |
//! | two deliveries, two faults | 2 | 1 | 2 | 2 | any time | | 9,283,167 |
//!
//! `tests/seeded.rs` seeds each [`Bug`] and demands the counterexample. Two of them were not invented: the
//! model found them in the worker ([`Bug::LeavesFormerSession`], [`Bug::TakesInWhileDraining`]).

pub mod care;
mod effect;
pub mod property;
mod recovery;
pub mod state;
pub mod step;
pub mod worker;

/// How a worker hears of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// It reads whenever it likes.
    Poll,
    /// It reads when it was notified, and only then.
    Hints,
}

/// A mistake, seeded to see that the checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The next read begins after the greatest row that was seen.
    CursorById,
    /// The next read begins at the snapshot's xmax, whatever was in progress.
    ForgetsInProgress,
    /// The first snapshot is taken after the shards were scanned.
    SnapshotAfterScan,
    /// Shards are locked, and what already waits in them is not looked for.
    NoScan,
    /// It listens once it has read for the first time.
    ListensLate,
    /// What comes back is settled on whatever session there is.
    SettlesUnowned,
    /// What comes back is settled whatever the row says by now.
    SettlesUnguarded,
    /// A shard is handed over while something of it is on its way.
    HandsOverUndrained,
    /// Rows are read without asking whether they are known.
    ForgetsFlights,
    /// A worker that comes back leaves its former session alone.
    LeavesFormerSession,
    /// Shards whose locks come after the worker was told to stop are taken in.
    TakesInWhileDraining,
    /// Rows are read as they are written.
    ReadsUncommitted,
    /// With care, too, an attempt is made before it is counted.
    CountsLate,
    /// With care, too, many are on their way at once.
    CareAllAtOnce,
    /// What waits in a shard where an owner has ended is given up, whether or not it was tried with care.
    GivesUpUntried,
    /// A shard that is given up is not said to be: who has it next takes the former owner for dead.
    GivesUpInSilence,
}

/// The algorithm and the bounds within which it is checked.
#[derive(Clone, Debug)]
pub struct Klaxon {
    /// Transactions, a row each.
    pub rows: usize,
    /// The shards; row `r` is of shard `r % shards`.
    pub shards: usize,
    /// Workers that may ever start, one after another or side by side.
    pub workers: usize,
    /// Faults that may happen.
    pub faults: u8,
    /// How workers hear of work.
    pub wakeup: Wakeup,
    /// Whether a first attempt may fail.
    pub retries: bool,
    /// Whether a read may bring more than there is room for.
    pub overflows: bool,
    /// Whether the first row ends every worker that sends it.
    pub poison: bool,
    /// The mistake, if any.
    pub bug: Option<Bug>,
}

impl Klaxon {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn shard(&self, row: usize) -> usize {
        row % self.shards
    }
}
