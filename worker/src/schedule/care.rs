//! Shards that are worked with care: one delivery at a time.

use std::collections::VecDeque;

use super::{SHARDS, Schedule, Shards, shard_of};
use crate::clock::DbTime;

impl Schedule {
    /// The shards that are worked with care.
    pub fn careful(&self) -> Shards {
        self.careful
    }

    /// Works these shards with care, and no others: of each, one delivery at a time, from its being chosen
    /// until it is settled.
    pub fn take_care(&mut self, shards: Shards) {
        self.careful = shards;
        // Those that still have to wait are parked again when it is their turn.
        self.round.extend(self.parked.drain(..));
    }

    /// The shards of which nothing is on its way, in memory or due: what there is of them is of the future.
    pub fn idle(&self, now: DbTime) -> Shards {
        let waits = |(_, lane): &(_, &super::Lane)| {
            !lane.queue.is_empty() || lane.asked.is_some() || lane.mark.is_some_and(|mark| mark.due_at <= now)
        };
        let busy: Shards = self.lanes.iter().filter(waits).map(|(id, _)| shard_of(*id)).collect();
        let quiet = (0..i16::from(SHARDS)).filter(|shard| self.is_drained(*shard)).collect::<Shards>();
        let idle = quiet.without(busy);
        idle.iter().filter(|shard| self.owned.contains(*shard)).collect()
    }

    /// Lets a channel wait whose turn it is, where that of another of its shard is not over.
    pub(super) fn park(&mut self, channel_id: i64) -> bool {
        let shard = shard_of(channel_id);
        let waits = self.careful.contains(shard) && !self.is_drained(shard);
        if waits {
            self.parked.push_back(channel_id);
        }
        waits
    }

    /// Has those of `shard` that were parked go on, if that is over.
    pub(super) fn unpark(&mut self, shard: i16) {
        if self.careful.contains(shard) && self.is_drained(shard) {
            let parked = std::mem::take(&mut self.parked).into_iter();
            let (free, waiting): (VecDeque<_>, _) = parked.partition(|id| shard_of(*id) == shard);
            self.parked = waiting;
            self.round.extend(free);
        }
    }
}
