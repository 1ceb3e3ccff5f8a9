//! One channel's part of the schedule.

use std::collections::VecDeque;
use std::time::Duration;

use super::pending::{Pending, Place};
use crate::circuit::{Circuit, Gate};
use crate::clock::DbTime;

/// An answer within this time was given at once.
pub const PROMPT: Duration = Duration::from_secs(1);

/// Why nothing of a channel is sent or read, whatever is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Its configuration is being read.
    Unresolved,
    /// It is disabled: what waits for it stays in the database.
    Disabled,
}

/// One channel: what of it is in memory, and where the rest begins.
#[derive(Debug, Default)]
pub struct Lane {
    /// Read, and waiting for their turn.
    pub queue: VecDeque<Pending>,
    /// On their way.
    pub in_flight: usize,
    /// Everything pending before this place is in memory; at or after it, nothing is known. `None`:
    /// everything pending is in memory.
    pub mark: Option<Place>,
    /// While the database is being read from a mark on: that mark, and how many rows were asked for.
    pub asked: Option<Ask>,
    /// Why it stands still.
    pub hold: Option<Hold>,
    /// Its breaker.
    pub circuit: Circuit,
    /// When it last answered at once, if it did so the last time.
    pub answered_at: Option<DbTime>,
    /// Whether it stands in the round of those with something to send.
    pub in_round: bool,
    /// Whether it stands in the queue of those that want to be read.
    pub hungry: bool,
    /// When to look at it again.
    pub alarm: Option<DbTime>,
}

/// A request to read rows of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The channel.
    pub channel_id: i64,
    /// Where to begin.
    pub from: Place,
    /// How many rows there is room for; one more is read, to see where the rest begins.
    pub room: usize,
}

impl Lane {
    /// Takes note that there may be a row at `place` that is not in memory.
    pub fn lower(&mut self, place: Place) {
        self.mark = Some(self.mark.map_or(place, |mark| mark.min(place)));
    }

    /// Whether a row at `place` will be found by reading from the mark on.
    pub fn covers(&self, place: Place) -> bool {
        self.mark.is_some_and(|mark| mark <= place)
    }

    /// Whether nothing may be sent or read at `now`.
    pub fn is_shut(&self, now: DbTime) -> bool {
        self.hold.is_some() || matches!(self.circuit.gate(now), Gate::Shut(_))
    }

    /// Whether it may send one more at `now`, with `limit` in flight at most.
    pub fn may_send(&self, now: DbTime, limit: usize) -> bool {
        !self.queue.is_empty()
            && self.hold.is_none()
            && match self.circuit.gate(now) {
                Gate::Open => self.in_flight < limit,
                Gate::Probe => self.in_flight == 0,
                Gate::Shut(_) => false,
            }
    }

    /// Whether it answers at once: what has been on its way for longer may hang.
    pub fn is_prompt(&self, now: DbTime) -> bool {
        self.answered_at.is_some_and(|at| now.since(at) <= PROMPT)
    }

    /// Whether its next rows should be read at `now`; `low_water` is the queue length below which.
    pub fn wants_rows(&self, now: DbTime, low_water: usize) -> bool {
        self.asked.is_none()
            && !self.is_shut(now)
            && self.mark.is_some_and(|mark| mark.due_at <= now)
            && self.queue.len() <= low_water
    }

    /// When it should be looked at again without anything else happening.
    pub fn next_alarm(&self, now: DbTime) -> Option<DbTime> {
        if self.hold.is_some() {
            return None;
        }
        let mark = self.mark?;
        match self.circuit.gate(now) {
            Gate::Shut(until) => Some(until.max(mark.due_at)),
            _ => (mark.due_at > now).then_some(mark.due_at),
        }
    }

    /// Whether there is nothing to remember of it.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.in_flight == 0
            && self.mark.is_none()
            && self.asked.is_none()
            && self.circuit.is_pristine()
    }
}
