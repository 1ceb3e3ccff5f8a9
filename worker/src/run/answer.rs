//! What the session's answers change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::choose::JOURNAL_PAUSE;
use super::engine::Engine;
use super::job::{Answer, Cause, Lost};
use super::test;
use crate::clock::DbTime;
use crate::directory::Found;
use crate::discover::News;
use crate::ownership::{self, Roll};
use crate::schedule::{Fetched, Hold, Shards, shard_of};
use crate::settle::Settled;
use crate::statement::reason;

impl Engine {
    /// Takes in what the session answered.
    pub(super) fn take_in(&mut self, answer: Answer, now: Instant) -> Result<(), Lost> {
        match answer {
            Answer::Roll(roll) => self.call(roll, now)?,
            Answer::Fenced(worker, fenced) => {
                if let Some(fenced) = fenced {
                    tracing::warn!(%worker, host = fenced.host, ended = fenced.ended, "fenced a silent worker");
                }
            }
            Answer::Locked { records, begins, start } => {
                let shards: Shards = records.iter().map(|record| record.shard).collect();
                if let Some((snapshot, clock)) = start {
                    (self.session.snapshot, self.clock) = (Some(snapshot), clock);
                }
                self.session.locked = self.session.locked.union(shards);
                let time = self.clock.at(now);
                let due = begins.iter().filter(|(_, due_at)| *due_at <= time).map(|(id, _)| shard_of(*id));
                let due: Vec<i16> = due.collect();
                self.caution.note(&records, |shard| due.iter().filter(|other| **other == shard).count());
                // What it was taking when it was told to stop is not its to begin with.
                if !shards.is_empty() && self.session.draining.is_none() {
                    self.schedule.own(shards);
                    self.mark(begins, now);
                    self.look_around(now);
                    tracing::info!(
                        worker = %self.worker,
                        taken = shards.iter().count(),
                        owned = self.session.locked.iter().count(),
                        "owns shards"
                    );
                    (self.session.news, self.session.beat_at) = (true, None);
                }
                self.take_care(now);
            }
            Answer::Unlocked(shards) => {
                self.session.locked = self.session.locked.without(shards);
                self.session.beat_at = None;
                tracing::info!(worker = %self.worker, given = shards.iter().count(), "handed over shards");
            }
            Answer::News(discovery) => {
                (self.session.snapshot, self.clock) = (Some(discovery.snapshot), discovery.clock);
                match discovery.news {
                    News::Rows(rows) => {
                        let time = self.clock.at(now);
                        rows.into_iter().for_each(|row| self.schedule.offer(row, time));
                    }
                    News::Overflow(begins) => self.mark(begins, now),
                }
            }
            Answer::Rows { asks, rows, clock } => {
                self.clock = clock.unwrap_or(self.clock);
                let time = self.clock.at(now);
                let mut by_channel: HashMap<i64, Vec<Fetched>> = HashMap::with_capacity(asks.len());
                for row in rows {
                    by_channel.entry(row.channel_id()).or_default().push(row);
                }
                for ask in asks {
                    let rows = by_channel.remove(&ask.channel_id).unwrap_or_default();
                    self.schedule.refill(ask.channel_id, rows, time);
                }
            }
            Answer::Cooldowns(Ok(decided)) => {
                let time = self.clock.at(now);
                let (passed, held_back) = self.waiting.decided(&decided, now);
                tracing::debug!(passed = passed.len(), held_back = held_back.len(), "settled cooldowns");
                self.session.unfound.extend(held_back.iter().map(|row| row.channel_id));
                for row in held_back {
                    self.schedule.finished(&row.ticket(), None, time);
                    self.schedule.settled(&row.ticket(), None, time);
                }
                // Sent in their turn, like any other.
                for row in passed.into_iter().rev() {
                    self.schedule.put_down(row, time);
                }
            }
            Answer::Cooldowns(Err(error)) => {
                tracing::error!(reason = reason(&error), "cannot settle cooldowns, trying again");
                self.waiting.undecided(now);
            }
            Answer::Counted { asked, due } => self.counted(asked, &due, now),
            Answer::Settled(result, written) => {
                self.written = written;
                match result {
                    Ok(settled) => self.settled(settled, now),
                    Err(error) => self.outcomes.refused(&error, error.blames_a_row(), now),
                }
            }
            Answer::Loaded(loaded) => {
                self.directory.apply(loaded);
                let held: Vec<_> = self.schedule.held().collect();
                for (channel_id, hold) in held {
                    let go = match self.directory.find(channel_id, None).0 {
                        Found::NotYet => false,
                        Found::Route(route) => route.enabled || hold == Hold::Unresolved,
                        Found::Missing => true,
                    };
                    if go {
                        self.schedule.resume(channel_id, self.clock.at(now));
                    }
                }
            }
            Answer::Disabled { channel_id, name, cause } => {
                if let Some(channel) = name {
                    tracing::warn!(channel, reason = %cause, "channel disabled");
                }
                self.directory.invalidate();
                self.schedule.hold(channel_id, Hold::Disabled, self.clock.at(now));
            }
            Answer::StillEnabled { channel_id, cause } => {
                self.session.still_enabled.insert(channel_id, cause);
            }
            Answer::Tests(tests) => {
                for (test, channel) in tests {
                    let courier = Arc::clone(&self.shared.courier);
                    self.tests.spawn(test::make(courier, test, channel, self.clock.at(now)));
                }
            }
            Answer::Journaled(more) => {
                self.session.journal = more && self.session.locked.contains(0);
                self.session.journal_at = (!more).then(|| now + JOURNAL_PAUSE);
            }
            Answer::Spared
            | Answer::TestAnswered
            | Answer::Trusted
            | Answer::ToldOfHolders
            | Answer::Left => {}
        }
        Ok(())
    }

