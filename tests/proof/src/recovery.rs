//! From any state, without more faults: does everything get delivered?

use stateright::Model as _;

use crate::Klaxon;
use crate::state::{Process, SESSIONS, State, Transaction, WORKERS};
use crate::step::Action;
use crate::worker;

/// Turns after which nothing more is to be expected: fencing, locking, reading, sending and settling
/// twice over take half as many.
const TURNS: usize = 12;

impl Klaxon {
    /// Whether workers that each do in turn what they can deliver everything: transactions that run
    /// commit, sessions that are to end do, the silent are taken for silent. What is stopped stays so,
    /// unless nobody else is there. Where faults have left nobody and nobody may start, there is nothing to say.
    pub fn recovers(&self, state: &State) -> bool {
        if state.wrong.is_some() {
            return true;
        }
        let mut state = *state;
        for xid in 0..self.rows {
            if state.transactions[xid] == Transaction::Running {
                self.take(&mut state, Action::Commit(xid));
            }
        }
        for _ in 0..TURNS {
            if !(0..self.rows).any(|row| state.is_visible(row)) {
                return true;
            }
            if !self.staff(&mut state) {
                // Poison ends so many and no more; that nobody is left must have another reason.
                return !self.poison || state.faults < self.faults;
            }
            for session in 0..SESSIONS {
                if state.sessions[session].ending {
                    self.take(&mut state, Action::Ends(session));
                }
            }
            let mut actions = Vec::new();
            self.actions(&state, &mut actions);
            let silences = |action: &Action| matches!(action, Action::FallsSilent(_));
            actions.into_iter().filter(silences).for_each(|action| self.take(&mut state, action));
            (0..WORKERS).for_each(|worker| self.turn(&mut state, worker));
        }
        false
    }

    /// Sees to it that somebody works, if anybody can.
    fn staff(&self, state: &mut State) -> bool {
        let find = |process| (0..self.workers).find(|worker| state.workers[*worker].process == process);
        if find(Process::Up).is_some() || find(Process::Draining).is_some() {
            return true;
        }
        let next = find(Process::Stopped).map(Action::Continue);
        let Some(action) = next.or_else(|| find(Process::NotStarted).map(Action::Start)) else {
            return false;
        };
        self.take(state, action);
        true
    }

    /// One turn: everything that there is to do, once each; what comes of it, too.
    fn turn(&self, state: &mut State, worker: usize) {
        let mut done = Vec::new();
        loop {
            let mut next = None;
            self.worker_actions(state, worker, |action| {
                let last = matches!(action, worker::Action::Lands(_, false) | worker::Action::Overflows);
                if next.is_none() && !last && !done.contains(&action) {
                    next = Some(action);
                }
            });
            let Some(action) = next else { return };
            done.push(action);
            self.take(state, Action::Does(worker, action));
        }
    }

    fn take(&self, state: &mut State, action: Action) {
        if let Some(next) = self.next_state(state, action) {
            *state = next;
        }
    }
}
