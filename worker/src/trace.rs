//! Traces: each attempt is a span of the trace in which its event was emitted, and is told to a webhook's
//! receiver as the parent of what that does.
//!
//! Nothing of it is stored. Which trace an attempt belongs to follows from its row, so that all attempts at a
//! delivery agree about it, whichever worker makes them and however long after.

mod export;
mod otlp;

use std::sync::Arc;
use std::time::Duration;

use klaxon_model::payload::{Payload as _, RawPayload};
use klaxon_model::traceparent::Traceparent;
use serde_json::value::RawValue;
use tokio::sync::mpsc::Sender;
use uuid::Uuid;

pub use self::export::{Options, headers};
use crate::clock::DbTime;
use crate::metrics;
use crate::schedule::Pending;
use crate::settle::ChannelName;

/// The payload's field.
const FIELD: &str = "traceparent";
/// Characters of an error that a span says.
const MESSAGE: usize = 200;

/// Where in a trace an event was emitted: its payload says, or the session did. What is no traceparent is not
/// there.
pub fn of_event(payload: &RawValue, session: Option<&str>) -> Option<Traceparent> {
    let own = payload.get().contains(FIELD).then(|| RawPayload::new(payload.get()).text(FIELD)).flatten();
    let read = |text: &str| text.parse().ok();
    own.as_deref().and_then(read).or_else(|| session.and_then(read))
}

/// What a span says of an error at most.
pub fn cut(error: &str) -> String {
    error.chars().take(MESSAGE).collect()
}

/// Who gives attempts their place in a trace, and has their spans exported where that is configured.
#[derive(Debug, Default)]
pub struct Tracer {
    spans: Option<Sender<Span>>,
}

/// An attempt's place in a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What its receiver is told: the attempt itself where it is a span, else what the event came with.
    pub context: Option<Traceparent>,
    /// The span it is a child of.
    parent: Option<u64>,
    /// Where in another trace its event was emitted.
    link: Option<Traceparent>,
    /// Whether it is a span that is exported.
    recorded: bool,
}

impl Step {
    /// The trace, as logs name it.
    pub fn trace_id(&self) -> Option<String> {
        self.context.map(|context| format!("{:032x}", context.trace_id))
    }

    /// The span it is, where it is exported; `describe` says what became of it.
    pub fn end(self, describe: impl FnOnce() -> Attempt) -> Option<Span> {
        let context = self.context.filter(|_| self.recorded)?;
        Some(Span { context, parent: self.parent, link: self.link, attempt: describe() })
    }
}

/// A span: an attempt and its place.
#[derive(Debug)]
pub struct Span {
    context: Traceparent,
    parent: Option<u64>,
    link: Option<Traceparent>,
    attempt: Attempt,
}

/// What a span says of its attempt: nothing that is sealed, neither where the channel leads nor what was sent
/// or answered.
#[derive(Debug)]
pub struct Attempt {
    /// The delivery.
    pub delivery: Uuid,
    /// The event; `None` for a digest.
    pub event: Option<Uuid>,
    /// Its type.
    pub event_type: String,
    /// Its project.
    pub project: Option<String>,
    /// The channel.
    pub channel: Arc<ChannelName>,
    /// Counts from 1.
    pub number: i32,
    /// `sent`, `failed` or `dead`.
    pub outcome: &'static str,
    /// HTTP status or SMTP reply code.
    pub code: Option<i32>,
    /// What went wrong, sanitized, as [`cut`] leaves it: thousands of spans may wait.
    pub error: Option<String>,
    /// When it began, by the database's clock.
    pub began: DbTime,
    /// How long it took.
    pub took: Duration,
}

impl Attempt {
    /// What went wrong, for others than those who read the log: a mail server's words may name people.
    fn problem(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        let said = match self.code {
            Some(code) if self.is_mail() => format!("SMTP {code}"),
            _ => error.clone(),
        };
        Some(said)
    }

    fn is_mail(&self) -> bool {
        self.channel.kind == "email"
    }
}

impl Tracer {
    /// The place of the attempt that is about to be made at `row`.
    pub fn step(&self, row: &Pending) -> Step {
        let given = row.event.as_ref().and_then(|event| event.traceparent);
        // A replay is nothing that the application's trace waited for, perhaps months ago.
        let (parent, link) = if row.replayed { (None, given) } else { (given, None) };
        if self.spans.is_none() {
            return Step { context: parent, ..Step::default() };
        }
        let context = match parent {
            Some(parent) => Traceparent { span_id: fastrand::u64(1..), ..parent },
            None => {
                // Of its own: one that all attempts at it know.
                let own = if row.replayed { row.id } else { row.event_id.unwrap_or(row.id) };
                Traceparent { trace_id: own.as_u128(), span_id: fastrand::u64(1..), sampled: true }
            }
        };
        let recorded = context.sampled && context.trace_id != 0;
        Step { context: Some(context), parent: parent.map(|parent| parent.span_id), link, recorded }
    }

    /// Has a span exported in its turn. Where the queue is full it is dropped, and counted: a delivery waits
    /// for no one who measures.
    pub fn export(&self, span: Span) {
        if let Some(spans) = &self.spans
            && spans.try_send(span).is_err()
        {
            metrics::spans("dropped", 1);
        }
    }
}

#[cfg(test)]
mod tests;
