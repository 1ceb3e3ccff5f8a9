//! One attempt: from a row and its channel to what becomes of the row.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::OwnedSemaphorePermit;

use crate::backoff;
use crate::channel::{Answer, Courier, DIGEST, Delivery, Project, Verdict};
use crate::circuit::Health;
use crate::clock::DbTime;
use crate::directory::{Meaning, Route};
use crate::metrics;
use crate::schedule::{PROMPT, Pending, Ticket};
use crate::settle::{Attempt, End, Outcome};
use crate::trace::{self, Span, Step};

/// The type of a channel's test.
const TEST: &str = "test.dispatch";
/// How long somebody waits for what a test says.
const TEST_PATIENCE: Duration = Duration::from_secs(15);

/// What an attempt goes by, beside the row and its channel.
#[derive(Debug)]
pub struct Plan {
    /// The event's project, where it is registered.
    pub project: Option<Arc<Project>>,
    /// What its type means.
    pub meaning: Meaning,
    /// Where in a trace it belongs.
    pub step: Step,
    /// When it begins.
    pub now: DbTime,
}

/// A delivery that has come back.
#[derive(Debug)]
pub struct Landing {
    row: Pending,
    ticket: Ticket,
    route: Arc<Route>,
    /// `None` where it panicked.
    answer: Option<Answer>,
    step: Step,
    began: DbTime,
    took: Duration,
}

/// What a landing says.
#[derive(Debug)]
pub struct Verdicts {
    /// What to write.
    pub outcome: Outcome,
    /// What it says of the channel.
    pub health: Health,
    /// Why the channel should be disabled, if it should.
    pub disable: Option<String>,
    /// The attempt as a span, where it is exported.
    pub span: Option<Span>,
}

/// Why `row` is not worth an attempt, if it is not: the reason, and what else is to be said.
pub fn unfit(row: &Pending, route: &Route, now: DbTime) -> Option<(&'static str, Option<String>)> {
    let settings = match &route.channel.settings {
        Ok(settings) => settings,
        Err(problem) => return Some(("channel cannot be used", Some(problem.clone()))),
    };
    if row.event.is_none() || (row.event_id.is_none() && row.event_type != DIGEST) {
        return Some(("malformed", Some("its event is missing".to_owned())));
    }
    // Of no subscription and no replay: somebody's test, rather than an event that says so.
    let is_test = row.event_type == TEST && row.subscription_id.is_none() && !row.replayed;
    let max_age = if is_test { Some(TEST_PATIENCE) } else { settings.delivery.max_age };
    let expired = max_age.is_some_and(|max_age| now.since(row.created_at) > max_age);
    expired.then_some(("expired", None))
}

/// Seconds between attempts at `row`.
pub fn retry_schedule<'a>(row: &Pending, route: &'a Route) -> &'a [u32] {
    let own = route.channel.settings.as_ref().ok();
    let own = own.and_then(|settings| settings.delivery.retry_schedule.as_deref());
    // Somebody waits for what a test says: it is not tried again.
    match row.event_type.as_str() {
        TEST => &[],
        _ => own.unwrap_or(&backoff::DEFAULT_SCHEDULE),
    }
}

/// Makes the attempt. A panic in it is one failed attempt and nothing more.
pub async fn fly(
    courier: Arc<Courier>,
    route: Arc<Route>,
    mut row: Pending,
    plan: Plan,
    permit: OwnedSemaphorePermit,
) -> Landing {
    let (ticket, began) = (row.ticket(), Instant::now());
    let (step, now) = (plan.step, plan.now);
    let answer = match delivery(&mut row, plan) {
        None => None,
        Some(delivery) => {
            AssertUnwindSafe(courier.deliver(&route.channel, &delivery)).catch_unwind().await.ok()
        }
    };
    drop(permit);
    Landing { row, ticket, route, answer, step, began: now, took: began.elapsed() }
}

fn delivery(row: &mut Pending, plan: Plan) -> Option<Delivery> {
    let Plan { project, meaning, step, now } = plan;
    let event = row.event.take()?;
    // A project need not be registered: messages call it what the event did.
    let project = project.or_else(|| {
        row.project.as_ref().map(|slug| Arc::new(Project { slug: slug.clone(), name: None, url: None }))
    });
    Some(Delivery {
        id: row.id,
        event_id: row.event_id,
        event_type: row.event_type.clone(),
        severity: event.severity.or(meaning.severity),
        resolves: meaning.resolves,
        project,
        attempt: row.attempt(),
        occurred_at: event.occurred_at.unix_micros(),
        made_at: now.unix_micros(),
        payload: event.payload,
        held_back: row.held_back,
        held_for: row.held_for,
        traceparent: step.context,
    })
}

impl Landing {
    /// The delivery.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// What becomes of the row; `chance` is a random number of `0.0..1.0`.
    pub fn judge(self, now: DbTime, chance: f64) -> Verdicts {
        let attempt = self.row.attempt();
        let answer = self.answer.unwrap_or_else(|| Answer {
            verdict: Verdict::Retry { after: None },
            code: None,
            error: Some("internal error".to_owned()),
            body: None,
        });
        let health = match (&answer.verdict, answer.code) {
            (Verdict::Retry { .. }, None | Some(500..)) => Health::Fails,
            _ if self.took > PROMPT => Health::Lags,
            _ => Health::Answers,
        };
        let mut disable = None;
        let end = match answer.verdict {
            Verdict::Sent => End::Sent,
            Verdict::Retry { after } => {
                let schedule = retry_schedule(&self.row, &self.route);
                backoff::retry_delay(schedule, attempt, after, chance)
                    .map_or(End::Dead("retries exhausted"), End::Retry)
            }
            Verdict::Dead { disable: for_good } => {
                if for_good {
                    disable = Some(answer.error.clone().unwrap_or_else(|| "gone".to_owned()));
                }
                End::Dead("refused")
            }
        };
        let outcome = match end {
            End::Sent => "sent",
            End::Retry(_) => "failed",
            End::Dead(_) => "dead",
        };
        let since_commit = (end == End::Sent).then(|| now.since(self.row.created_at));
        metrics::attempt(self.route.name.kind, &self.row.event_type, outcome, self.took, since_commit);
        if end != End::Sent {
            tracing::warn!(
                channel = %self.route.channel.name,
                delivery = %self.row.id,
                attempt,
                code = answer.code,
                error = answer.error.as_deref(),
                trace_id = self.step.trace_id(),
                dead = matches!(end, End::Dead(_)),
                "delivery failed"
            );
        }
        let span = self.step.end(|| trace::Attempt {
            delivery: self.row.id,
            event: self.row.event_id,
            event_type: self.row.event_type.clone(),
            project: self.row.project.clone(),
            channel: Arc::clone(&self.route.name),
            number: attempt,
            outcome,
            code: answer.code,
            error: answer.error.as_deref().map(trace::cut),
            began: self.began,
            took: self.took,
        });
        let duration_ms = i32::try_from(self.took.as_millis()).unwrap_or(i32::MAX);
        let attempt =
            Attempt { code: answer.code, error: answer.error, body: answer.body, duration_ms, seen: true };
        let name = Arc::clone(&self.route.name);
        Verdicts {
            outcome: Outcome::of_attempt(self.row, self.ticket, name, attempt, end),
            health,
            disable,
            span,
        }
    }
}
