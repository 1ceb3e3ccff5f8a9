//! What to send next, and what to read next: the engine's memory, pure.
//!
//! Memory is a cache of what is pending. Of each channel everything before its *mark* is in memory;
//! at or after the mark lie rows in the database that are read when there is room, or when the first
//! of them is due. So neither a million waiting rows nor a year of scheduled ones cost memory, and
//! whatever is in memory can be dropped at any time by lowering the mark.
//!
//! Bounds are shared by a dynamic threshold (Choudhury and Hahne, 1998): a channel may use a part of
//! what is *still free*, of rows in memory and of deliveries in flight alike. Any number of channels
//! that hang leave room for one that does not. A channel that answers at once gives back at once what it
//! takes: of the deliveries in flight it may take all but a reserve.

mod care;
mod hold;
mod lane;
mod limits;
mod memory;
mod pending;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use uuid::Uuid;

use self::lane::Lane;
pub use self::lane::{Ask, Hold, PROMPT};
pub use self::limits::Limits;
pub use self::pending::{Fetched, Happening, INTERRUPTED, Pending, Place, SHARDS, Shards, Ticket, shard_of};
use crate::circuit::{Gate, Health};
use crate::clock::DbTime;

/// Rows one read asks for at most, over all channels.
const PAGE: usize = 1_000;
/// Channels one read asks for at most.
const ASKS: usize = 64;

/// The schedule of one database.
#[derive(Debug)]
pub struct Schedule {
    limits: Limits,
    owned: Shards,
    lanes: HashMap<i64, Lane>,
    round: VecDeque<i64>,
    hungry: VecDeque<i64>,
    alarms: BTreeSet<(DbTime, i64)>,
    /// Every delivery that is queued, in flight or not yet settled: reading one again is no news.
    known: HashSet<Uuid>,
    /// Deliveries in flight or not yet settled, of each shard.
    outstanding: [usize; SHARDS as usize],
    /// Shards that are worked with care: one delivery at a time.
    careful: Shards,
    /// Channels of those that wait, in their turn, until nothing of their shard is outstanding. Each still
    /// counts as in the round.
    parked: VecDeque<i64>,
    rows: usize,
    bytes: usize,
}

impl Schedule {
    /// An empty schedule that owns nothing.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            owned: Shards::default(),
            lanes: HashMap::new(),
            round: VecDeque::new(),
            hungry: VecDeque::new(),
            alarms: BTreeSet::new(),
            known: HashSet::new(),
            outstanding: [0; SHARDS as usize],
            careful: Shards::default(),
            parked: VecDeque::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Channels that do not answer and are left alone at `now`.
    pub fn open_circuits(&self, now: DbTime) -> usize {
        self.lanes
            .values()
            .filter(|lane| matches!(lane.circuit.gate(now), Gate::Shut(_) | Gate::Probe))
            .count()
    }

    /// The shards whose rows are taken in.
    pub fn owned(&self) -> Shards {
        self.owned
    }

    /// Begins to take in rows of these shards too.
    pub fn own(&mut self, shards: Shards) {
        self.owned = self.owned.union(shards);
    }

    /// Takes in no more rows of these shards and drops those that wait. What is on its way stays
    /// until it is settled: see [`Self::is_drained`].
    pub fn disown(&mut self, shards: Shards) {
        self.owned = self.owned.without(shards);
        let lanes = self.lanes.keys().filter(|id| shards.contains(shard_of(**id)));
        for channel_id in lanes.copied().collect::<Vec<_>>() {
            self.drop_queue(channel_id);
            if let Some(lane) = self.lanes.get_mut(&channel_id) {
                (lane.mark, lane.asked, lane.hold) = (None, None, None);
            }
            self.touch(channel_id, DbTime::MIN);
        }
    }

    /// Whether nothing of `shard` is on its way or waits to be settled.
    pub fn is_drained(&self, shard: i16) -> bool {
        usize::try_from(shard).ok().and_then(|at| self.outstanding.get(at)).is_none_or(|count| *count == 0)
    }

    /// Whether nothing at all is on its way or waits to be settled.
    pub fn is_quiet(&self) -> bool {
        self.outstanding.iter().all(|count| *count == 0)
    }

    /// How many rows and bytes a read of what is new may bring now; zero rows where there is no room.
    pub fn room(&self) -> (usize, usize) {
        let bytes = self.limits.bytes.saturating_sub(self.bytes);
        let rows = if bytes == 0 { 0 } else { self.limits.rows.saturating_sub(self.rows) };
        (rows.min(PAGE), bytes)
    }

