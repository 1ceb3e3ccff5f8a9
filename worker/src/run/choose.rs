//! What to ask of the session next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::careful::Cautious;
use super::engine::{Engine, Turn};
use super::job::Job;
use crate::ownership::HEARTBEAT;
use crate::schedule::Shards;

/// Between one call for the log's own records and the next: each holds the log's end for a moment, and
/// people seldom make one change alone.
pub const JOURNAL_PAUSE: Duration = Duration::from_secs(5);

/// How long shards may stay somebody else's before people are told who has them, again and again.
const HANDOVER: Duration = Duration::from_secs(15);

impl Engine {
    /// What to ask of the session next.
    pub(super) fn choose(&mut self, now: Instant) -> Option<Job> {
        if let Some(until) = self.session.draining
            && (now >= until || (self.schedule.is_quiet() && self.outcomes.is_empty()))
        {
            return Some(Job::Leave { worker: self.worker, owned: self.session.locked });
        }
        if let Some(request) = self.directory.request(now) {
            return Some(Job::Load(request));
        }
        if self.session.beat_at.is_none_or(|at| now >= at + HEARTBEAT) {
            self.session.beat_at = Some(now);
            let notified = std::mem::take(&mut self.session.notified);
            let (owned, first) = (self.session.locked, self.session.first);
            return Some(Job::Beat { worker: self.worker, owned, notified, first });
        }
        if let Some(silent) = self.session.silent.pop() {
            return Some(Job::Fence(silent));
        }
        let surplus = self.session.locked.without(self.schedule.owned());
        let drained: Shards = surplus.iter().filter(|shard| self.schedule.is_drained(*shard)).collect();
        if !drained.is_empty() {
            return Some(Job::Unlock { worker: self.worker, shards: drained });
        }
        if std::mem::take(&mut self.session.lock_due) {
            let wanted = self.session.wanted.without(self.session.locked);
            return Some(Job::Lock { worker: self.worker, wanted, afresh: self.session.locked.is_empty() });
        }
        if let Some(since) = self.session.missing_since
            && now >= since + HANDOVER
        {
            self.session.missing_since = Some(now);
            return Some(Job::TellOfHolders(self.session.wanted.without(self.session.locked)));
        }
        let trusted = self.caution.trusted();
        if !trusted.is_empty() {
            return Some(Job::Trust { worker: self.worker, shards: trusted });
        }
        if let Some(tested) = self.session.tested.pop_front() {
            return Some(Job::AnswerTest(tested));
        }
        if std::mem::take(&mut self.session.tests) {
            return Some(Job::TakeTests);
        }
        if self.session.journal && now >= *self.session.journal_at.get_or_insert(now + JOURNAL_PAUSE) {
            self.session.journal = false;
            return Some(Job::Journal { worker: self.worker });
        }
        if let Some((channel_id, cause)) = self.session.disable.pop_first() {
            return Some(Job::Disable { channel_id, cause });
        }
        for _ in 0..5 {
            let turn = self.turn;
            self.turn = turn.next();
            let job = match turn {
                Turn::Discover => self.discover(now),
                Turn::Refill => self.refill(now),
                Turn::Cooldowns => self.waiting.next(now).map(Job::Cooldowns),
                Turn::Count => self.count(),
                Turn::Settle => self.settle(now),
            };
            if job.is_some() {
                return job;
            }
        }
        None
    }

    fn count(&self) -> Option<Job> {
        let intents: Vec<_> = self.cautious.iter().map(Cautious::intent).collect();
        (!intents.is_empty()).then_some(Job::Count(intents))
    }

    fn discover(&mut self, now: Instant) -> Option<Job> {
        let poll = self.session.read_at.is_none_or(|at| now >= at + self.shared.poll_interval);
        if !(self.session.news || poll) || self.schedule.owned().is_empty() || self.session.draining.is_some()
        {
            return None;
        }
        let last = self.session.snapshot.clone()?;
        (self.session.news, self.session.read_at) = (false, Some(now));
        Some(Job::Discover { last, owned: self.schedule.owned(), room: self.schedule.room() })
    }

    fn refill(&mut self, now: Instant) -> Option<Job> {
        if !self.schedule.is_hungry() {
            return None;
        }
        let asks = self.schedule.asks(self.clock.at(now));
        let (_, bytes) = self.schedule.room();
        (!asks.is_empty()).then_some(Job::Refill { asks, bytes })
    }

    fn settle(&mut self, now: Instant) -> Option<Job> {
        // A shard that is worked with care sends nothing until what it sent is settled.
        let urgent = !self.schedule.careful().is_empty() || self.session.draining.is_some();
        let outcomes = self.outcomes.next(self.session.locked, now, urgent)?;
        let written = std::mem::take(&mut self.written);
        Some(Job::Settle { outcomes, log: Arc::clone(&self.log), written })
    }
}
