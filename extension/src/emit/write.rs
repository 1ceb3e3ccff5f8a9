//! What a statement's matches become beside deliveries: rows of digests and inboxes, many a statement.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pgrx::prelude::*;
use pgrx::spi::OwnedPreparedStatement;

use super::outbox::Delivery;
use crate::failure;
use crate::matcher::Subscription;

/// Rows gathered before they are inserted: bounds the memory of a statement that emits millions.
const BATCH: usize = 8192;

/// Due at once where the subscription is no digest any more: what was compiled may be older than what this reads.
const INSERT_DIGEST: &str = "
    WITH due AS MATERIALIZED (
        SELECT s.id, coalesce(
            klaxon.digest_due(s.digest_at, klaxon.known_timezone(s.digest_timezone), pg_catalog.now()), pg_catalog.now()
        ) AS at
        FROM (SELECT DISTINCT u.id FROM unnest($2) AS u (id)) AS u
        JOIN klaxon.subscription AS s ON s.id OPERATOR(pg_catalog.=) u.id
    )
    INSERT INTO klaxon.digest_item (event_id, subscription_id, channel_id, due_at)
    SELECT d.event_id, d.subscription_id, d.channel_id, s.at
    FROM unnest($1, $2, $3) AS d (event_id, subscription_id, channel_id)
    JOIN due AS s ON s.id OPERATOR(pg_catalog.=) d.subscription_id";
const INSERT_INBOX: &str = "
    INSERT INTO klaxon.inbox (event_id, event_type, project, subscription_id, principal, reason, title, data)
    SELECT n.event_id, n.event_type, n.project, n.subscription_id, n.principal, n.reason, n.title, e.payload
    FROM unnest($1, $2, $3, $4, $5, $6, $7)
        AS n (event_id, event_type, project, subscription_id, principal, reason, title)
    JOIN klaxon.event AS e ON e.id OPERATOR(pg_catalog.=) n.event_id";
const INSERT_HELD: &str = "
    INSERT INTO klaxon.held_back (subscription_id, task_name, events)
    SELECT * FROM unnest($1, $2, $3)";
const INSERT_FILTER_ERRORS: &str = "
    INSERT INTO klaxon.filter_error (subscription_id, events) SELECT * FROM unnest($1, $2)";
const NOTIFIED: &str = "
    SELECT notified_at FROM klaxon.cooldown
    WHERE subscription_id OPERATOR(pg_catalog.=) $1 AND task_name OPERATOR(pg_catalog.=) $2";

/// One inbox row to be.
pub struct Note<'a> {
    pub event: [u8; 16],
    pub kind: &'a str,
    pub project: Option<&'a str>,
    pub subscription: i64,
    pub principal: &'a str,
    pub reason: &'a str,
    pub title: &'a str,
}

/// Rows by column, as `unnest` takes them.
#[derive(Default)]
struct Rows {
    events: Vec<pgrx::Uuid>,
    kinds: Vec<String>,
    projects: Vec<Option<String>>,
    subscriptions: Vec<i64>,
    channels: Vec<i64>,
    principals: Vec<String>,
    reasons: Vec<String>,
    titles: Vec<String>,
}

/// What is gathered and not yet inserted.
#[derive(Default)]
pub struct Batch {
    digest: Rows,
    inbox: Rows,
    /// Whether anything went to an inbox.
    pub noted: bool,
}

impl Batch {
    pub fn digest(&mut self, delivery: &Delivery<'_>) {
        self.digest.events.push(pgrx::Uuid::from_bytes(delivery.event));
        self.digest.subscriptions.push(delivery.subscription);
        self.digest.channels.push(delivery.channel);
    }

    pub fn note(&mut self, note: Note<'_>) {
        let rows = &mut self.inbox;
        rows.events.push(pgrx::Uuid::from_bytes(note.event));
        rows.kinds.push(note.kind.to_owned());
        rows.projects.push(note.project.map(str::to_owned));
        rows.subscriptions.push(note.subscription);
        rows.principals.push(note.principal.to_owned());
        rows.reasons.push(note.reason.to_owned());
        rows.titles.push(note.title.to_owned());
        self.noted = true;
    }

    pub fn flush_if_full(&mut self) {
        if self.digest.events.len() + self.inbox.events.len() >= BATCH {
            self.flush();
        }
    }

