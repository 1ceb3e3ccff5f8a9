//! What a worker does, a step at a time.

use crate::state::{Job, Memory, Process, Registered, Row, Set, Snapshot, State, Transaction, Wrong};
use crate::{Bug, Klaxon, Wakeup};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It sees that its session has ended.
    Notices,
    /// It connects, registers and listens.
    Connects,
    /// The step of the seeded [`Bug::ListensLate`].
    Listens,
    /// It takes in a notification.
    Hears,
    /// It shows a sign of life and calls the roll.
    Beats,
    /// It ends the session of a worker that is silent.
    Fences(usize),
    /// Before its first locks: where reading begins.
    TakesSnapshot,
    Locks,
    Scans,
    Unlocks,
    /// It reads what is new.
    Reads,
    /// It reads what is new, finds too much, and only marks where that begins.
    Overflows,
    /// It reads a shard from its mark on.
    Refills(usize),
    Sends(usize),
    /// An attempt ends; whether well.
    Lands(usize, bool),
    /// It commits a batch.
    Settles,
    /// It gets the answer to that.
    IsAnswered,
    /// Drained, it takes its leave.
    Leaves,
}

impl Klaxon {
    /// Everything that a worker may do next, in the order in which a turn of its loop would.
    pub fn worker_actions(&self, state: &State, worker: usize, mut does: impl FnMut(Action)) {
        let knows = &state.workers[worker];
        if !matches!(knows.process, Process::Up | Process::Draining) {
            return;
        }
        let up = knows.process == Process::Up;
        if let Job::Settling { .. } = knows.job {
            // An answer that had come before the connection broke.
            does(Action::IsAnswered);
        }
        match knows.session {
            None if up => does(Action::Connects),
            Some(session) if !state.sessions[session].alive => does(Action::Notices),
            _ => {}
        }
        if let Some(session) = knows.session.filter(|session| state.sessions[*session].alive) {
            if state.sessions[session].hint {
                does(Action::Hears);
            }
            let late = self.has(Bug::ListensLate) && knows.snapshot.is_some() && !knows.news;
            if late && !state.sessions[session].listening {
                does(Action::Listens);
            }
            match knows.job {
                Job::None => self.idle_actions(state, worker, &mut does),
                Job::Starting(_) => does(Action::Locks),
                Job::Scanning { .. } => does(Action::Scans),
                Job::Settling { .. } => {}
            }
        }
        for row in 0..self.rows {
            match knows.memory[row] {
                Memory::Queued(_) => does(Action::Sends(row)),
                Memory::Flying(attempts) => {
                    does(Action::Lands(row, true));
                    if self.retries && attempts == 0 {
                        does(Action::Lands(row, false));
                    }
                }
                Memory::Unknown | Memory::Landed { .. } => {}
            }
        }
    }

    /// What it may ask of a session of which nothing is being asked.
    fn idle_actions(&self, state: &State, worker: usize, does: &mut impl FnMut(Action)) {
        let knows = &state.workers[worker];
        let up = knows.process == Process::Up;
        does(Action::Beats);
        for other in (0..self.workers).filter(|other| *other != worker) {
            if state.registered[other].is_some_and(|registered| registered.silent) {
                does(Action::Fences(other));
            }
        }
        if !self.drained(state, worker).is_empty() {
            does(Action::Unlocks);
        }
        let late = self.has(Bug::SnapshotAfterScan);
        if up && !knows.wanted.without(knows.locked).is_empty() {
            does(if knows.locked.is_empty() && !late { Action::TakesSnapshot } else { Action::Locks });
        }
        if late && knows.snapshot.is_none() && !knows.owned.is_empty() {
            does(Action::TakesSnapshot);
        }
        if up && !knows.owned.is_empty() && (self.wakeup == Wakeup::Poll || knows.news) {
            does(Action::Reads);
            if self.overflows && !self.news_of(state, worker).is_empty() {
                does(Action::Overflows);
            }
        }
        knows.marked.iter().for_each(|shard| does(Action::Refills(shard)));
        let flying = knows.memory.iter().any(|memory| matches!(memory, Memory::Flying(_)));
        if !self.batch(state, worker).is_empty() {
            does(Action::Settles);
        } else if knows.process == Process::Draining && !flying {
            // With outcomes that are not its to settle, if need be: that is when its time is up.
            does(Action::Leaves);
        }
    }

