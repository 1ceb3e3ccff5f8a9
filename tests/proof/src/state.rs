//! The state: a database, and workers that know a part of it.

/// Bounds of the arrays; [`crate::Klaxon`] says how much of them is used.
pub const ROWS: usize = 3;
pub const SHARDS: usize = 2;
pub const WORKERS: usize = 3;
pub const SESSIONS: usize = 6;

/// Some of the rows, shards or workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Set(u8);

impl Set {
    pub fn below(bound: usize) -> Self {
        Self((1 << bound) - 1)
    }

    pub fn contains(self, item: usize) -> bool {
        self.0 & (1 << item) != 0
    }

    pub fn insert(&mut self, item: usize) {
        self.0 |= 1 << item;
    }

    pub fn remove(&mut self, item: usize) {
        self.0 &= !(1 << item);
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..8).filter(move |item| self.contains(*item))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transaction {
    #[default]
    NotBegun,
    Running,
    Committed,
    Aborted,
}

/// An outbox row, as a snapshot taken now would show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Row {
    #[default]
    Absent,
    Pending {
        attempts: u8,
    },
    Settled,
    /// Given up.
    Dead,
}

/// `pg_current_snapshot()`; a transaction's id is its index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Snapshot {
    pub xmax: usize,
    pub in_progress: Set,
}

impl Snapshot {
    /// Whether a row is new since: the condition of `discover.sql`.
    pub fn is_new(self, xid: usize) -> bool {
        xid >= self.xmax || self.in_progress.contains(xid)
    }
}

/// A session, as the server sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Session {
    pub alive: bool,
    /// It was told to end, or its client has closed: it ends some time.
    pub ending: bool,
    pub listening: bool,
    /// A notification is on its way to the client.
    pub hint: bool,
}

/// A row of `klaxon.worker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Registered {
    pub session: usize,
    /// Its last sign of life is too old.
    pub silent: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Process {
    #[default]
    NotStarted,
    Up,
    Stopped,
    Draining,
    Gone,
}

/// What a worker knows of a row; the number is of attempts, as it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Memory {
    #[default]
    Unknown,
    Queued(u8),
    Flying(u8),
    Landed {
        attempts: u8,
        sent: bool,
    },
}

impl Memory {
    /// On its way, or to be settled.
    pub fn is_outstanding(self) -> bool {
        matches!(self, Self::Flying(_) | Self::Landed { .. })
    }
}

/// What a worker has asked of its session in more than one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Job {
    #[default]
    None,
    /// Reading will begin at this snapshot; locks come next.
    Starting(Snapshot),
    /// These were locked, and are to be scanned.
    Scanning { start: Option<Snapshot>, got: Set, careful: Set },
    /// These were committed, and this is what the answer will say of them.
    Settling { batch: Set, settled: Set },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    pub process: Process,
    pub session: Option<usize>,
    pub wanted: Set,
    pub locked: Set,
    /// Those of `locked` whose rows are taken in.
    pub owned: Set,
    pub snapshot: Option<Snapshot>,
    /// Shards to be read from a mark on.
    pub marked: Set,
    /// Whether there may be something new to read.
    pub news: bool,
    pub memory: [Memory; ROWS],
    /// Shards that are worked with care.
    pub careful: Set,
    /// Rows that were read as counted and never settled.
    pub interrupted: Set,
    /// Rows whose attempt was counted before it is made.
    pub counted: Set,
    /// Rows that are given up.
    pub dead: Set,
    pub job: Job,
}

impl Worker {
    /// Takes in no more rows of these shards, and drops those that wait.
    pub fn disown(&mut self, shards: Set, shard_of: impl Fn(usize) -> usize) {
        self.owned = self.owned.without(shards);
        self.marked = self.marked.without(shards);
        for (row, memory) in self.memory.iter_mut().enumerate() {
            let waits = matches!(memory, Memory::Queued(_)) && !self.counted.contains(row);
            if shards.contains(shard_of(row)) && waits {
                *memory = Memory::Unknown;
            }
        }
    }

