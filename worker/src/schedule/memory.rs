//! What is kept in memory, and what is dropped for something else.

use super::{Pending, Schedule};
use crate::clock::DbTime;

impl Schedule {
    /// Queue length up to which a channel may fill its part of the memory.
    pub(super) fn cap(&self) -> usize {
        (self.limits.rows.saturating_sub(self.rows) / 2).max(1)
    }

    /// Where memory is nearly full and a channel wants some: takes from those that use more than an
    /// equal part, which are the slow ones. Their rows are in the database, and are read again.
    pub(super) fn make_room(&mut self, now: DbTime) {
        let tight = self.rows > self.limits.rows / 16 * 15 || self.bytes > self.limits.bytes / 16 * 15;
        if !tight || self.hungry.is_empty() {
            return;
        }
        let users = self.lanes.values().filter(|lane| lane.hungry || !lane.queue.is_empty()).count().max(1);
        let (fair_rows, fair_bytes) = (self.limits.rows / users, self.limits.bytes / users);
        let mut trimmed = Vec::new();
        for (channel_id, lane) in &mut self.lanes {
            let mut bytes: usize = lane.queue.iter().map(Pending::size).sum();
            let before = lane.queue.len();
            while (lane.queue.len() > fair_rows || bytes > fair_bytes)
                && let Some(row) = lane.queue.pop_back()
            {
                bytes -= row.size();
                lane.lower(row.place());
                self.known.remove(&row.id);
                self.rows = self.rows.saturating_sub(1);
                self.bytes = self.bytes.saturating_sub(row.size());
            }
            if lane.queue.len() < before {
                trimmed.push(*channel_id);
            }
        }
        for channel_id in trimmed {
            self.touch(channel_id, now);
        }
    }

    pub(super) fn push(&mut self, row: Pending) {
        if self.known.insert(row.id) {
            self.rows += 1;
            self.bytes += row.size();
            self.lanes.entry(row.channel_id).or_default().queue.push_back(row);
        }
    }

    /// Drops what of a channel waits in memory: it is in the database, and the mark says so.
    pub(super) fn drop_queue(&mut self, channel_id: i64) {
        let Some(lane) = self.lanes.get_mut(&channel_id) else { return };
        for row in std::mem::take(&mut lane.queue) {
            lane.lower(row.place());
            self.known.remove(&row.id);
            self.rows = self.rows.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(row.size());
        }
    }
}
