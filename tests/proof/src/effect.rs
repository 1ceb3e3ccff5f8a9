//! What a worker's step changes.

use crate::state::{Job, Memory, Process, Registered, Row, Set, Snapshot, State, Transaction, Wrong};
use crate::worker::Action;
use crate::{Bug, Klaxon, Wakeup};

impl Klaxon {
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
                self.give_up_shards(state, worker, drained);
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
            Action::Counts(row) => self.count(state, worker, row),
            Action::GivesUp(row) => {
                if let Memory::Queued(attempts) = state.workers[worker].memory[row] {
                    state.workers[worker].memory[row] = Memory::Landed { attempts, sent: false };
                    state.workers[worker].dead.insert(row);
                }
            }
            Action::Sends(row) => self.send(state, worker, row),
            Action::Dies(_) => state.kill(worker),
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
                self.give_up_shards(state, worker, state.workers[worker].locked);
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
        let careful = self.note(state, worker, got);
        state.workers[worker].job =
            if got.is_empty() { Job::None } else { Job::Scanning { start, got, careful } };
    }

    /// `first_due.sql`, and what the answer to all three statements changes.
    fn scan(&self, state: &mut State, worker: usize) {
        let Job::Scanning { start, got, careful } = state.workers[worker].job else { return };
        let waits =
            |shard: &usize| (0..self.rows).any(|row| self.shard(row) == *shard && state.is_visible(row));
        let mut marked = Set::default();
        got.iter().filter(waits).for_each(|shard| marked.insert(shard));
        let start = start.map(|start| self.cursor(state, start));
        let knows = &mut state.workers[worker];
        knows.snapshot = start.or(knows.snapshot);
        knows.locked = knows.locked.union(got);
        knows.careful = knows.careful.without(got).union(careful);
        knows.job = Job::None;
        if knows.process == Process::Draining && !self.has(Bug::TakesInWhileDraining) {
            return;
        }
        knows.owned = knows.owned.union(got);
        if !self.has(Bug::NoScan) {
            knows.marked = knows.marked.union(marked);
        }
        knows.news |= self.wakeup == Wakeup::Hints;
        self.look_around(state, worker);
    }

    /// Shards that are locked, no more owned, and of which nothing is on its way.
    pub fn drained(&self, state: &State, worker: usize) -> Set {
        let knows = &state.workers[worker];
        let mut drained = Set::default();
        for shard in knows.locked.without(knows.owned).iter() {
            let busy = (0..self.rows).any(|row| self.shard(row) == shard && knows.is_outstanding(row));
            if !busy || self.has(Bug::HandsOverUndrained) {
                drained.insert(shard);
            }
        }
        drained
    }

    /// What `discover.sql` finds.
    pub fn news_of(&self, state: &State, worker: usize) -> Set {
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
        let interrupted = state.interrupted.contains(row);
        let knows = &mut state.workers[worker];
        if knows.memory[row] == Memory::Unknown || self.has(Bug::ForgetsFlights) {
            knows.memory[row] = Memory::Queued(attempts);
            knows.interrupted.remove(row);
            if interrupted {
                knows.interrupted.insert(row);
            }
        }
    }

    fn send(&self, state: &mut State, worker: usize, row: usize) {
        let Memory::Queued(attempts) = state.workers[worker].memory[row] else { return };
        state.workers[worker].memory[row] = Memory::Flying(attempts);
        self.judge_sending(state, worker, row);
        if state.workers[worker].process == Process::Draining && !state.workers[worker].counted.contains(row)
        {
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
    pub fn batch(&self, state: &State, worker: usize) -> Set {
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
            let (counted, dead) = (state.workers[worker].counted, state.workers[worker].dead);
            state.rows[row] = match sent {
                true => Row::Settled,
                false if dead.contains(row) => self.bury(state, row),
                false => Row::Pending { attempts: attempts + u8::from(!counted.contains(row)) },
            };
            state.interrupted.remove(row);
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
            let done = done || (settled.contains(row) && knows.dead.contains(row));
            knows.memory[row] = Memory::Unknown;
            for rows in [&mut knows.counted, &mut knows.dead, &mut knows.interrupted] {
                rows.remove(row);
            }
            // It failed, or it is not as it was sent, which is somebody else's doing: it is looked at again.
            if !done && knows.owned.contains(self.shard(row)) {
                knows.marked.insert(self.shard(row));
            }
        }
        self.look_around(state, worker);
    }
}
