//! Cooldowns: of what waits for one, what may be sent.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::clock::DbTime;
use crate::schedule::Pending;
use crate::statement::Statements;

/// Deliveries decided on at once.
const BATCH: usize = 500;
/// How long to leave the database alone after it could not decide.
const PAUSE: Duration = Duration::from_secs(1);
/// The same where somebody else decides on all that was asked about.
const TURN: Duration = Duration::from_millis(50);

/// A delivery that may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Events held back before it.
    pub held_back: i64,
    /// How long those were collected.
    pub held_for: Option<Duration>,
}

/// A delivery to decide on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The subscription whose cooldown it waits for.
    pub subscription: i64,
    /// The task, as in `outbox.cooldown_task`.
    pub task: String,
    /// The delivery.
    pub delivery: Uuid,
    /// Where it goes.
    pub channel: i64,
    /// When it is due.
    pub due_at: DbTime,
}

/// What is known of each delivery that was asked about: that it may be sent, or (`None`) that it is
/// not decided yet. One that is missing was held back, and is gone.
pub type Decided = HashMap<Uuid, Option<Passed>>;

/// Settles the cooldowns of these subscriptions and tasks, and says what became of these deliveries.
///
/// # Errors
///
/// Nothing is known of them then, and asking again does no harm.
pub async fn settle(
    client: &Client,
    statements: &Statements,
    waiting: &[Question],
) -> Result<Decided, Error> {
    let subscriptions: Vec<i64> = waiting.iter().map(|question| question.subscription).collect();
    let tasks: Vec<&str> = waiting.iter().map(|question| question.task.as_str()).collect();
    let deliveries: Vec<Uuid> = waiting.iter().map(|question| question.delivery).collect();
    let channels: Vec<i64> = waiting.iter().map(|question| question.channel).collect();
    let due_times: Vec<DbTime> = waiting.iter().map(|question| question.due_at).collect();
    client.execute(&statements.cooldown, &[&subscriptions, &tasks]).await?;
    let rows = client.query(&statements.passed, &[&deliveries, &channels, &due_times]).await?;
    let decided = rows.iter().map(|row| {
        let held_for: Option<i64> = row.try_get("held_for")?;
        let held_for = held_for.and_then(|micros| u64::try_from(micros).ok()).map(Duration::from_micros);
        let passed = Passed { held_back: row.try_get("held_back")?, held_for };
        Ok((row.try_get("id")?, row.try_get::<_, bool>("passed")?.then_some(passed)))
    });
    decided.collect()
}

/// Deliveries that wait for a decision: neither queued nor sent, and in flight for the schedule, whose
/// bounds on memory are theirs.
#[derive(Debug, Default)]
pub struct Waiting {
    rows: VecDeque<Pending>,
    /// What is being decided.
    asked: Vec<Pending>,
    not_before: Option<Instant>,
}

impl Waiting {
    /// Takes in a delivery.
    pub fn push(&mut self, row: Pending) {
        self.rows.push_back(row);
    }