    /// One step.
    pub fn work(&self, state: &mut State, worker: usize, action: Action) {
        let now = state.snapshot();
        match action {
            Action::Notices => state.workers[worker].lose_session(),
            Action::Connects => self.connect(state, worker),
            Action::Listens => {
                if let Some(session) = state.workers[worker].session {
                    state.sessions[session].listening = true;
                }
            }
            Action::Hears => {
                state.workers[worker].news = true;
                if let Some(session) = state.workers[worker].session {
                    state.sessions[session].hint = false;
                }
            }
            Action::Beats => self.beat(state, worker),
            Action::Fences(other) => {
                if let Some(registered) = state.registered[other].take() {
                    let session = &mut state.sessions[registered.session];
                    session.ending = session.alive;
                }
            }
            Action::TakesSnapshot if self.has(Bug::SnapshotAfterScan) => self.read_up_to(state, worker, now),
            Action::TakesSnapshot => state.workers[worker].job = Job::Starting(now),
            Action::Locks => self.lock(state, worker),
            Action::Scans => self.scan(state, worker),
            Action::Unlocks => {
                let drained = self.drained(state, worker);
                let knows = &mut state.workers[worker];
                knows.locked = knows.locked.without(drained);
                let session = knows.session;
                session.into_iter().for_each(|session| state.unlock(session, drained));
            }
            Action::Reads => {
                for row in self.news_of(state, worker).iter() {
                    // What will be read from the mark on need not be taken in twice.
                    if !state.workers[worker].marked.contains(self.shard(row)) {
                        self.take_in(state, worker, row);
                    }
                }
                self.read_up_to(state, worker, now);
            }
            Action::Overflows => {
                for row in self.news_of(state, worker).iter() {
                    state.workers[worker].marked.insert(self.shard(row));
                }
                self.read_up_to(state, worker, now);
            }
            Action::Refills(shard) => {
                state.workers[worker].marked.remove(shard);
                let rows = (0..self.rows).filter(|row| self.shard(*row) == shard && state.is_visible(*row));
                for row in rows.collect::<Vec<_>>() {
                    self.take_in(state, worker, row);
                }
            }
            Action::Sends(row) => self.send(state, worker, row),
            Action::Lands(row, sent) => {
                if let Memory::Flying(attempts) = state.workers[worker].memory[row] {
                    state.workers[worker].memory[row] = Memory::Landed { attempts, sent };
                }
            }
            Action::Settles => self.settle(state, worker),
            Action::IsAnswered => self.be_answered(state, worker),
            Action::Leaves => {
                state.registered[worker] = None;
                let session = state.workers[worker].session;
                state.workers[worker] = crate::state::Worker { process: Process::Gone, ..Default::default() };
                if let Some(session) = session {
                    state.unlock(session, Set::below(self.shards));
                    state.sessions[session].ending = true;
                }
            }
        }
    }

    /// `register.sql` and LISTEN. A former session of this worker's, which the server may not have
    /// noticed is forsaken, would keep its locks.
    fn connect(&self, state: &mut State, worker: usize) {
        let session = state.new_session(self.wakeup == Wakeup::Hints && !self.has(Bug::ListensLate));
        let former = state.registered[worker].replace(Registered { session, silent: false });
        if let Some(former) = former.filter(|_| !self.has(Bug::LeavesFormerSession)) {
            let former = &mut state.sessions[former.session];
            former.ending = former.alive;
        }
        let knows = &mut state.workers[worker];
        (knows.session, knows.news) = (Some(session), self.wakeup == Wakeup::Hints);
    }

