//! What a worker may do next.

use crate::state::{Job, Memory, Process, State};
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
    /// It counts an attempt that it is about to make.
    Counts(usize),
    /// It gives up what ended workers whenever they sent it.
    GivesUp(usize),
    Sends(usize),
    /// What it sends ends it.
    Dies(usize),
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
                Memory::Queued(_) if self.may_send(state, worker, row) => does(Action::Sends(row)),
                Memory::Flying(_) if self.poison && row == 0 => does(Action::Dies(row)),
                Memory::Flying(attempts) => {
                    does(Action::Lands(row, true));
                    if self.retries && attempts == 0 {
                        does(Action::Lands(row, false));
                    }
                }
                Memory::Unknown | Memory::Queued(_) | Memory::Landed { .. } => {}
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
        self.careful_actions(state, worker, does);
        let flying =
            (0..self.rows).any(|row| knows.is_chosen(row) || matches!(knows.memory[row], Memory::Flying(_)));
        if !self.batch(state, worker).is_empty() {
            does(Action::Settles);
        } else if knows.process == Process::Draining && !flying {
            // With outcomes that are not its to settle, if need be: that is when its time is up.
            does(Action::Leaves);
        }
    }
}
