//! What may be watched, and what may be said of it.

use std::ffi::CString;

use pgrx::PgRelation;
use pgrx::prelude::*;

use crate::failure;
use crate::identity::{current_role, is_admin, restricted};
use crate::subtransaction::attempt;

/// The table, where the caller may have a trigger on it and it can have one. An administrator of
/// klaxon has no right to other people's tables by that: it may only end their watchers.
pub fn checked_target(target: Option<pg_sys::Oid>, ending: bool) -> PgRelation {
    let oid = target.unwrap_or_else(|| null("target", "Name the table to watch."));
    let Some(relation) = super::relation(oid) else {
        failure::raise(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("there is no table with OID {}", oid.to_u32()),
            None,
            "Name the table to watch.",
        )
    };
    let name = super::name_of(&relation);
    if !(relation.is_table() || relation.is_partitioned_table())
        || relation.oid().to_u32() < pg_sys::FirstNormalObjectId
    {
        failure::raise(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{name} is not a table that can be watched"),
            None,
            "Watch a table, or a partitioned table; of a view, those it reads.",
        );
    }
    if relation.namespace() == "klaxon" {
        failure::raise(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("{name} is klaxon's own, which cannot be watched"),
            None,
            "Subscribe to the event types it emits.",
        );
    }
    if !(ending && is_admin()) && !may_have_trigger(relation.oid()) {
        failure::raise(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied: watching {name} takes the TRIGGER privilege on it"),
            None,
            "Its owner can GRANT it.",
        );
    }
    relation
}

#[allow(unsafe_code)]
fn may_have_trigger(relation: pg_sys::Oid) -> bool {
    // SAFETY: the relation exists and is locked.
    unsafe {
        pg_sys::pg_class_aclcheck(relation, current_role(), pg_sys::ACL_TRIGGER as pg_sys::AclMode)
            == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Raises where an argument is no SQL expression of that type over NEW and OLD of the table.
pub fn expression(argument: &str, text: Option<&str>, kind: &str, table: &str) {
    let Some(text) = text else { return };
    let query = match kind {
        // Without a cast: a number is no condition.
        "boolean" => format!("SELECT FROM {table} AS new CROSS JOIN {table} AS old WHERE (\n{text}\n)"),
        _ => format!("SELECT CAST((\n{text}\n) AS {kind}) FROM {table} AS new CROSS JOIN {table} AS old"),
    };
    // Of another shape it would not be one expression: two statements, or more than one value.
    let alone = format!("SELECT (\n{text}\n)");
    let parsed = attempt(|| {
        restricted(|| {
            (statements(&alone), Spi::connect(|client| client.prepare(query.as_str(), &[]).map(drop)))
        })
    });
    match parsed {
        Ok((1, Ok(()))) if !text.trim().is_empty() => {}
        Ok((1, Err(error))) => refuse(argument, &error.to_string()),
        Ok(_) => refuse(argument, "it is not one SQL expression"),
        Err(caught) => refuse(argument, &caught.message),
    }
}

fn refuse(argument: &str, problem: &str) -> ! {
    failure::invalid(
        format!("{argument}: {problem}"),
        "It is an SQL expression over NEW and OLD; names outside pg_catalog need their schema.",
    )
}

#[allow(unsafe_code)]
fn statements(query: &str) -> usize {
    let Ok(text) = CString::new(query) else { return 0 };
    // SAFETY: parses the text into a list in the current memory context, and runs nothing.
    unsafe {
        let list = pg_sys::pg_parse_query(text.as_ptr());
        if list.is_null() { 0 } else { usize::try_from((*list).length).unwrap_or_default() }
    }
}

pub fn null(argument: &str, hint: &str) -> ! {
    failure::raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{argument} is null"), None, hint)
}