    /// What a roll says this worker should own.
    fn call(&mut self, roll: Roll, now: Instant) -> Result<(), Lost> {
        if !roll.registered {
            return Err(Lost::Fenced);
        }
        if roll.astray {
            return Err(Lost::Astray);
        }
        self.listen(now);
        self.measure(now);
        self.clock = roll.clock.unwrap_or(self.clock);
        self.session.silent = roll.silent;
        self.session.tests = roll.tests && self.session.locked.contains(0);
        self.session.journal |= roll.journal && self.session.locked.contains(0);
        let still_enabled = std::mem::take(&mut self.session.still_enabled);
        self.session.disable.extend(still_enabled);
        self.look_around(now);
        // Not with each batch of a flood: what was deleted there is passed over by every read from the beginning.
        let unfound = std::mem::take(&mut self.session.unfound);
        self.mark(unfound.into_iter().map(|channel_id| (channel_id, DbTime::MIN)), now);
        if self.session.draining.is_some() {
            self.let_go(self.session.locked);
            return Ok(());
        }
        if roll.tick {
            self.session.tick.notify_one();
        }
        let wanted = ownership::wanted(self.worker, &roll.living);
        self.session.wanted = wanted;
        let surplus = self.schedule.owned().without(wanted);
        if !surplus.is_empty() {
            self.schedule.disown(surplus);
        }
        self.let_go(self.session.locked.without(wanted));
        let missing = wanted.without(self.session.locked);
        self.session.lock_due = !missing.is_empty();
        let since = self.session.missing_since.unwrap_or(now);
        self.session.missing_since = self.session.lock_due.then_some(since);
        // What another worker now owns is that worker's to send and to settle.
        let others = self.outcomes.forget_others(wanted.union(self.session.locked));
        if !others.is_empty() {
            tracing::warn!(
                outcomes = others.len(),
                "shards went to another worker before their outcomes were settled"
            );
        }
        for outcome in others {
            self.schedule.settled(&outcome.ticket, None, DbTime::MIN);
        }
        Ok(())
    }

    /// Leaves to others what cannot be settled of shards that are to be theirs: it would keep them for ever.
    fn let_go(&mut self, shards: Shards) {
        for outcome in self.outcomes.forget_quarantined(shards) {
            tracing::warn!(delivery = %outcome.ticket.id, "left to another worker what could not be settled");
            self.schedule.settled(&outcome.ticket, None, DbTime::MIN);
        }
    }

    fn mark(&mut self, begins: impl IntoIterator<Item = (i64, DbTime)>, now: Instant) {
        let time = self.clock.at(now);
        for (channel_id, due_at) in begins {
            self.schedule.mark(channel_id, due_at, time);
        }
    }

    fn settled(&mut self, settled: Settled, now: Instant) {
        self.clock = settled.clock;
        let time = self.clock.at(now);
        tracing::debug!(rows = settled.rows.len(), "settled");
        for outcome in self.outcomes.written() {
            // A row that is not as it was sent is somebody else's doing: it is looked at again.
            let stands = settled.rows.get(&outcome.ticket.id).copied().unwrap_or(Some(DbTime::MIN));
            self.schedule.settled(&outcome.ticket, stands, time);
            if outcome.counted && outcome.is_seen() {
                self.caution.survived(outcome.ticket.shard());
            }
        }
        for channel_id in settled.hopeless {
            self.session.disable.entry(channel_id).or_insert(Cause::Fails);
        }
    }
}
