//! A model of the database: a map of rows, read as the worker's statements read it.

use std::collections::BTreeMap;

use super::*;

/// The rows that are pending, and where the next read of what is new begins.
#[derive(Default)]
pub struct Database {
    pub rows: BTreeMap<(i64, Place), Pending>,
    pub fresh: Vec<Uuid>,
    next_id: u128,
}

impl Database {
    pub fn insert(&mut self, channel_id: i64, due: i64) -> Pending {
        self.next_id += 1;
        let row = row(self.next_id, channel_id, due);
        self.rows.insert((channel_id, row.place()), row.clone());
        self.fresh.push(row.id);
        row
    }

    /// As `discover.sql` and, past the limit, `overflow.sql`.
    pub fn discover(&mut self, schedule: &mut Schedule, now: DbTime) {
        let ids = std::mem::take(&mut self.fresh);
        let fresh: Vec<_> = self.rows.values().filter(|row| ids.contains(&row.id)).cloned().collect();
        let (room, _) = schedule.room();
        if fresh.len() <= room {
            for row in fresh {
                schedule.offer(Fetched::Whole(Box::new(row)), now);
            }
        } else {
            for row in fresh {
                schedule.mark(row.channel_id, row.due_at, now);
            }
        }
    }

    /// As `refill.sql`.
    pub fn refill(&self, schedule: &mut Schedule, now: DbTime) {
        for ask in schedule.asks(now) {
            let from = (ask.channel_id, ask.from);
            let end = (ask.channel_id + 1, Place { due_at: DbTime::MIN, id: Uuid::nil() });
            let rows = self.rows.range(from..end).take(ask.room + 1);
            let rows = rows.map(|(_, row)| Fetched::Whole(Box::new(row.clone()))).collect();
            schedule.refill(ask.channel_id, rows, now);
        }
    }
}