    /// `heartbeat.sql`, and what follows from the roll.
    fn beat(&self, state: &mut State, worker: usize) {
        let Some(registered) = &mut state.registered[worker] else {
            // Declared dead: it drops the session.
            if let Some(session) = state.workers[worker].session {
                state.sessions[session].ending = true;
            }
            state.forgive(worker);
            return state.workers[worker].lose_session();
        };
        registered.silent = false;
        if state.workers[worker].process == Process::Draining {
            return;
        }
        let living: Vec<usize> = (0..self.workers)
            .filter(|other| state.registered[*other].is_some_and(|registered| !registered.silent))
            .collect();
        let rank = living.iter().position(|other| *other == worker).unwrap_or_default();
        let mut wanted = Set::default();
        (0..self.shards).filter(|shard| shard % living.len() == rank).for_each(|shard| wanted.insert(shard));
        let knows = &mut state.workers[worker];
        knows.wanted = wanted;
        knows.disown(knows.owned.without(wanted), |row| self.shard(row));
        // Outcomes that went to another worker are given up.
        let ours = wanted.union(knows.locked);
        for (row, memory) in knows.memory.iter_mut().enumerate() {
            if matches!(memory, Memory::Landed { .. }) && !ours.contains(self.shard(row)) {
                *memory = Memory::Unknown;
            }
        }
    }

    /// `lock.sql`.
    fn lock(&self, state: &mut State, worker: usize) {
        let knows = &state.workers[worker];
        let start = if let Job::Starting(snapshot) = knows.job { Some(snapshot) } else { None };
        let mut got = Set::default();
        for shard in knows.wanted.without(knows.locked).iter() {
            if state.locks[shard].is_none() {
                state.locks[shard] = knows.session;
                got.insert(shard);
            }
        }
        state.workers[worker].job = if got.is_empty() { Job::None } else { Job::Scanning { start, got } };
    }

    /// `first_due.sql`, and what the answer to all three statements changes.
    fn scan(&self, state: &mut State, worker: usize) {
        let Job::Scanning { start, got } = state.workers[worker].job else { return };
        let waits =
            |shard: &usize| (0..self.rows).any(|row| self.shard(row) == *shard && state.is_visible(row));
        let mut marked = Set::default();
        got.iter().filter(waits).for_each(|shard| marked.insert(shard));
        let start = start.map(|start| self.cursor(state, start));
        let knows = &mut state.workers[worker];
        knows.snapshot = start.or(knows.snapshot);
        knows.locked = knows.locked.union(got);
        knows.job = Job::None;
        if knows.process == Process::Draining && !self.has(Bug::TakesInWhileDraining) {
            return;
        }
        knows.owned = knows.owned.union(got);
        if !self.has(Bug::NoScan) {
            knows.marked = knows.marked.union(marked);
        }
        knows.news |= self.wakeup == Wakeup::Hints;
    }

    /// Shards that are locked, no more owned, and of which nothing is on its way.
    fn drained(&self, state: &State, worker: usize) -> Set {
        let knows = &state.workers[worker];
        let mut drained = Set::default();
        for shard in knows.locked.without(knows.owned).iter() {
            let busy =
                (0..self.rows).any(|row| self.shard(row) == shard && knows.memory[row].is_outstanding());
            if !busy || self.has(Bug::HandsOverUndrained) {
                drained.insert(shard);
            }
        }
        drained
    }

    /// What `discover.sql` finds.
    fn news_of(&self, state: &State, worker: usize) -> Set {
        let knows = &state.workers[worker];
        let mut news = Set::default();
        let Some(last) = knows.snapshot else { return news };
        for row in 0..self.rows {
            let visible = state.is_visible(row)
                || (self.has(Bug::ReadsUncommitted) && state.transactions[row] == Transaction::Running);
            if visible && knows.owned.contains(self.shard(row)) && last.is_new(row) {
                news.insert(row);
            }
        }
        news
    }

