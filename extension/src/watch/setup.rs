//! The functions that set a watch up and end it.

use pgrx::PgRelation;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

use super::check::{self, checked_target};
use super::name_of;
use crate::failure;
use crate::identity::{as_owner, current_role, role_name};
use crate::jsonb::JsonbText;
use crate::subtransaction::attempt;

const CREATE: &str = "SELECT klaxon.create_watcher($1, $2::pg_catalog.regclass, $3, $4, $5, $6, $7, $8)";

/// Events from any table.
// Written out: its arguments have the names and defaults that are documented.
#[pg_extern(sql = r#"
CREATE FUNCTION klaxon.watch(target regclass, event text, condition text DEFAULT NULL, payload text DEFAULT NULL, project text DEFAULT NULL)
RETURNS bigint VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
pub fn watch(
    target: Option<pg_sys::Oid>,
    event: Option<&str>,
    condition: Option<&str>,
    payload: Option<&str>,
    project: Option<&str>,
) -> i64 {
    let relation = checked_target(target, false);
    let event = event.unwrap_or_else(|| check::null("event", "Name one of the types in klaxon.event_type."));
    as_owner(|| crate::matcher::check_type(event));
    let name = name_of(&relation);
    check::expression("condition", condition, "boolean", &name);
    check::expression("payload", payload, "jsonb", &name);
    check::expression("project", project, "text", &name);
    create(&relation, "custom", [Some(event), condition, payload, project], None)
}

/// `run.*` and what follows from runs, from a table of them.
#[pg_extern(sql = r#"
CREATE FUNCTION klaxon.watch_runs(target regclass, columns jsonb DEFAULT '{}')
RETURNS bigint VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
pub fn watch_runs(target: Option<pg_sys::Oid>, columns: Option<JsonbText>) -> i64 {
    create(&checked_target(target, false), "runs", [None; 4], columns)
}

/// `task.*` from a table of tasks.
#[pg_extern(sql = r#"
CREATE FUNCTION klaxon.watch_tasks(target regclass, columns jsonb DEFAULT '{}')
RETURNS bigint VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
pub fn watch_tasks(target: Option<pg_sys::Oid>, columns: Option<JsonbText>) -> i64 {
    create(&checked_target(target, false), "tasks", [None; 4], columns)
}

/// `agent.*` from a table of agents.
#[pg_extern(sql = r#"
CREATE FUNCTION klaxon.watch_agents(target regclass, columns jsonb DEFAULT '{}')
RETURNS bigint VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
pub fn watch_agents(target: Option<pg_sys::Oid>, columns: Option<JsonbText>) -> i64 {
    create(&checked_target(target, false), "agents", [None; 4], columns)
}

/// Ends a table's watchers; returns how many there were.
#[pg_extern(sql = r#"
CREATE FUNCTION klaxon.unwatch(target regclass)
RETURNS bigint VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
pub fn unwatch(target: Option<pg_sys::Oid>) -> i64 {
    let relation = checked_target(target, true);
    as_owner(|| {
        Spi::get_one_with_args(
            "SELECT klaxon.drop_watchers($1::pg_catalog.regclass)",
            &[relation.oid().into()],
        )
    })
    .unwrap_or_else(|error| failure::internal(&error))
    .unwrap_or_default()
}

fn create(relation: &PgRelation, kind: &str, said: [Option<&str>; 4], columns: Option<JsonbText>) -> i64 {
    let by = role_name(current_role());
    let [event, condition, payload, project] = said;
    let arguments: [DatumWithOid<'_>; 8] = [
        by.into(),
        relation.oid().into(),
        kind.into(),
        event.into(),
        condition.into(),
        payload.into(),
        project.into(),
        columns.into(),
    ];
    // Raised again by ourselves: what passes through from SQL below would carry a trace.
    attempt(|| as_owner(|| Spi::get_one_with_args(CREATE, &arguments)))
        .unwrap_or_else(|caught| caught.raise())
        .unwrap_or_else(|error| failure::internal(&error))
        .unwrap_or_default()
}
