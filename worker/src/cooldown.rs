//! Cooldowns: of what waits for one, what may be sent.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::schedule::Pending;
use crate::statement::Statements;

/// Deliveries decided on at once.
const BATCH: usize = 500;
/// How long to leave the database alone after it decided nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// A delivery that may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Events held back before it.
    pub held_back: i64,
    /// How long those were collected.
    pub held_for: Option<Duration>,
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
    waiting: &[(i64, String, Uuid)],
) -> Result<Decided, Error> {
    let subscriptions: Vec<i64> = waiting.iter().map(|(subscription, _, _)| *subscription).collect();
    let tasks: Vec<&str> = waiting.iter().map(|(_, task, _)| task.as_str()).collect();
    let deliveries: Vec<Uuid> = waiting.iter().map(|(_, _, delivery)| *delivery).collect();
    client.execute(&statements.cooldown, &[&subscriptions, &tasks]).await?;
    let rows = client.query(&statements.passed, &[&deliveries]).await?;
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

    /// What to decide next: subscription, task and delivery.
    pub fn next(&mut self, now: Instant) -> Option<Vec<(i64, String, Uuid)>> {
        if self.rows.is_empty() || !self.asked.is_empty() || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.not_before = None;
        self.asked = self.rows.drain(..self.rows.len().min(BATCH)).collect();
        let key = |row: &Pending| {
            (row.subscription_id.unwrap_or_default(), row.cooldown_task.clone().unwrap_or_default(), row.id)
        };
        Some(self.asked.iter().map(key).collect())
    }

    /// It was decided: what may be sent, with what it is to tell, and what was held back. The rest goes
    /// on waiting.
    pub fn decided(&mut self, decided: &Decided) -> (Vec<Pending>, Vec<Pending>) {
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
