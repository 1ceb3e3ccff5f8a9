//! Changes of the configuration, written down as they are made. The worker seals them into the audit
//! log, in order; until then they stand in `klaxon.config_change`.

use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};
use pgrx::prelude::*;
use pgrx::{AllocatedByPostgres, IntoDatum};

use crate::failure;
use crate::identity::{as_owner, principal, principal_behind};

const WRITE: &str =
    "SELECT klaxon.write_config_change($1, $2, $3, pg_catalog.to_jsonb($4), pg_catalog.to_jsonb($5))";

/// AFTER INSERT OR UPDATE OR DELETE, each row. Not SECURITY DEFINER, because it must know who acts;
/// the record is written with the owner's rights, since nobody else may write one.
#[pg_trigger]
pub fn record_change<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByRust>>, PgTriggerError> {
    let (old, new) = (trigger.old(), trigger.new());
    // History being restored was recorded when it was made. What was edited of a built-in event type is restored
    // by an update.
    let restored = match (&old, &new) {
        (None, Some(new)) => crate::channel::is_restored(new),
        (Some(old), Some(new)) => created_at(old) != created_at(new),
        (_, None) => false,
    };
    if restored {
        return Ok(None);
    }
    let table = trigger.table_name()?;
    let operation = match (&old, &new) {
        (None, _) => "insert",
        (_, None) => "delete",
        _ => "update",
    };
    let relation = trigger.relation()?;
    let row_type = row_type(&relation);
    // No foreign key makes a row; and what changes a secret is sealing, which is ours.
    let by_key = operation == "delete" || operation == "update" && table != "channel_secret";
    let who = if by_key { principal_behind(owner(&relation)) } else { principal() };
    let arguments = [who.into(), table.into(), operation.into(), row(old, row_type), row(new, row_type)];
    as_owner(|| Spi::run_with_args(WRITE, &arguments)).unwrap_or_else(|error| failure::internal(error));
    Ok(None)
}

fn created_at(row: &PgHeapTuple<'_, AllocatedByPostgres>) -> Option<TimestampWithTimeZone> {
    row.get_by_name("created_at").ok().flatten()
}

#[allow(unsafe_code)]
fn row<'a>(row: Option<PgHeapTuple<'a, AllocatedByPostgres>>, row_type: pg_sys::Oid) -> DatumWithOid<'a> {
    // SAFETY: the row is of the trigger's table, whose row type this is.
    unsafe { DatumWithOid::new(row.and_then(IntoDatum::into_datum), row_type) }
}

#[allow(unsafe_code)]
fn row_type(relation: &pgrx::PgRelation) -> pg_sys::Oid {
    // SAFETY: rd_rel is set for every open relation.
    unsafe { (*relation.rd_rel).reltype }
}

#[allow(unsafe_code)]
fn owner(relation: &pgrx::PgRelation) -> pg_sys::Oid {
    // SAFETY: rd_rel is set for every open relation.
    unsafe { (*relation.rd_rel).relowner }
}