    fn read_up_to(&self, state: &mut State, worker: usize, now: Snapshot) {
        let snapshot = self.cursor(state, now);
        let knows = &mut state.workers[worker];
        (knows.snapshot, knows.news) = (Some(snapshot), false);
    }

    /// Where the next read begins.
    fn cursor(&self, state: &State, now: Snapshot) -> Snapshot {
        match self.bug {
            Some(Bug::CursorById) => {
                let seen = |row: &usize| state.rows[*row] != Row::Absent;
                let xmax = (0..self.rows).rfind(seen).map_or(0, |greatest| greatest + 1);
                Snapshot { xmax, in_progress: Set::default() }
            }
            Some(Bug::ForgetsInProgress) => Snapshot { in_progress: Set::default(), ..now },
            _ => now,
        }
    }

    fn take_in(&self, state: &mut State, worker: usize, row: usize) {
        let attempts = if let Row::Pending { attempts } = state.rows[row] { attempts } else { 0 };
        let memory = &mut state.workers[worker].memory[row];
        if *memory == Memory::Unknown || self.has(Bug::ForgetsFlights) {
            *memory = Memory::Queued(attempts);
        }
    }

    fn send(&self, state: &mut State, worker: usize, row: usize) {
        let Memory::Queued(attempts) = state.workers[worker].memory[row] else { return };
        state.workers[worker].memory[row] = Memory::Flying(attempts);
        if state.workers[worker].process == Process::Draining {
            state.wrong = Some(Wrong::SentWhileDraining);
        }
        if state.transactions[row] != Transaction::Committed {
            state.wrong = Some(Wrong::SentUncommitted);
        }
        // What is sent after the session has ended, and before that is noticed, may be sent twice.
        if state.workers[worker].session.is_some_and(|session| state.sessions[session].alive) {
            if state.sender[row].is_some() {
                state.wrong = Some(Wrong::SentAgainForNothing);
            }
            state.sender[row] = Some(worker);
        }
    }

    /// What a transaction would take: outcomes of shards whose locks the session has.
    fn batch(&self, state: &State, worker: usize) -> Set {
        let knows = &state.workers[worker];
        let mut batch = Set::default();
        for row in 0..self.rows {
            let ours = knows.locked.contains(self.shard(row)) || self.has(Bug::SettlesUnowned);
            if ours && matches!(knows.memory[row], Memory::Landed { .. }) {
                batch.insert(row);
            }
        }
        batch
    }

    /// `sent.sql` and `unsent.sql`, up to and with the COMMIT.
    fn settle(&self, state: &mut State, worker: usize) {
        let batch = self.batch(state, worker);
        let mut settled = Set::default();
        for row in batch.iter() {
            let Memory::Landed { attempts, sent } = state.workers[worker].memory[row] else { continue };
            if state.rows[row] != (Row::Pending { attempts }) {
                if self.has(Bug::SettlesUnguarded) {
                    state.wrong = Some(Wrong::LoggedTwice);
                }
                continue;
            }
            if state.locks[self.shard(row)] != state.workers[worker].session {
                state.wrong = Some(Wrong::SettledByStranger);
            }
            state.rows[row] = if sent { Row::Settled } else { Row::Pending { attempts: attempts + 1 } };
            state.sender[row] = None;
            settled.insert(row);
        }
        state.workers[worker].job = Job::Settling { batch, settled };
    }

    fn be_answered(&self, state: &mut State, worker: usize) {
        let knows = &mut state.workers[worker];
        let Job::Settling { batch, settled } = knows.job else { return };
        knows.job = Job::None;
        for row in batch.iter() {
            let done =
                settled.contains(row) && matches!(knows.memory[row], Memory::Landed { sent: true, .. });
            knows.memory[row] = Memory::Unknown;
            // It failed, or it is not as it was sent, which is somebody else's doing: it is looked at again.
            if !done && knows.owned.contains(self.shard(row)) {
                knows.marked.insert(self.shard(row));
            }
        }
    }
}
