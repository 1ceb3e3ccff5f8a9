//! Finding what ends workers: `worker/src/caution.rs` and `worker/src/run/careful.rs`, and the parts of the
//! statements that concern it.

use crate::state::{Memory, Row, Set, State, Worker, Wrong};
use crate::worker::Action;
use crate::{Bug, Klaxon};

/// Deaths after which a shard is worked with care. Three in earnest: more of the same.
pub const DEATHS: u8 = 1;
/// Attempts that a row may have: `retry_schedule` is `[]`.
pub const ATTEMPTS: u8 = 1;

impl Worker {
    /// Whether the row is sent next, its attempt being counted.
    pub fn is_chosen(&self, row: usize) -> bool {
        matches!(self.memory[row], Memory::Queued(_)) && self.counted.contains(row)
    }

    /// Whether it is chosen, on its way, or to be settled.
    pub fn is_outstanding(&self, row: usize) -> bool {
        self.is_chosen(row) || self.memory[row].is_outstanding()
    }
}

impl Klaxon {
    /// Whether an attempt at the row may be what ends workers.
    fn is_suspect(&self, knows: &Worker, row: usize) -> bool {
        knows.careful.contains(self.shard(row)) || knows.interrupted.contains(row)
    }

    /// Whether it is the row's turn: with care, one at a time.
    fn is_next(&self, knows: &Worker, row: usize) -> bool {
        let shard = self.shard(row);
        let beside = (0..self.rows).any(|other| self.shard(other) == shard && knows.is_outstanding(other));
        !beside || !knows.careful.contains(shard) || self.has(Bug::CareAllAtOnce)
    }

    pub fn may_send(&self, state: &State, worker: usize, row: usize) -> bool {
        let knows = &state.workers[worker];
        let unsuspected = !self.is_suspect(knows, row) || self.has(Bug::CountsLate);
        knows.counted.contains(row) || (unsuspected && self.is_next(knows, row))
    }

    /// What it asks of an idle session on account of what it suspects.
    pub fn careful_actions(&self, state: &State, worker: usize, does: &mut impl FnMut(Action)) {
        let knows = &state.workers[worker];
        for row in 0..self.rows {
            let Memory::Queued(attempts) = knows.memory[row] else { continue };
            if !self.is_suspect(knows, row) || knows.counted.contains(row) || !self.is_next(knows, row) {
                continue;
            }
            let used_up = knows.interrupted.contains(row) && attempts >= ATTEMPTS;
            if used_up || self.has(Bug::GivesUpUntried) {
                does(Action::GivesUp(row));
            } else if !self.has(Bug::CountsLate) {
                does(Action::Counts(row));
            }
        }
    }

    /// `count.sql`, and what follows from its answer.
    pub fn count(&self, state: &mut State, worker: usize, row: usize) {
        let knows = &mut state.workers[worker];
        let Memory::Queued(attempts) = knows.memory[row] else { return };
        if state.rows[row] == (Row::Pending { attempts }) {
            state.rows[row] = Row::Pending { attempts: attempts + 1 };
            state.interrupted.insert(row);
            knows.memory[row] = Memory::Queued(attempts + 1);
            knows.counted.insert(row);
        } else {
            knows.memory[row] = Memory::Unknown;
            knows.marked.insert(self.shard(row));
        }
    }

    /// The record that `lock.sql` keeps of shards that were just locked. Returns those that are to be worked with
    /// care.
    pub fn note(&self, state: &mut State, worker: usize, got: Set) -> Set {
        let mut careful = Set::default();
        for shard in got.iter().filter(|_| self.poison) {
            if let Some(former) = state.owners[shard].replace(worker).filter(|former| *former != worker) {
                state.deaths[shard] = (state.deaths[shard] + 1).min(DEATHS);
                if state.faults == self.faults && state.workers[former].process == crate::state::Process::Up {
                    state.wrong = Some(Wrong::DeathOfTheLiving);
                }
            }
            if state.deaths[shard] >= DEATHS {
                careful.insert(shard);
            }
        }
        careful
    }

    /// `give_up.sql`.
    pub fn give_up_shards(&self, state: &mut State, worker: usize, shards: Set) {
        if self.has(Bug::GivesUpInSilence) {
            return;
        }
        for (shard, owner) in state.owners.iter_mut().enumerate() {
            *owner = owner.filter(|owner| *owner != worker || !shards.contains(shard));
        }
    }

    /// Shards of which nothing is left are trusted again.
    pub fn look_around(&self, state: &mut State, worker: usize) {
        for shard in state.workers[worker].careful.iter() {
            let knows = &state.workers[worker];
            let waits =
                |row: usize| matches!(knows.memory[row], Memory::Queued(_)) || knows.is_outstanding(row);
            let left = (0..self.rows).any(|row| self.shard(row) == shard && waits(row));
            if knows.owned.contains(shard) && !knows.marked.contains(shard) && !left {
                state.workers[worker].careful.remove(shard);
                state.deaths[shard] = DEATHS - 1;
            }
        }
    }

    /// Judges an attempt by what the database says.
    pub fn judge_sending(&self, state: &mut State, worker: usize, row: usize) {
        let shard = self.shard(row);
        let owns = state.locks[shard].is_some() && state.locks[shard] == state.workers[worker].session;
        let counted = state.interrupted.contains(row);
        if self.poison && owns && state.deaths[shard] >= DEATHS && !counted {
            state.wrong = Some(Wrong::SentUncounted);
        }
        if self.poison && counted {
            state.tried.insert(row);
        }
    }

    /// Gives a row up, and judges that.
    pub fn bury(&self, state: &mut State, row: usize) -> Row {
        if state.faults == self.faults {
            if !state.tried.contains(row) {
                state.wrong = Some(Wrong::GivenUpUntried);
            } else if row > 0 {
                state.wrong = Some(Wrong::GivenUpInnocent);
            }
        }
        Row::Dead
    }
}
