//! Outcomes on their way into the database.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::schedule::Shards;
use crate::settle::{BATCH, Outcome};

/// Outcomes that may wait while a batch is being written; beyond it nothing more is sent until it is.
/// What was sent and is not written is sent again after a crash, so this bounds the repetitions.
const FULL: usize = BATCH;
/// Between the begin of one batch and the next, unless many wait: what comes meanwhile is written with them, in one
/// transaction. A delivery that comes alone is written at once.
const PACE: Duration = Duration::from_millis(5);
/// So many are worth a transaction whenever they wait.
const MANY: usize = BATCH / 2;
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
    /// When the last batch began.
    begun: Option<Instant>,
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

    /// When [`Self::next`] may have something that it has not `now`.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let paused = self.not_before.filter(|_| !self.is_empty());
        let paced = self.paced_until(now).filter(|_| !self.waiting.is_empty());
        self.quarantined.iter().map(|(at, _)| *at).chain(paused).chain(paced).min()
    }

    /// Until when few wait for more, if they still do `now`.
    fn paced_until(&self, now: Instant) -> Option<Instant> {
        self.begun.map(|at| at + PACE).filter(|at| *at > now)
    }

    /// The next batch to write: outcomes of `locked` shards only, for others are not this session's
    /// to settle. Where it is `urgent`, somebody waits for it.
    pub fn next(&mut self, locked: Shards, now: Instant, urgent: bool) -> Option<Arc<Vec<Outcome>>> {
        if self.writing.is_some() || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.not_before = None;
        for (_, outcome) in self.quarantined.extract_if(.., |(at, _)| *at <= now) {
            self.suspects.push_back(vec![outcome]);
        }
        let many = self.waiting.len() >= MANY || !self.suspects.is_empty();
        if !urgent && !many && self.paced_until(now).is_some() {
            return None;
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
        self.begun = Some(now);
        Some(batch)
    }

    /// The batch was written; hands it over.
    pub fn written(&mut self) -> Vec<Outcome> {
        self.take_back()
    }

    /// The batch was refused: to be tried again, in halves where it `blames_a_row`.
    pub fn refused(&mut self, error: &dyn Display, blames_a_row: bool, now: Instant) {
        let mut batch = self.take_back();
        if !blames_a_row {
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

    /// Gives up what cannot be written of these shards, which are to be another worker's: it will send again,
    /// and try for itself.
    pub fn forget_quarantined(&mut self, shards: Shards) -> Vec<Outcome> {
        let leaves = |(_, outcome): &mut (Instant, Outcome)| shards.contains(outcome.ticket.shard());
        self.quarantined.extract_if(.., leaves).map(|(_, outcome)| outcome).collect()
    }

    fn take_back(&mut self) -> Vec<Outcome> {
        let batch = self.writing.take().map(Arc::try_unwrap);
        // The job that shared it has ended, one way or the other.
        batch.and_then(Result::ok).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::clock::DbTime;
    use crate::schedule::Pending;

    fn outcome(id: u128, channel_id: i64) -> Outcome {
        let at = DbTime::from_unix_micros(0);
        let row = Pending {
            id: Uuid::from_u128(id),
            event_id: None,
            subscription_id: None,
            channel_id,
            due_at: at,
            created_at: at,
            attempts: 0,
            interrupted: false,
            counted: false,
            replayed: false,
            event_type: "task.failed".to_owned(),
            project: None,
            cooldown_task: None,
            held_back: 0,
            held_for: None,
            event: None,
        };
        Outcome::given_up(row, "malformed", Some("a note".to_owned()))
    }

    fn ids(batch: &[Outcome]) -> Vec<u128> {
        batch.iter().map(|outcome| outcome.ticket.id.as_u128()).collect()
    }

    fn queue(count: u128) -> Outcomes {
        let mut outcomes = Outcomes::default();
        (1..=count).for_each(|id| outcomes.push(outcome(id, 1)));
        outcomes
    }

    /// What a database does that refuses every batch with `bad` in it, until nothing is left to write.
    fn write_all(outcomes: &mut Outcomes, bad: u128, now: Instant) -> Vec<u128> {
        let mut written = Vec::new();
        while let Some(batch) = outcomes.next(Shards::all(), now, true) {
            let refused = batch.iter().any(|one| one.ticket.id.as_u128() == bad);
            drop(batch);
            if refused {
                outcomes.refused(&"no", true, now);
            } else {
                written.extend(ids(&outcomes.written()));
            }
        }
        written.sort_unstable();
        written
    }

    #[test]
    fn one_that_cannot_be_written_does_not_hold_up_the_others() {
        let (mut outcomes, now) = (queue(1_200), Instant::now());
        let expected: Vec<u128> = (1..=1_200).filter(|id| *id != 777).collect();
        assert_eq!(write_all(&mut outcomes, 777, now), expected);
        assert_eq!(outcomes.wake_at(now), Some(now + QUARANTINE));
        assert_eq!(write_all(&mut outcomes, 0, now + QUARANTINE), [777]);
    }

    #[test]
    fn one_that_cannot_be_written_does_not_keep_its_shard_from_another_worker() {
        let (mut outcomes, now) = (Outcomes::default(), Instant::now());
        (1..=2).for_each(|id| outcomes.push(outcome(id, i64::try_from(id).unwrap())));
        assert_eq!(write_all(&mut outcomes, 1, now), [2]);
        assert!(outcomes.forget_quarantined([2].into_iter().collect()).is_empty());
        assert_eq!(ids(&outcomes.forget_quarantined([1].into_iter().collect())), [1]);
        assert_eq!(outcomes.wake_at(now), None);
    }

    #[test]
    fn one_whose_text_is_to_blame_is_written_without() {
        let (mut outcomes, now) = (queue(1), Instant::now());
        drop(outcomes.next(Shards::all(), now, true));
        outcomes.refused(&"no", true, now);
        let batch = outcomes.next(Shards::all(), now, true).unwrap();
        assert_eq!((ids(&batch), batch[0].error()), (vec![1], None));
    }

    #[test]
    fn a_database_that_is_in_trouble_is_left_alone_for_a_while() {
        let (mut outcomes, now) = (queue(3), Instant::now());
        drop(outcomes.next(Shards::all(), now, true));
        outcomes.refused(&"disk full", false, now);
        assert!(outcomes.next(Shards::all(), now, true).is_none());
        assert_eq!(outcomes.wake_at(now), Some(now + PAUSE));
        assert_eq!(ids(&outcomes.next(Shards::all(), now + PAUSE, true).unwrap()), [1, 2, 3]);
    }

    #[test]
    fn what_was_being_written_outlives_the_session() {
        let (mut outcomes, now) = (queue(3), Instant::now());
        drop(outcomes.next(Shards::all(), now, true));
        assert!(outcomes.next(Shards::all(), now, true).is_none(), "one batch at a time");
        outcomes.session_lost();
        assert_eq!(ids(&outcomes.next(Shards::all(), now, true).unwrap()), [1, 2, 3]);
    }

    #[test]
    fn few_wait_for_more_but_not_for_long() {
        let (mut outcomes, now) = (queue(1), Instant::now());
        let next = |outcomes: &mut Outcomes, at, urgent| {
            let batch = outcomes.next(Shards::all(), at, urgent).map(|batch| ids(&batch));
            outcomes.written();
            batch
        };
        assert_eq!(next(&mut outcomes, now, false), Some(vec![1]), "one that comes alone is written at once");
        outcomes.push(outcome(2, 1));
        outcomes.push(outcome(3, 1));
        assert_eq!(next(&mut outcomes, now, false), None);
        assert_eq!(outcomes.wake_at(now), Some(now + PACE));
        assert_eq!(next(&mut outcomes, now + PACE, false), Some(vec![2, 3]));
        outcomes.push(outcome(4, 1));
        assert_eq!(next(&mut outcomes, now + PACE, true), Some(vec![4]), "somebody waits for it");
        (0..250).for_each(|id| outcomes.push(outcome(id, 1)));
        assert_eq!(next(&mut outcomes, now + PACE, false).map(|batch| batch.len()), Some(250));
        assert_eq!(outcomes.wake_at(now + PACE), None);
    }

    #[test]
    fn only_what_this_session_owns_is_written() {
        let (mut outcomes, now) = (Outcomes::default(), Instant::now());
        (1..=4).for_each(|id| outcomes.push(outcome(id, i64::try_from(id).unwrap() % 2)));
        let odd: Shards = [1].into_iter().collect();
        assert_eq!(ids(&outcomes.next(odd, now, true).unwrap()), [1, 3]);
        outcomes.written();
        assert!(outcomes.next(odd, now, true).is_none());
        assert_eq!(ids(&outcomes.forget_others(odd)), [2, 4]);
        assert!(outcomes.is_empty());
    }
}
