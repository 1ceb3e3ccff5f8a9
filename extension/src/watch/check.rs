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
    let may = may_have_trigger(relation.oid()) || ending && is_admin();
    if !may {
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
    // It would be taken for the table's name, which its owner may change to what he likes.
    if text.contains("{target}") {
        refuse(argument, "it contains {target}");
    }
    // In WHERE, where neither an aggregate nor a set of rows may stand; of subqueries, which have no
    // system columns, as NEW and OLD have none. A condition without a cast: a number is none.
    let value = match kind {
        "boolean" => format!("(\n{text}\n)"),
        _ => format!("(CAST((\n{text}\n) AS {kind}) IS NULL)"),
    };
    let query = format!(
        "SELECT FROM (SELECT * FROM {table} OFFSET 0) AS new CROSS JOIN (SELECT * FROM {table} OFFSET 0) AS old WHERE {value}"
    );
    // An expression is one with parentheses around it and without: only so is it nothing but one.
    let shapes = [format!("SELECT (\n{text}\n)"), format!("SELECT \n{text}\n")];
    let parsed = attempt(|| {
        restricted(|| {
            (
                shapes.iter().all(|shape| is_one_value(shape)),
                Spi::connect(|client| client.prepare(query.as_str(), &[]).map(drop)),
            )
        })
    });
    match parsed {
        Ok((true, Ok(()))) if !text.trim().is_empty() => {}
        Ok((true, Err(error))) => refuse(argument, &error.to_string()),
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

/// Whether a text is one SELECT of one unnamed value and has no other clause.
#[allow(unsafe_code)]
fn is_one_value(query: &str) -> bool {
    let Ok(text) = CString::new(query) else { return false };
    // SAFETY: parses the text into a tree in the current memory context, and runs nothing. Each node
    // is of the kind its tag says before it is read as such; a list's first cell exists where its
    // length is one.
    unsafe {
        let Some(raw) = only::<pg_sys::RawStmt>(pg_sys::pg_parse_query(text.as_ptr())) else { return false };
        if raw.stmt.is_null() || (*raw.stmt).type_ != pg_sys::NodeTag::T_SelectStmt {
            return false;
        }
        let select = &*raw.stmt.cast::<pg_sys::SelectStmt>();
        let others = [
            select.distinctClause,
            select.fromClause,
            select.groupClause,
            select.windowClause,
            select.valuesLists,
            select.sortClause,
            select.lockingClause,
        ];
        select.op == pg_sys::SetOperation::SETOP_NONE
            && others.iter().all(|clause| clause.is_null())
            && select.whereClause.is_null()
            && select.havingClause.is_null()
            && select.limitCount.is_null()
            && select.limitOffset.is_null()
            && select.intoClause.is_null()
            && select.withClause.is_null()
            && only::<pg_sys::ResTarget>(select.targetList).is_some_and(|target| target.name.is_null())
    }
}

/// The element of a list that has one.
#[allow(unsafe_code)]
unsafe fn only<'a, T>(list: *mut pg_sys::List) -> Option<&'a T> {
    // SAFETY: as the caller's; the elements of a parse tree's lists are pointers to nodes.
    unsafe {
        if list.is_null() || (*list).length != 1 {
            return None;
        }
        (*(*list).elements).ptr_value.cast::<T>().as_ref()
    }
}

/// Whether the current role may see every row of a table.
#[allow(unsafe_code)]
pub fn may_read(relation: &PgRelation) -> bool {
    // SAFETY: the relation exists and is locked; rd_rel is set for every open relation.
    unsafe {
        !(*relation.rd_rel).relrowsecurity
            && pg_sys::pg_class_aclcheck(
                relation.oid(),
                current_role(),
                pg_sys::ACL_SELECT as pg_sys::AclMode,
            ) == pg_sys::AclResult::ACLCHECK_OK
    }
}

pub fn null(argument: &str, hint: &str) -> ! {
    failure::raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{argument} is null"), None, hint)
}