    /// What belonged to the session goes with it; what is on its way, and what came of it, stays.
    pub fn lose_session(&mut self) {
        let Self { mut memory, mut counted, dead, .. } = *self;
        for (row, memory) in memory.iter_mut().enumerate() {
            if matches!(memory, Memory::Queued(_)) {
                *memory = Memory::Unknown;
                counted.remove(row);
            }
        }
        // A worker that was draining has nothing to come back for.
        *self = match self.process {
            Process::Draining => Self { process: Process::Gone, ..Self::default() },
            process => Self { process, memory, counted, dead, ..Self::default() },
        };
    }
}

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// A row was sent whose transaction has not committed.
    SentUncommitted,
    /// A row was sent again, and nothing had happened to who sent it before.
    SentAgainForNothing,
    /// A worker that was told to stop sent something more.
    SentWhileDraining,
    /// A session wrote an outcome of a shard that is not its own.
    SettledByStranger,
    /// An attempt was logged that the log already has.
    LoggedTwice,
    /// Where an owner had ended, an attempt was made that was not counted.
    SentUncounted,
    /// What had not been tried with care was given up, and no fault was to blame.
    GivenUpUntried,
    /// What ends nobody was given up, and no fault was to blame.
    GivenUpInnocent,
    /// An owner was taken for dead who had given its shards up.
    DeathOfTheLiving,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub transactions: [Transaction; ROWS],
    pub rows: [Row; ROWS],
    pub locks: [Option<usize>; SHARDS],
    pub sessions: [Session; SESSIONS],
    pub registered: [Option<Registered>; WORKERS],
    pub workers: [Worker; WORKERS],
    /// Faults that may still happen.
    pub faults: u8,
    /// Who has sent an attempt that is not settled, with a session that lasts: history, to judge by.
    pub sender: [Option<usize>; ROWS],
    /// Of `klaxon.shard`: who took it last, and deaths. Kept only where there is poison.
    pub owners: [Option<usize>; SHARDS],
    pub deaths: [u8; SHARDS],
    /// Rows that say that their worker ended.
    pub interrupted: Set,
    /// Rows that were sent with care: history, to judge by.
    pub tried: Set,
    pub wrong: Option<Wrong>,
}

impl State {
    pub fn snapshot(&self) -> Snapshot {
        let ended =
            |xid: &usize| matches!(self.transactions[*xid], Transaction::Committed | Transaction::Aborted);
        let xmax = (0..ROWS).rfind(ended).map_or(0, |newest| newest + 1);
        let mut in_progress = Set::default();
        (0..xmax).filter(|xid| !ended(xid)).for_each(|xid| in_progress.insert(xid));
        Snapshot { xmax, in_progress }
    }

    /// The worker's session, if it has one that lasts and nothing else is being asked of it.
    pub fn idle_session(&self, worker: usize) -> Option<usize> {
        let Worker { session, job, .. } = self.workers[worker];
        session.filter(|session| self.sessions[*session].alive && job == Job::None)
    }

    /// A session ends, and its locks with it. Whatever its worker has sent may come again.
    pub fn end_session(&mut self, session: usize) {
        self.sessions[session] = Session::default();
        self.unlock(session, Set::below(SHARDS));
        for worker in 0..WORKERS {
            if self.workers[worker].session == Some(session) {
                self.forgive(worker);
            }
        }
    }

    pub fn unlock(&mut self, session: usize, shards: Set) {
        for shard in shards.iter().take_while(|shard| *shard < SHARDS) {
            if self.locks[shard] == Some(session) {
                self.locks[shard] = None;
            }
        }
    }

    /// The process ends, and its session some time after.
    pub fn kill(&mut self, worker: usize) {
        self.forgive(worker);
        if let Some(session) = self.workers[worker].session {
            self.sessions[session].ending = true;
        }
        self.workers[worker] = Worker { process: Process::Gone, ..Worker::default() };
    }

    /// Something has happened to this worker: others may send again what it has sent.
    pub fn forgive(&mut self, worker: usize) {
        for sender in &mut self.sender {
            if *sender == Some(worker) {
                *sender = None;
            }
        }
    }
}
