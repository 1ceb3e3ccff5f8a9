//! Channels that stand still, whatever of them is due.

use super::{Hold, Pending, Schedule};
use crate::clock::DbTime;

impl Schedule {
    /// Gives back a delivery that was not sent after all, and holds its channel.
    pub fn put_back(&mut self, row: Pending, hold: Hold, now: DbTime) {
        let channel_id = row.channel_id;
        self.count(channel_id, -1);
        let lane = self.lanes.entry(channel_id).or_default();
        lane.in_flight = lane.in_flight.saturating_sub(1);
        lane.queue.push_front(row);
        self.hold(channel_id, hold, now);
    }

    /// Holds a channel.
    pub fn hold(&mut self, channel_id: i64, hold: Hold, now: DbTime) {
        let Some(lane) = self.lanes.get_mut(&channel_id) else { return };
        lane.hold = Some(hold);
        if hold == Hold::Disabled {
            self.drop_queue(channel_id);
        }
        self.touch(channel_id, now);
    }

    /// Lets a channel go on.
    pub fn resume(&mut self, channel_id: i64, now: DbTime) {
        if let Some(lane) = self.lanes.get_mut(&channel_id) {
            lane.hold = None;
            self.touch(channel_id, now);
        }
    }

    /// The channels that are held.
    pub fn held(&self) -> impl Iterator<Item = (i64, Hold)> {
        self.lanes.iter().filter_map(|(id, lane)| lane.hold.map(|hold| (*id, hold)))
    }
}
