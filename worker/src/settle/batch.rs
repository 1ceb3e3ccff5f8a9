//! A batch of outcomes as the arrays its statements take: one array a column.

use uuid::Uuid;

use super::outcome::{End, Outcome};

/// Arguments of `sent.sql`.
#[derive(Debug, Default)]
pub struct Sent {
    pub ids: Vec<Uuid>,
    pub attempts: Vec<i32>,
}

/// Arguments of `failed.sql`.
#[derive(Debug, Default)]
pub struct Failed<'a> {
    pub ids: Vec<Uuid>,
    pub attempts: Vec<i32>,
    pub delays: Vec<i64>,
    pub errors: Vec<Option<&'a str>>,
}

/// Arguments of `dead.sql`.
#[derive(Debug, Default)]
pub struct Dead<'a> {
    pub ids: Vec<Uuid>,
    pub attempts: Vec<i32>,
    pub attempted: Vec<bool>,
    pub errors: Vec<Option<&'a str>>,
    pub reasons: Vec<&'static str>,
}

/// A batch, sorted by what becomes of its rows.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    pub sent: Sent,
    pub failed: Failed<'a>,
    pub dead: Dead<'a>,
}

impl<'a> Batch<'a> {
    /// Sorts the outcomes.
    pub fn new(outcomes: &'a [Outcome]) -> Self {
        let mut batch = Self::default();
        for outcome in outcomes {
            let (id, attempts) = (outcome.ticket.id, outcome.attempts);
            match outcome.end {
                End::Sent => {
                    batch.sent.ids.push(id);
                    batch.sent.attempts.push(attempts);
                }
                End::Retry(delay) => {
                    batch.failed.ids.push(id);
                    batch.failed.attempts.push(attempts);
                    batch.failed.delays.push(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX));
                    batch.failed.errors.push(outcome.error());
                }
                End::Dead(reason) => {
                    batch.dead.ids.push(id);
                    batch.dead.attempts.push(attempts);
                    batch.dead.attempted.push(outcome.attempt.is_some());
                    batch.dead.errors.push(outcome.error());
                    batch.dead.reasons.push(reason);
                }
            }
        }
        batch
    }
}