    /// Takes in a row that has just become visible.
    pub fn offer(&mut self, fetched: Fetched, now: DbTime) {
        let (channel_id, place) = (fetched.channel_id(), fetched.place());
        if !self.owned.contains(shard_of(channel_id)) {
            return;
        }
        let cap = self.cap();
        let lane = self.lanes.entry(channel_id).or_default();
        if lane.covers(place) {
            return;
        }
        match fetched {
            Fetched::Whole(row) if place.due_at <= now && lane.queue.len() < cap && !lane.is_shut(now) => {
                self.push(*row);
            }
            _ if self.known.contains(&place.id) => {}
            _ => lane.lower(place),
        }
        self.touch(channel_id, now);
    }

    /// Takes note that a channel has rows from `due_at` on which are not in memory.
    pub fn mark(&mut self, channel_id: i64, due_at: DbTime, now: DbTime) {
        if !self.owned.contains(shard_of(channel_id)) {
            return;
        }
        let lane = self.lanes.entry(channel_id).or_default();
        lane.lower(Place::first_at(due_at));
        self.touch(channel_id, now);
    }

    /// Whether a channel wants to be read: then [`Self::asks`] is worth a call, though there may be
    /// no room for an answer.
    pub fn is_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// What to read now: rows of several channels, from each one's mark on.
    pub fn asks(&mut self, now: DbTime) -> Vec<Ask> {
        self.make_room(now);
        let (free, _) = self.room();
        let share = free / self.hungry.len().clamp(1, ASKS);
        let (cap, mut asks) = (self.cap(), Vec::new());
        while asks.len() < ASKS.min(free)
            && let Some(channel_id) = self.hungry.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&channel_id) else { continue };
            lane.hungry = false;
            if !lane.wants_rows(now, cap / 2) {
                self.touch(channel_id, now);
                continue;
            }
            if let Some(from) = lane.mark.take() {
                let room = cap.saturating_sub(lane.queue.len()).clamp(1, share.max(1));
                let ask = Ask { channel_id, from, room };
                lane.asked = Some(ask);
                asks.push(ask);
            }
        }
        // What is read is bounded in bytes from the first on: a channel that has nothing in memory must not
        // wait behind those with much, whose rows would be read, and dropped to make room, again and again.
        asks.sort_by_key(|ask| self.lanes.get(&ask.channel_id).map_or(0, |lane| lane.queue.len()));
        asks
    }

    /// Takes in what was read of one channel for an [`Ask`].
    pub fn refill(&mut self, channel_id: i64, mut rows: Vec<Fetched>, now: DbTime) {
        // Gone: the shard was given up in the meantime.
        let Some(lane) = self.lanes.get_mut(&channel_id) else { return };
        let Some(ask) = lane.asked.take() else { return };
        rows.sort_unstable_by_key(Fetched::place);
        if rows.len() > ask.room
            && let Some(rest) = rows.pop()
        {
            lane.lower(rest.place());
        }
        let shut = lane.is_shut(now);
        for row in rows {
            let place = row.place();
            match row {
                _ if self.known.contains(&place.id) => {}
                Fetched::Whole(row) if place.due_at <= now && !shut => self.push(*row),
                _ => {
                    if let Some(lane) = self.lanes.get_mut(&channel_id) {
                        lane.lower(place);
                    }
                }
            }
        }
        self.touch(channel_id, now);
    }

    /// Whether there may be something to send.
    pub fn is_ready(&self) -> bool {
        !self.round.is_empty()
    }

    /// The next delivery to send, in turn among the channels; `free` is how many more may be in
    /// flight over all.
    pub fn next(&mut self, now: DbTime, free: usize) -> Option<Pending> {
        if free == 0 {
            return None;
        }
        let (any, prompt) = self.limits.share(free);
        while let Some(channel_id) = self.round.pop_front() {
            if self.park(channel_id) {
                continue;
            }
            let Some(lane) = self.lanes.get_mut(&channel_id) else { continue };
            lane.in_round = false;
            if !lane.may_send(now, if lane.is_prompt(now) { prompt } else { any }) {
                // Back in the round when one of its own comes back, or when it is let go on.
                continue;
            }
            let row = lane.queue.pop_front()?;
            lane.in_flight += 1;
            self.count(channel_id, 1);
            self.touch(channel_id, now);
            return Some(row);
        }
        None
    }

    /// One more of a channel, as [`Self::next`] gives them, whatever else of it is in flight; only if
    /// it is `wanted`.
    pub fn next_of(
        &mut self,
        channel_id: i64,
        now: DbTime,
        wanted: impl Fn(&Pending) -> bool,
    ) -> Option<Pending> {
        let lane = self.lanes.get_mut(&channel_id)?;
        if !matches!(lane.circuit.gate(now), Gate::Open) || !wanted(lane.queue.front()?) {
            return None;
        }
        let row = lane.queue.pop_front()?;
        lane.in_flight += 1;
        self.count(channel_id, 1);
        self.touch(channel_id, now);
        Some(row)
    }

    /// Gives back a delivery that was not sent after all, to be sent in its turn. Where the shard has
    /// been given up meanwhile it is dropped: it is in the database.
    pub fn put_down(&mut self, row: Pending, now: DbTime) {
        if !self.owned.contains(shard_of(row.channel_id)) {
            self.finished(&row.ticket(), None, now);
            self.settled(&row.ticket(), None, now);
            return;
        }
        let channel_id = row.channel_id;
        self.count(channel_id, -1);
        let lane = self.lanes.entry(channel_id).or_default();
        lane.in_flight = lane.in_flight.saturating_sub(1);
        lane.queue.push_front(row);
        if lane.is_shut(now) {
            self.drop_queue(channel_id);
        }
        self.touch(channel_id, now);
    }

    /// An attempt has ended; `health` is what it says of the channel, if it was made at all.
    pub fn finished(&mut self, ticket: &Ticket, health: Option<Health>, now: DbTime) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(ticket.size);
        let Some(lane) = self.lanes.get_mut(&ticket.channel_id) else { return };
        lane.in_flight = lane.in_flight.saturating_sub(1);
        if let Some(health) = health {
            lane.circuit.record(health, now);
            lane.answered_at = (health == Health::Answers).then_some(now);
        }
        if lane.is_shut(now) && lane.hold.is_none() {
            // Its breaker is open: what waits for it may wait in the database.
            self.drop_queue(ticket.channel_id);
        }
        self.touch(ticket.channel_id, now);
    }

    /// An outcome has been written, or is given up: `retry` is where the row stands now, if it does.
    pub fn settled(&mut self, ticket: &Ticket, retry: Option<DbTime>, now: DbTime) {
        self.known.remove(&ticket.id);
        self.count(ticket.channel_id, -1);
        if let Some(due_at) = retry.filter(|_| self.owned.contains(ticket.shard())) {
            let lane = self.lanes.entry(ticket.channel_id).or_default();
            lane.lower(Place { due_at, id: ticket.id });
            self.touch(ticket.channel_id, now);
        }
    }

    /// When to call [`Self::wake`] next.
    pub fn next_alarm(&self) -> Option<DbTime> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Looks at the channels whose time has come.
    pub fn wake(&mut self, now: DbTime) {
        while let Some((at, channel_id)) = self.alarms.first().copied()
            && at <= now
        {
            self.alarms.pop_first();
            if let Some(lane) = self.lanes.get_mut(&channel_id) {
                lane.alarm = None;
            }
            self.touch(channel_id, now);
        }
    }

    fn count(&mut self, channel_id: i64, by: isize) {
        let shard = shard_of(channel_id);
        if let Some(count) = usize::try_from(shard).ok().and_then(|at| self.outstanding.get_mut(at)) {
            *count = count.saturating_add_signed(by);
        }
        self.unpark(shard);
    }

    /// Brings a channel's standing up to date after anything about it has changed.
    fn touch(&mut self, channel_id: i64, now: DbTime) {
        let low_water = self.cap() / 2;
        let Some(lane) = self.lanes.get_mut(&channel_id) else { return };
        if !lane.in_round && lane.may_send(now, self.limits.per_channel) {
            lane.in_round = true;
            self.round.push_back(channel_id);
        }
        if !lane.hungry && lane.wants_rows(now, low_water) {
            lane.hungry = true;
            self.hungry.push_back(channel_id);
        }
        let alarm = lane.next_alarm(now);
        if alarm != lane.alarm {
            if let Some(before) = lane.alarm {
                self.alarms.remove(&(before, channel_id));
            }
            if let Some(at) = alarm {
                self.alarms.insert((at, channel_id));
            }
            lane.alarm = alarm;
        }
        if lane.is_idle() {
            self.lanes.remove(&channel_id);
        }
    }
}
