//! The statement trigger on `klaxon.event`: every way to emit ends here.

use std::collections::HashMap;
use std::rc::Rc;

use klaxon_channel::title::title;
use klaxon_model::payload::Payload as _;
use pgrx::memcxt::PgMemoryContexts;
use pgrx::prelude::*;

use crate::failure;
use crate::jsonb::JsonbPayload;
use crate::matcher::{self, Candidate, Matcher, Subscription};
use crate::setting::MAX_PAYLOAD_BYTES;
use crate::transition::{self, Event};
use crate::wakeup::{self, Signal};

mod direct;
mod notify;
mod outbox;
mod table;
pub mod write;
use outbox::{Delivery, Outbox};
use write::{Batch, Note};

/// AFTER INSERT, once a statement: matches all its events in one pass and writes what is to be sent.
#[pg_trigger]
pub fn match_events<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByRust>>, PgTriggerError> {
    let mut pass = Pass::begin();
    let relation = trigger.relation()?;
    let mut scratch = PgMemoryContexts::new("klaxon event");
    transition::for_each_event(trigger, &relation, |event| pass.event(&event, &mut scratch));
    pass.finish();
    Ok(None)
}

/// One run over a statement's events.
struct Pass {
    transaction_start: i64,
    now: i64,
    limit: usize,
    /// The matcher of the last event: most statements carry one type and project.
    last: Option<(String, Option<String>, Rc<Matcher>)>,
    cooldowns: write::Cooldowns,
    filter_errors: HashMap<i64, i64>,
    outbox: Option<Outbox>,
    batch: Batch,
}

impl Pass {
    #[allow(unsafe_code)]
    fn begin() -> Self {
        // SAFETY: both read the clock and this backend's state.
        let (transaction_start, now) =
            unsafe { (pg_sys::GetCurrentTransactionStartTimestamp(), pg_sys::GetCurrentTimestamp()) };
        Self {
            transaction_start,
            now,
            limit: usize::try_from(MAX_PAYLOAD_BYTES.get()).unwrap_or_default(),
            last: None,
            cooldowns: write::Cooldowns::default(),
            filter_errors: HashMap::new(),
            outbox: None,
            batch: Batch::default(),
        }
    }

    fn event(&mut self, event: &Event<'_>, scratch: &mut PgMemoryContexts) {
        // History being restored: its transaction was another one.
        if event.created_at != self.transaction_start {
            return;
        }
        if event.payload_bytes > self.limit {
            failure::raise(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("payload of {} bytes is over the limit of {}", event.payload_bytes, self.limit),
                Some(format!("The event is of type \"{}\".", event.kind)),
                "Send a reference instead, or raise klaxon.max_payload_bytes.",
            );
        }
        let matcher = self.matcher(event);
        if matcher.is_empty() {
            return;
        }
        self.judge(event, &matcher, scratch);
        self.batch.flush_if_full();
    }

    fn matcher(&mut self, event: &Event<'_>) -> Rc<Matcher> {
        match &self.last {
            Some((kind, project, matcher)) if kind == event.kind && project.as_deref() == event.project => {
                Rc::clone(matcher)
            }
            _ => {
                let matcher = matcher::of(event.kind, event.project);
                self.last =
                    Some((event.kind.to_owned(), event.project.map(str::to_owned), Rc::clone(&matcher)));
                matcher
            }
        }
    }

    #[allow(unsafe_code)]
    fn judge(&mut self, event: &Event<'_>, matcher: &Matcher, scratch: &mut PgMemoryContexts) {
        let candidate = Candidate { kind: event.kind, now: self.now };
        let mut hits: Vec<&Subscription> = Vec::new();
        let mut unknown: Vec<i64> = Vec::new();
        let mut task = None;
        let mut heading = None;
        // SAFETY: what is palloc'd in `scratch` (the detoasted payload) is used in this block only,
        // and the context is reset after it.
        unsafe {
            scratch.switch_to(|_| {
                let payload = JsonbPayload::new(event.payload);
                matcher.matches(&candidate, &payload, |s| hits.push(s), |s| unknown.push(s.id));
                if hits.iter().any(|s| s.cooldown_us > 0) {
                    task = payload.text("task_name");
                }
                if hits.iter().any(|s| s.in_app) {
                    heading = Some(title(event.kind, matcher.project_name.as_deref(), &payload));
                }
            });
            scratch.reset();
        }
        for subscription in unknown {
            *self.filter_errors.entry(subscription).or_default() += 1;
        }
        let task = write::window(task.as_deref().unwrap_or_default());
        for subscription in hits {
            self.hit(event, subscription, &task, heading.as_deref());
        }
    }

    fn hit(&mut self, event: &Event<'_>, subscription: &Subscription, task: &str, heading: Option<&str>) {
        if subscription.cooldown_us > 0
            && !subscription.digest
            && self.cooldowns.holds_back(subscription, task, self.now)
        {
            return;
        }
        let cooldown_task = (subscription.cooldown_us > 0 && !subscription.digest).then_some(task);
        for target in subscription.reachable() {
            let delivery = Delivery {
                event: event.id,
                kind: event.kind,
                project: event.project,
                subscription: subscription.id,
                channel: target.channel,
                cooldown_task,
            };
            if subscription.digest {
                self.batch.digest(&delivery);
            } else {
                self.outbox.get_or_insert_with(Outbox::open).insert(&delivery);
            }
        }
        if subscription.in_app
            && let (Some(principal), Some(heading)) = (&subscription.owner, heading)
        {
            self.batch.note(Note {
                event: event.id,
                kind: event.kind,
                project: event.project,
                subscription: subscription.id,
                principal,
                reason: if subscription.from_default { "default" } else { "subscribed" },
                title: heading,
            });
        }
    }

    fn finish(mut self) {
        self.batch.flush();
        self.cooldowns.record();
        write::filter_errors(&self.filter_errors);
        if let Some(outbox) = self.outbox {
            outbox.close();
            wakeup::at_commit(Signal::Outbox);
        }
        if self.batch.noted {
            wakeup::at_commit(Signal::Inbox);
        }
    }
}
