//! What a subscription may say, checked when it is written.

use klaxon_model::event_type;
use klaxon_model::filter::Filters;
use klaxon_model::glob::Glob;
use pgrx::AllocatedByRust;
use pgrx::prelude::*;

use crate::failure;
use crate::jsonb::JsonbText;
use crate::jsonpath::Predicate;
use crate::matcher;

/// BEFORE INSERT OR UPDATE on `klaxon.subscription` and `klaxon.default_subscription`, each row.
#[pg_trigger]
pub fn check_subscription<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, PgTriggerError> {
    let Some(new) = trigger.new() else { return Ok(None) };
    let row = new.into_owned();
    let events = row.get_by_name::<pgrx::Array<'_, String>>("events").ok().flatten();
    let events: Vec<Option<String>> = events.map(|array| array.iter().collect()).unwrap_or_default();
    // A dump's event types may be restored after its subscriptions, and a default outlives the types it names: its
    // copy hears of them no more than any other subscription.
    let is_taken_over = trigger.old().is_none() && (crate::channel::is_restored(&row) || is_copy(&row));
    check_events(&events, is_taken_over);
    if let Some(JsonbText(filters)) = row.get_by_name("filters").ok().flatten() {
        check_filters(&filters);
    }
    Ok(Some(row))
}

/// Whether it is a new member's, of a default. A default itself has no such column.
fn is_copy(row: &PgHeapTuple<'_, AllocatedByRust>) -> bool {
    matches!(row.get_by_name::<i64>("default_subscription_id"), Ok(Some(_)))
}

/// Raises where these are not names of event types and globs of them, one at least.
pub fn check_events(events: &[Option<String>], is_taken_over: bool) {
    if events.is_empty() {
        failure::invalid("events is empty".into(), "Name at least one event type, or a glob such as run.*.");
    }
    for event in events {
        let Some(event) = event else {
            failure::invalid("events holds a null".into(), "Each element is an event type or a glob.");
        };
        if event_type::is_glob(event) {
            if let Err(error) = Glob::new(event) {
                failure::invalid(
                    format!("events: {error}"),
                    "A glob is at most 200 characters of *, ?, [seq] and [!seq].",
                );
            }
        } else if !is_taken_over {
            matcher::check_type(event);
        }
    }
}

fn check_filters(text: &str) {
    let filters = Filters::parse(text).unwrap_or_else(|error| {
        failure::invalid(error.to_string(), "See the list of filters in the documentation.")
    });
    if let Some(path) = filters.where_path()
        && let Err(problem) = Predicate::parse(path)
    {
        failure::invalid(
            format!("filter where: {problem}"),
            "It is a jsonpath predicate, for instance '$.amount > 100'.",
        );
    }
}