    /// When [`Self::next`] may have something that it has not now.
    pub fn wake_at(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.rows.is_empty())
    }

    /// What to decide next.
    pub fn next(&mut self, now: Instant) -> Option<Vec<Question>> {
        if self.rows.is_empty() || !self.asked.is_empty() || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.not_before = None;
        self.asked = self.rows.drain(..self.rows.len().min(BATCH)).collect();
        let question = |row: &Pending| Question {
            subscription: row.subscription_id.unwrap_or_default(),
            task: row.cooldown_task.clone().unwrap_or_default(),
            delivery: row.id,
            channel: row.channel_id,
            due_at: row.due_at,
        };
        Some(self.asked.iter().map(question).collect())
    }

    /// It was decided: what may be sent, with what it is to tell, and what was held back. The rest goes
    /// on waiting, behind the others.
    pub fn decided(&mut self, decided: &Decided, now: Instant) -> (Vec<Pending>, Vec<Pending>) {
        let (mut passed, mut held) = (Vec::new(), Vec::new());
        for mut row in std::mem::take(&mut self.asked) {
            match decided.get(&row.id) {
                None => held.push(row),
                Some(None) => self.rows.push_back(row),
                Some(Some(told)) => {
                    row.cooldown_task = None;
                    (row.held_back, row.held_for) = (told.held_back, told.held_for);
                    passed.push(row);
                }
            }
        }
        if passed.is_empty() && held.is_empty() {
            self.not_before = Some(now + TURN);
        }
        (passed, held)
    }

    /// Nothing was decided.
    pub fn undecided(&mut self, now: Instant) {
        for row in std::mem::take(&mut self.asked).into_iter().rev() {
            self.rows.push_front(row);
        }
        self.not_before = Some(now + PAUSE);
    }

    /// The session is lost: gives back all of it, for the next to read again.
    pub fn clear(&mut self) -> Vec<Pending> {
        let mut all = std::mem::take(&mut self.asked);
        all.extend(std::mem::take(&mut self.rows));
        self.not_before = None;
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u128, task: &str) -> Pending {
        let at = DbTime::from_unix_micros(0);
        Pending {
            id: Uuid::from_u128(id),
            event_id: Some(Uuid::from_u128(id)),
            subscription_id: Some(7),
            channel_id: 1,
            due_at: at,
            created_at: at,
            attempts: 0,
            interrupted: false,
            counted: false,
            replayed: false,
            event_type: "task.failed".to_owned(),
            project: None,
            cooldown_task: Some(task.to_owned()),
            held_back: 0,
            held_for: None,
            event: None,
        }
    }

    fn ids(rows: &[Pending]) -> Vec<u128> {
        rows.iter().map(|row| row.id.as_u128()).collect()
    }

    #[test]
    fn what_passes_tells_what_was_held_back_and_what_is_undecided_is_asked_again() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        (1..=3).for_each(|id| waiting.push(row(id, "mail")));
        let asked = waiting.next(now).unwrap();
        let question = Question {
            subscription: 7,
            task: "mail".to_owned(),
            delivery: Uuid::from_u128(1),
            channel: 1,
            due_at: DbTime::from_unix_micros(0),
        };
        assert_eq!(asked[0], question);
        assert!(waiting.next(now).is_none(), "one question at a time");
        let told = Passed { held_back: 41, held_for: Some(Duration::from_secs(300)) };
        let decided = Decided::from([(Uuid::from_u128(1), Some(told)), (Uuid::from_u128(3), None)]);
        let (passed, held) = waiting.decided(&decided, now);
        assert_eq!((ids(&passed), ids(&held)), (vec![1], vec![2]));
        assert_eq!(
            (passed[0].held_back, passed[0].held_for, &passed[0].cooldown_task),
            (41, told.held_for, &None)
        );
        assert_eq!(waiting.next(now).unwrap()[0].delivery.as_u128(), 3);
    }

    #[test]
    fn a_database_that_decides_nothing_is_left_alone_for_a_while() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        (1..=2).for_each(|id| waiting.push(row(id, "")));
        waiting.next(now);
        waiting.undecided(now);
        assert_eq!((waiting.next(now), waiting.wake_at()), (None, Some(now + PAUSE)));
        assert_eq!(waiting.next(now + PAUSE).map(|asked| asked.len()), Some(2));
        assert_eq!(ids(&waiting.clear()), [1, 2], "a session that is lost leaves nothing behind");
        assert!(waiting.next(now + PAUSE).is_none());
    }

    #[test]
    fn what_somebody_else_decides_on_is_asked_again_after_a_moment() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.push(row(1, "mail"));
        waiting.next(now);
        waiting.decided(&Decided::from([(Uuid::from_u128(1), None)]), now);
        assert_eq!((waiting.next(now), waiting.wake_at()), (None, Some(now + TURN)));
        assert_eq!(waiting.next(now + TURN).map(|asked| asked.len()), Some(1));
    }

    #[test]
    fn a_flood_is_decided_on_in_batches() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        (0..1_200).for_each(|id| waiting.push(row(id, "mail")));
        for expected in [500, 500, 200] {
            assert_eq!(waiting.next(now).map(|asked| asked.len()), Some(expected));
            waiting.decided(&Decided::new(), now);
        }
        assert!(waiting.next(now).is_none());
    }
}
