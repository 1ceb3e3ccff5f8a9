//! Once more: dead letters back to the outbox, and past events to a channel again.

use klaxon_model::event_type;
use klaxon_model::glob::Glob;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

use crate::failure;
use crate::identity::{as_owner, is_admin, principal};
use crate::subscription;
use crate::subtransaction::attempt;
use crate::wakeup::{self, Signal};

const EDITABLE: &str = "
    SELECT c.id FROM klaxon.channel AS c
    WHERE ($1 IS NULL OR c.name OPERATOR(pg_catalog.=) $1)
      AND ($2 OR c.owner OPERATOR(pg_catalog.=) $3 OR klaxon.is_project_admin(c.project, $3))";
const DEAD: &str = "
    FROM klaxon.dead_letter
    WHERE channel_id OPERATOR(pg_catalog.=) ANY ($1)
      AND ($2 IS NULL OR dead_at OPERATOR(pg_catalog.>=) $2)
      AND ($3 IS NULL OR id OPERATOR(pg_catalog.=) $3)";
const REVIVE: &str = "
    revived AS (
        INSERT INTO klaxon.outbox (id, event_id, event_type, project, subscription_id, channel_id, created_at, attempts, shard, replayed, last_error, held_back, held_for)
        SELECT id, event_id, event_type, project, subscription_id, channel_id, created_at, attempts,
               pg_catalog.mod(channel_id, 64), replayed, last_error, held_back, held_for
        FROM chosen
        RETURNING id
    )
    SELECT pg_catalog.count(*) FROM revived";
const CHOOSE: &str = "
    FROM klaxon.event AS e
    WHERE e.occurred_at OPERATOR(pg_catalog.>=) $2 AND e.occurred_at OPERATOR(pg_catalog.<=) $3
      AND ($4 IS NULL AND e.type OPERATOR(pg_catalog.<>) ALL (ARRAY['channel.disabled', 'test.dispatch'])
           OR e.type OPERATOR(pg_catalog.=) ANY ($4))
      AND EXISTS (
          SELECT FROM klaxon.channel AS c WHERE c.id OPERATOR(pg_catalog.=) $1
          AND (c.project IS NULL OR c.project OPERATOR(pg_catalog.=) e.project)
          AND (c.owner IS NULL OR klaxon.is_member(e.project, c.owner))
      )";

/// Puts dead letters of channels one may edit back to the outbox; returns how many. With `dry_run` only
/// counts them.
#[pg_extern(volatile)]
pub fn retry_dead(
    channel: default!(Option<&str>, "NULL"),
    since: default!(Option<TimestampWithTimeZone>, "NULL"),
    delivery_id: default!(Option<pgrx::Uuid>, "NULL"),
    dry_run: default!(Option<bool>, "false"),
) -> i64 {
    let dry_run = given("dry_run", dry_run);
    let channels = editable(channel);
    if let (Some(name), true) = (channel, channels.is_empty()) {
        unknown(name);
    }
    let query = match dry_run {
        true => format!("SELECT pg_catalog.count(*) {DEAD}"),
        false => format!("WITH chosen AS (DELETE {DEAD} RETURNING *), {REVIVE}"),
    };
    let revived = as_owner(|| count(&query, &[channels.into(), since.into(), delivery_id.into()]));
    if dry_run {
        return revived;
    }
    if revived > 0 {
        wakeup::at_commit(Signal::Outbox);
    }
    revived
}

