//! Outcomes on their way into the database.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::schedule::Shards;
use crate::settle::{BATCH, Outcome, SettleError, Settled};

/// Outcomes that may wait while a batch is being written; beyond it nothing more is sent until it is.
/// What was sent and is not written is sent again after a crash, so this bounds the repetitions.
const FULL: usize = BATCH;
/// How long to leave the database alone after it refused a batch for no fault of the batch.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to leave alone an outcome that cannot be written.
const QUARANTINE: Duration = Duration::from_secs(60);

/// Outcomes that are not yet written, in the order in which they came. They outlive a session: what
/// was sent stays sent.
#[derive(Debug, Default)]
pub struct Outcomes {
    waiting: VecDeque<Outcome>,
    /// Batches that were refused, in halves.
    suspects: VecDeque<Vec<Outcome>>,
    /// Outcomes refused on their own, and when to try again.
    quarantined: Vec<(Instant, Outcome)>,
    /// What is being written: it comes back even if the writing never ends.
    writing: Option<Arc<Vec<Outcome>>>,
    not_before: Option<Instant>,
}

impl Outcomes {
    /// Takes in an outcome.
    pub fn push(&mut self, outcome: Outcome) {
        self.waiting.push_back(outcome);
    }

    /// Whether there are so many that nothing more should be sent.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= FULL
    }

    /// Whether nothing waits that could be written now or soon.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.suspects.is_empty() && self.writing.is_none()
    }

    /// When [`Self::next`] may have something that it has not now.
    pub fn wake_at(&self) -> Option<Instant> {
        let paused = self.not_before.filter(|_| !self.is_empty());
        self.quarantined.iter().map(|(at, _)| *at).chain(paused).min()
    }

    /// The next batch to write: outcomes of `locked` shards only, for others are not this session's
    /// to settle.
    pub fn next(&mut self, locked: Shards, now: Instant) -> Option<Arc<Vec<Outcome>>> {
        if self.writing.is_some() || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.not_before = None;
        for (_, outcome) in self.quarantined.extract_if(.., |(at, _)| *at <= now) {
            self.suspects.push_back(vec![outcome]);
        }
        let mine = |outcome: &Outcome| locked.contains(outcome.ticket.shard());
        let batch = if let Some(at) = self.suspects.iter().position(|batch| batch.iter().all(mine)) {
            self.suspects.remove(at)?
        } else if self.waiting.iter().take(BATCH).all(mine) {
            self.waiting.drain(..self.waiting.len().min(BATCH)).collect()
        } else {
            let mut batch = Vec::new();
            for outcome in std::mem::take(&mut self.waiting) {
                if batch.len() < BATCH && mine(&outcome) {
                    batch.push(outcome);
                } else {
                    self.waiting.push_back(outcome);
                }
            }
            batch
        };
        if batch.is_empty() {
            return None;
        }
        let batch = Arc::new(batch);
        self.writing = Some(Arc::clone(&batch));
        Some(batch)
    }

    /// The batch was written, as `settled` says; hands it over.
    pub fn written(&mut self, settled: &Settled) -> Vec<Outcome> {
        tracing::debug!(rows = settled.rows.len(), "settled");
        self.take_back()
    }

    /// The batch was refused: to be tried again, in halves where one of its rows may be to blame.
    pub fn refused(&mut self, error: &SettleError, now: Instant) {
        let mut batch = self.take_back();
        if !error.blames_a_row() {
            tracing::error!(%error, outcomes = batch.len(), "cannot settle, trying again");
            self.not_before = Some(now + PAUSE);
            self.suspects.push_front(batch);
        } else if batch.len() > 1 {
            let half = batch.split_off(batch.len() / 2);
            self.suspects.push_front(half);
            self.suspects.push_front(batch);
        } else if let Some(mut outcome) = batch.pop() {
            tracing::error!(%error, delivery = %outcome.ticket.id, "an outcome cannot be settled");
            if outcome.strip() {
                self.suspects.push_front(vec![outcome]);
            } else {
                self.quarantined.push((now + QUARANTINE, outcome));
            }
        }
    }

    /// The session is lost in the middle of whatever it did: what was being written may have been.
    pub fn session_lost(&mut self) {
        if self.writing.is_some() {
            let batch = self.take_back();
            self.suspects.push_front(batch);
        }
    }

    /// Gives up what is of none of these shards: their new owner will send again.
    pub fn forget_others(&mut self, ours: Shards) -> Vec<Outcome> {
        let others = |outcome: &Outcome| !ours.contains(outcome.ticket.shard());
        let mut forgotten = Vec::new();
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().partition(others);
        forgotten.extend(gone);
        self.waiting = kept.into();
        for batch in &mut self.suspects {
            forgotten.extend(batch.extract_if(.., |outcome| others(outcome)));
        }
        self.suspects.retain(|batch| !batch.is_empty());
        forgotten.extend(
            self.quarantined.extract_if(.., |(_, outcome)| others(outcome)).map(|(_, outcome)| outcome),
        );
        forgotten
    }

    fn take_back(&mut self) -> Vec<Outcome> {
        let batch = self.writing.take().map(Arc::try_unwrap);
        // The job that shared it has ended, one way or the other.
        batch.and_then(Result::ok).unwrap_or_default()
    }
}
