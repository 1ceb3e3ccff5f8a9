//! How a delivery ended, until it is written.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::DbTime;
use crate::schedule::{Pending, Ticket};

/// A channel, as the log names it.
#[derive(Debug)]
pub struct ChannelName {
    /// Its name at the time.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
}

/// An attempt that left the worker, or was refused at its guard: one row of the log.
#[derive(Debug)]
pub struct Attempt {
    /// HTTP status or SMTP reply code.
    pub code: Option<i32>,
    /// What went wrong, sanitized.
    pub error: Option<String>,
    /// What it was answered, sanitized; of failures only.
    pub body: Option<String>,
    /// Milliseconds it took.
    pub duration_ms: i32,
    /// Whether its end was seen. Of one during which the worker ended it is only known that it was begun.
    pub seen: bool,
}

/// What becomes of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Delivered.
    Sent,
    /// To be tried again after this.
    Retry(Duration),
    /// Given up, and why.
    Dead(&'static str),
}

/// The outcome of one delivery, without its payload.
#[derive(Debug)]
pub struct Outcome {
    /// The delivery, as the schedule knows it.
    pub ticket: Ticket,
    /// The event.
    pub event_id: Option<Uuid>,
    /// Its type.
    pub event_type: String,
    /// Its project.
    pub project: Option<String>,
    /// The subscription that matched.
    pub subscription_id: Option<i64>,
    /// Whether a replay wrote it.
    pub replayed: bool,
    /// When the row is due: what it must still say, or this outcome is none of its business.
    pub due_at: DbTime,
    /// Attempts it says were made: likewise.
    pub attempts: i32,
    /// Whether this one is among them.
    pub counted: bool,
    /// The channel; `None` where it is gone.
    pub channel: Option<Arc<ChannelName>>,
    /// The attempt; `None` where none was made.
    pub attempt: Option<Attempt>,
    /// What becomes of the row.
    pub end: End,
    /// Why no attempt was made, beyond the reason.
    pub note: Option<String>,
}

impl Outcome {
    /// The outcome of an attempt at `row`, whose payload may be gone by now.
    pub fn of_attempt(
        row: Pending,
        ticket: Ticket,
        channel: Arc<ChannelName>,
        attempt: Attempt,
        end: End,
    ) -> Self {
        Self { ticket, channel: Some(channel), attempt: Some(attempt), ..Self::given_up(row, "", None) }
            .ending(end)
    }

    /// The outcome of a row that was not worth an attempt.
    pub fn given_up(row: Pending, reason: &'static str, note: Option<String>) -> Self {
        Self {
            ticket: row.ticket(),
            event_id: row.event_id,
            event_type: row.event_type,
            project: row.project,
            subscription_id: row.subscription_id,
            replayed: row.replayed,
            due_at: row.due_at,
            attempts: row.attempts,
            counted: row.counted,
            channel: None,
            attempt: None,
            end: End::Dead(reason),
            note,
        }
    }

    fn ending(self, end: End) -> Self {
        Self { end, ..self }
    }

    /// What the log says of it.
    pub fn status(&self) -> &'static str {
        match self.end {
            End::Sent => "sent",
            End::Retry(_) => "failed",
            End::Dead(_) => "dead",
        }
    }

    /// Attempts that the row does not yet say were made: this one, if it is one.
    pub fn made(&self) -> i32 {
        i32::from(self.attempt.is_some() && !self.counted)
    }

    /// Whether it tells how an attempt ended.
    pub fn is_seen(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.seen)
    }

    /// What went wrong, sanitized.
    pub fn error(&self) -> Option<&str> {
        self.attempt.as_ref().map_or(self.note.as_deref(), |attempt| attempt.error.as_deref())
    }

    /// Takes out the texts that came from outside: what is left can be written, whatever they held.
    /// Says whether there was anything to take out.
    pub fn strip(&mut self) -> bool {
        const UNFIT: &str = "the error could not be stored";
        let note = self.note.take().is_some();
        let Some(attempt) = &mut self.attempt else { return note };
        let body = attempt.body.take().is_some();
        let error = attempt.error.as_deref().is_some_and(|error| error != UNFIT);
        if error {
            attempt.error = Some(UNFIT.to_owned());
        }
        note || body || error
    }
}
