//! A batch of outcomes as the arrays its statements take: one array a column.

use std::time::Duration;

use uuid::Uuid;

use super::outcome::{End, Outcome};
use crate::clock::DbTime;

/// Which rows a statement is about: each as it was read, and no other.
#[derive(Debug, Default)]
pub struct Rows {
    pub ids: Vec<Uuid>,
    pub channels: Vec<i64>,
    pub due: Vec<DbTime>,
    pub attempts: Vec<i32>,
}

impl Rows {
    fn push(&mut self, outcome: &Outcome) {
        self.ids.push(outcome.ticket.id);
        self.channels.push(outcome.ticket.channel_id);
        self.due.push(outcome.due_at);
        self.attempts.push(outcome.attempts);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// What `unsent.sql` takes beside the rows to be tried again.
#[derive(Debug, Default)]
pub struct Failed<'a> {
    pub rows: Rows,
    pub delays: Vec<i64>,
    pub errors: Vec<Option<&'a str>>,
    pub made: Vec<i32>,
}

/// What it takes beside the rows that are given up.
#[derive(Debug, Default)]
pub struct Dead<'a> {
    pub rows: Rows,
    pub made: Vec<i32>,
    pub errors: Vec<Option<&'a str>>,
    pub reasons: Vec<&'static str>,
}

/// A batch, sorted by what becomes of its rows.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    pub sent: Rows,
    pub failed: Failed<'a>,
    pub dead: Dead<'a>,
}

impl<'a> Batch<'a> {
    /// Sorts the outcomes.
    pub fn new(outcomes: &'a [Outcome]) -> Self {
        let mut batch = Self::default();
        for outcome in outcomes {
            match outcome.end {
                End::Sent => batch.sent.push(outcome),
                End::Retry(delay) => {
                    batch.failed.rows.push(outcome);
                    batch.failed.delays.push(microseconds(delay));
                    batch.failed.errors.push(outcome.error());
                    batch.failed.made.push(outcome.made());
                }
                End::Dead(reason) => {
                    batch.dead.rows.push(outcome);
                    batch.dead.made.push(outcome.made());
                    batch.dead.errors.push(outcome.error());
                    batch.dead.reasons.push(reason);
                }
            }
        }
        batch
    }
}

/// As Postgres takes a span.
pub fn microseconds(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