/// Sends past events to a channel again, each as a new delivery; with `dry_run` only counts them.
#[pg_extern(volatile)]
pub fn replay(
    channel: Option<&str>,
    since: Option<TimestampWithTimeZone>,
    until: default!(Option<TimestampWithTimeZone>, "now()"),
    events: default!(Option<Vec<Option<String>>>, "NULL"),
    dry_run: default!(Option<bool>, "true"),
) -> i64 {
    let (channel, since) = (given("channel", channel), given("since", since));
    let (until, dry_run) = (given("until", until), given("dry_run", dry_run));
    let events = events.map(types);
    let id = the_one(channel);
    let arguments = |events: Option<Vec<String>>| -> [pgrx::datum::DatumWithOid<'static>; 4] {
        [id.into(), since.into(), until.into(), events.into()]
    };
    if dry_run {
        return as_owner(|| count(&format!("SELECT pg_catalog.count(*) {CHOOSE}"), &arguments(events)));
    }
    let replayed = as_owner(|| {
        count(
            &format!(
                "WITH replayed AS (
                    INSERT INTO klaxon.outbox (id, event_id, event_type, project, channel_id, shard, replayed)
                    SELECT klaxon.uuid_v7(), e.id, e.type, e.project, $1, pg_catalog.mod($1, 64), true {CHOOSE}
                    ORDER BY e.id
                    RETURNING id
                 ) SELECT pg_catalog.count(*) FROM replayed"
            ),
            &arguments(events),
        )
    });
    if replayed > 0 {
        wakeup::at_commit(Signal::Outbox);
    }
    replayed
}

/// The types that names and globs of types mean. A test of a channel is nobody's to hear of: only its name means it.
fn types(events: Vec<Option<String>>) -> Vec<String> {
    subscription::check_events(&events, false);
    let (globs, mut types): (Vec<String>, Vec<String>) =
        events.into_iter().flatten().partition(|event| event_type::is_glob(event));
    if !globs.is_empty() {
        let globs: Vec<Glob> = globs.iter().filter_map(|glob| Glob::new(glob).ok()).collect();
        let meant = |name: &String| name != "test.dispatch" && globs.iter().any(|glob| glob.is_match(name));
        let known = Spi::connect(|client| {
            client
                .select("SELECT name FROM klaxon.event_type", None, &[])?
                .map(|row| row.get::<String>(1).map(Option::unwrap_or_default))
                .collect::<spi::Result<Vec<String>>>()
        });
        types.extend(known.unwrap_or_else(|error| failure::internal(&error)).into_iter().filter(meant));
    }
    types
}

/// Has a channel that the caller may edit tested; returns the delivery's id.
#[pg_extern(volatile)]
pub fn request_channel_test(channel: Option<&str>) -> pgrx::Uuid {
    let channel = given("channel", channel);
    let id = the_one(channel);
    let by = principal();
    let delivery = attempt(|| {
        as_owner(|| {
            Spi::get_one_with_args::<pgrx::Uuid>(
                "SELECT klaxon.create_channel_test($1, $2)",
                &[id.into(), by.as_str().into()],
            )
        })
    })
    .unwrap_or_else(|caught| caught.raise())
    .unwrap_or_else(|error| failure::internal(&error));
    wakeup::at_commit(Signal::Outbox);
    delivery.expect("a test has a delivery")
}

/// The one channel of that name that the caller may edit.
fn the_one(channel: &str) -> i64 {
    let channels = editable(Some(channel));
    match channels[..] {
        [id] => id,
        [] => unknown(channel),
        _ => failure::invalid(
            format!("channel \"{channel}\" is the name of {} channels", channels.len()),
            "Rename the one you mean.",
        ),
    }
}

/// Channels of that name, or all, that the caller may edit; asked with the caller's own rights.
fn editable(name: Option<&str>) -> Vec<i64> {
    let (admin, who) = (is_admin(), principal());
    Spi::connect(|client| {
        client
            .select(EDITABLE, None, &[name.into(), admin.into(), who.into()])?
            .map(|row| row.get::<i64>(1).map(Option::unwrap_or_default))
            .collect::<spi::Result<Vec<i64>>>()
    })
    .unwrap_or_else(|error| failure::internal(&error))
}

fn given<T>(name: &str, value: Option<T>) -> T {
    value.unwrap_or_else(|| {
        failure::raise(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("{name} is null"),
            None,
            "Leave an argument out to take its default.",
        )
    })
}

fn count(query: &str, arguments: &[pgrx::datum::DatumWithOid<'_>]) -> i64 {
    Spi::connect_mut(|client| client.update(query, None, arguments)?.first().get_one::<i64>())
        .unwrap_or_else(|error| failure::internal(&error))
        .unwrap_or_default()
}

fn unknown(name: &str) -> ! {
    failure::raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("no channel \"{name}\" that you may edit"),
        None,
        "SELECT name, project, owner FROM klaxon.channel shows those you see.",
    )
}