    pub fn flush(&mut self) {
        if !self.digest.events.is_empty() {
            let rows = std::mem::take(&mut self.digest);
            run(INSERT_DIGEST, &[rows.events.into(), rows.subscriptions.into(), rows.channels.into()]);
        }
        if !self.inbox.events.is_empty() {
            let rows = std::mem::take(&mut self.inbox);
            run(
                INSERT_INBOX,
                &[
                    rows.events.into(),
                    rows.kinds.into(),
                    rows.projects.into(),
                    rows.subscriptions.into(),
                    rows.principals.into(),
                    rows.reasons.into(),
                    rows.titles.into(),
                ],
            );
        }
    }
}

/// Bytes of a task's name that an index takes.
const WINDOW: usize = 500;

/// What a task's cooldown is known by: its name, or a hash of one that no index would take.
pub fn window(task: &str) -> Cow<'_, str> {
    use std::fmt::Write as _;
    if task.len() <= WINDOW {
        return task.into();
    }
    klaxon_model::audit::body_hash(task)
        .iter()
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
        .into()
}

/// The first of the two steps in which a cooldown is settled: what is inside a committed window is
/// held back here, and of one statement's events the first alone goes on. What passes is
/// adjudicated by the worker.
#[derive(Default)]
pub struct Cooldowns {
    windows: HashMap<(i64, String), bool>,
    held: HashMap<(i64, String), i64>,
    passed: HashSet<(i64, String)>,
}

impl Cooldowns {
    pub fn holds_back(&mut self, subscription: &Subscription, task: &str, now: i64) -> bool {
        let key = (subscription.id, task.to_owned());
        let inside = *self.windows.entry(key.clone()).or_insert_with(|| {
            last_notified(subscription.id, task)
                .is_some_and(|at| now < at.saturating_add(subscription.cooldown_us))
        });
        if inside || !self.passed.insert(key.clone()) {
            *self.held.entry(key).or_default() += 1;
            return true;
        }
        false
    }

    pub fn record(self) {
        if self.held.is_empty() {
            return;
        }
        let (keys, counts): (Vec<_>, Vec<i64>) = self.held.into_iter().unzip();
        let (subscriptions, tasks): (Vec<i64>, Vec<String>) = keys.into_iter().unzip();
        run(INSERT_HELD, &[subscriptions.into(), tasks.into(), counts.into()]);
    }
}

/// When a subscription last notified about a task, in microseconds since 2000-01-01.
pub fn last_notified(subscription: i64, task: &str) -> Option<i64> {
    Spi::get_one_with_args::<pgrx::datum::TimestampWithTimeZone>(
        NOTIFIED,
        &[subscription.into(), task.into()],
    )
    .or_else(|error| match error {
        spi::Error::InvalidPosition => Ok(None),
        other => Err(other),
    })
    .unwrap_or_else(|error| failure::internal(&error))
    .map(i64::from)
}

/// Counts the events whose `where` raised an error, for `klaxon.status()`.
pub fn filter_errors(counts: &HashMap<i64, i64>) {
    if counts.is_empty() {
        return;
    }
    let (subscriptions, events): (Vec<i64>, Vec<i64>) = counts.iter().map(|(s, n)| (*s, *n)).unzip();
    run(INSERT_FILTER_ERRORS, &[subscriptions.into(), events.into()]);
}

thread_local! {
    static PLANS: RefCell<HashMap<&'static str, Rc<OwnedPreparedStatement>>> = RefCell::default();
}

/// Runs a statement, planned once a backend.
fn run(query: &'static str, arguments: &[pgrx::datum::DatumWithOid<'_>]) {
    Spi::connect_mut(|client| -> spi::Result<()> {
        // Not borrowed while it runs: a trigger on these tables may emit in its turn.
        let plan = match PLANS.with_borrow(|plans| plans.get(query).cloned()) {
            Some(plan) => plan,
            None => {
                let types: Vec<PgOid> = arguments.iter().map(|a| PgOid::from(a.oid())).collect();
                let plan = Rc::new(client.prepare_mut(query, &types)?.keep());
                PLANS.with_borrow_mut(|plans| plans.insert(query, Rc::clone(&plan)));
                plan
            }
        };
        client.update(&*plan, None, arguments).map(drop)
    })
    .unwrap_or_else(|error| failure::internal(&error));
}
