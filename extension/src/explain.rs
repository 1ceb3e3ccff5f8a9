//! Who would hear of an event, who not, and why. Asks the same compiled matcher, so that it cannot
//! disagree with it; emits nothing.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

use crate::emit::write::{last_notified, window};
use crate::failure;
use crate::identity::{as_owner, is_admin, principal};
use crate::jsonb::{JsonbPayload, JsonbText};
use crate::matcher::{self, Candidate, Refusal, Subscription};
use crate::snapshot;

type Row = (i64, Option<String>, Option<String>, String, String);

/// Subscriptions that the matcher of a type and project has no business with.
const OTHERS: &str = "
    SELECT s.id, s.owner, c.name,
           CASE WHEN s.project IS DISTINCT FROM $3 AND s.project IS NOT NULL THEN pg_catalog.format('listens to project %s', s.project)
                ELSE pg_catalog.format('listens to %s', pg_catalog.array_to_string(s.events, ', ')) END
    FROM klaxon.subscription AS s
    LEFT JOIN klaxon.subscription_channel AS u ON u.subscription_id OPERATOR(pg_catalog.=) s.id
    LEFT JOIN klaxon.channel AS c ON c.id OPERATOR(pg_catalog.=) u.channel_id
    WHERE s.id OPERATOR(pg_catalog.<>) ALL ($1) AND ($2 IS NULL OR s.owner OPERATOR(pg_catalog.=) $2)
    ORDER BY c.id";

/// A row per subscription and channel: `match`, or `no` and the first reason against it.
// Written out: pgrx would call the argument `r#type`.
#[pg_extern(sql = r#"
CREATE FUNCTION klaxon.explain_event(type text, payload jsonb DEFAULT '{}', project text DEFAULT NULL)
RETURNS TABLE (subscription_id bigint, owner text, channel text, verdict text, reason text)
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
#[allow(clippy::type_complexity, unsafe_code)]
pub fn explain_event(
    kind: Option<&str>,
    payload: default!(Option<JsonbText>, "'{}'"),
    project: default!(Option<&str>, "NULL"),
) -> TableIterator<
    'static,
    (
        name!(subscription_id, i64),
        name!(owner, Option<String>),
        name!(channel, Option<String>),
        name!(verdict, String),
        name!(reason, String),
    ),
> {
    let Some(kind) = kind else {
        failure::raise(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            "type is null".into(),
            None,
            "Name one of the types in klaxon.event_type.",
        )
    };
    let visible_to = (!is_admin()).then(principal);
    let matcher = as_owner(|| matcher::of(kind, project));
    // SAFETY: reads the clock; the datum was made here and lives until the function returns.
    let (now, payload) = unsafe {
        let payload = payload.unwrap_or(JsonbText("{}".into()));
        let datum = payload.into_datum().expect("a jsonb");
        (pg_sys::GetCurrentTimestamp(), JsonbPayload::new(datum))
    };
    let candidate = Candidate { kind, now };
    let (mut rows, mut ids): (Vec<Row>, Vec<i64>) = Default::default();
    for (subscription, judged) in matcher.explain(&candidate, &payload) {
        ids.push(subscription.id);
        if visible_to.is_some() && subscription.owner != visible_to {
            continue;
        }
        let refusal = judged.err().map(reason).or_else(|| cooldown_left(subscription, &payload, now));
        let row = |channel: Option<&str>, obstacle: Option<&str>| {
            let reason = refusal.as_deref().or(obstacle);
            (
                subscription.id,
                subscription.owner.clone(),
                channel.map(str::to_owned),
                if reason.is_none() { "match" } else { "no" }.to_owned(),
                reason.unwrap_or_default().to_owned(),
            )
        };
        for target in &subscription.targets {
            rows.push(row(Some(&target.name), target.obstacle.as_deref()));
        }
        if subscription.targets.is_empty() {
            rows.push(row(None, (!subscription.in_app).then_some("no channel")));
        }
    }
    rows.extend(as_owner(|| others(ids, visible_to, project)));
    rows.sort_by_key(|row| row.0);
    TableIterator::new(rows)
}

/// A row for each channel of the subscriptions that are none of `ids`.
fn others(ids: Vec<i64>, visible_to: Option<String>, project: Option<&str>) -> Vec<Row> {
    snapshot::latest(|| {
        Spi::connect(|client| {
            client
                .select(OTHERS, None, &[ids.into(), visible_to.into(), project.into()])?
                .map(|row| {
                    let id = row.get::<i64>(1)?.unwrap_or_default();
                    let reason = row.get::<String>(4)?.unwrap_or_default();
                    Ok((id, row.get(2)?, row.get(3)?, "no".to_owned(), reason))
                })
                .collect::<spi::Result<Vec<Row>>>()
        })
    })
    .unwrap_or_else(|error| failure::internal(&error))
}

fn reason(refusal: Refusal) -> String {
    match refusal {
        Refusal::Obstacle(obstacle) => obstacle,
        Refusal::Muted(until) => match TimestampWithTimeZone::try_from(until) {
            Ok(until) => format!("muted until {until}"),
            Err(_) => "muted".into(),
        },
        Refusal::Filter(mismatch) => mismatch,
        Refusal::Unknown => "filter where: it raised an error".into(),
    }
}

fn cooldown_left(subscription: &Subscription, payload: &JsonbPayload, now: i64) -> Option<String> {
    use klaxon_model::payload::Payload as _;
    if subscription.cooldown_us == 0 || subscription.digest {
        return None;
    }
    let task = payload.text("task_name").unwrap_or_default();
    let until =
        as_owner(|| last_notified(subscription.id, &window(&task)))?.saturating_add(subscription.cooldown_us);
    // Rounded up: what is left is never 0 while something is.
    (until > now).then(|| format!("cooldown: {} s left", (until - now + 999_999) / 1_000_000))
}
