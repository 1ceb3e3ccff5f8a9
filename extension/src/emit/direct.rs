//! One event without a statement. An INSERT into `klaxon.event` has its plan, its queue of triggers, their table of new
//! rows and three CHECKs to set up, which costs several times what is then written.
//!
//! What is done here is what that statement would do to an event that is plainly in order, for somebody who plainly may
//! emit, into a table that has nothing on it but what the extension put there, and where what matches needs no
//! statements of its own. Of everything else it knows nothing, and has done nothing: then `klaxon.insert_event` has a
//! statement do it, or says what is wrong.

use std::ffi::CStr;

use pgrx::PgRelation;
use pgrx::prelude::*;

use super::outbox::{Delivery, Outbox};
use super::table::{Layout, Table};
use crate::identity;
use crate::jsonb::JsonbPayload;
use crate::matcher::{self, Candidate, Matcher};
use crate::relcache::{self, Learnt};
use crate::setting::MAX_PAYLOAD_BYTES;
use crate::trace;
use crate::wakeup::{self, Signal};

/// What an emitter says of an event.
pub struct New<'a> {
    pub kind: &'a str,
    /// A jsonb as it came, perhaps compressed or stored out of line.
    pub payload: pg_sys::Datum,
    pub project: Option<&'a str>,
    /// Microseconds since 2000-01-01.
    pub occurred_at: i64,
}

/// Bytes of a project's name that are no more characters than it may have.
const PROJECT: usize = 100;
/// What the table's constraints are; [`is_in_order`] is what they say.
const CHECKS: [&CStr; 3] = [c"event_project_check", c"event_dedup_key_check", c"event_occurred_at_check"];
/// The triggers on INSERT: what they do is done here, or has nothing to do without a `dedup_key`.
const TRIGGERS: [&CStr; 2] = [c"match_events", c"skip_known_event"];
/// What is written, in the order in which it is.
const COLUMNS: [&CStr; 9] = [
    c"id",
    c"type",
    c"project",
    c"payload",
    c"dedup_key",
    c"occurred_at",
    c"emitted_by",
    c"created_at",
    c"traceparent",
];
/// The columns that are never null, and those that may be.
const FILLED: [&str; 6] = ["id", "type", "payload", "occurred_at", "emitted_by", "created_at"];
const FREE: [&str; 3] = ["project", "dedup_key", "traceparent"];
/// The columns of which emitters may say what is in them.
const SAID: [&CStr; 6] = [c"id", c"type", c"project", c"payload", c"dedup_key", c"occurred_at"];

thread_local! {
    static EVENT: Learnt<Option<Layout<9>>> = const { Learnt::nothing() };
}

/// Writes an event; its id, or none where a statement is to do it.
#[allow(unsafe_code)]
pub fn write(new: &New<'_>) -> Option<[u8; 16]> {
    if !is_in_order(new) {
        return None;
    }
    // SAFETY: inside a transaction. The lock is the one that an INSERT would take and keep; as there, what others have
    // changed by then is heard of with it, before the matcher is asked for.
    unsafe {
        let relation = pg_sys::table_open(relcache::oid(c"event"), pg_sys::RowExclusiveLock as _);
        let layout = EVENT.with(|known| known.of((*relation).rd_id, || layout(relation)));
        let targets = (layout.is_some() && may_insert(relation))
            .then(|| matcher::kept(new.kind, new.project))
            .flatten()
            .and_then(|matcher| plain_targets(&matcher, new));
        let (Some(layout), Some(targets)) = (&*layout, targets) else {
            pg_sys::table_close(relation, pg_sys::NoLock as _);
            return None;
        };
        let id = uuid::Uuid::now_v7().into_bytes();
        write_row(relation, layout, new, &id);
        write_deliveries(&targets, new, id);
        // As after a statement: whatever this transaction does next sees the rows.
        pg_sys::CommandCounterIncrement();
        Some(id)
    }
}

#[allow(unsafe_code)]
fn is_in_order(new: &New<'_>) -> bool {
    let limit = usize::try_from(MAX_PAYLOAD_BYTES.get()).unwrap_or_default();
    // SAFETY: a jsonb that is not null; and variables of this backend.
    unsafe {
        new.project.is_none_or(|project| (1..=PROJECT).contains(&project.len()))
            && new.occurred_at != i64::MIN
            && new.occurred_at != i64::MAX
            && pg_sys::toast_raw_datum_size(new.payload) <= limit
            && !pg_sys::XactReadOnly
            && pg_sys::SessionReplicationRole != pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32
    }
}

/// Subscriptions and channels that the event goes to; none where one that matches wants more than a row of the outbox.
#[allow(unsafe_code)]
fn plain_targets(matcher: &Matcher, new: &New<'_>) -> Option<Vec<(i64, i64)>> {
    let (mut targets, mut is_plain) = (Vec::new(), true);
    if matcher.is_empty() {
        return Some(targets);
    }
    // SAFETY: the clock, and a jsonb that is not null. What is detoasted is used in this function only.
    let (now, payload) = unsafe { (pg_sys::GetCurrentTimestamp(), JsonbPayload::new(new.payload)) };
    let mut raised = false;
    matcher.matches(
        &Candidate { kind: new.kind, now },
        &payload,
        |hit| {
            is_plain &= hit.cooldown_us == 0 && !hit.digest && !hit.in_app;
            targets.extend(hit.reachable().map(|target| (hit.id, target.channel)));
        },
        |_| raised = true,
    );
    (is_plain && !raised).then_some(targets)
}

fn write_deliveries(targets: &[(i64, i64)], new: &New<'_>, event: [u8; 16]) {
    if targets.is_empty() {
        return;
    }
    let (kind, project) = (new.kind, new.project);
    let mut outbox = Outbox::open();
    for &(subscription, channel) in targets {
        outbox.insert(&Delivery { event, kind, project, subscription, channel, cooldown_task: None });
    }
    outbox.close();
    wakeup::at_commit(Signal::Outbox);
}

/// Whether nothing is on the table but what the extension put there, and all of that. A constraint that is checked when
/// the statement or the transaction ends has a trigger.
///
/// # Safety
/// The relation is open.
#[allow(unsafe_code)]
unsafe fn is_as_installed(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller's; what an open relation points to stays until it is closed.
    unsafe {
        let (class, triggers, constraints) =
            ((*relation).rd_rel, (*relation).trigdesc, (*(*relation).rd_att).constr);
        if triggers.is_null() || constraints.is_null() {
            return false;
        }
        let on_insert = |trigger: &&pg_sys::Trigger| trigger.tgtype & pg_sys::TRIGGER_TYPE_INSERT as i16 != 0;
        let ours = |trigger: &pg_sys::Trigger| {
            trigger.tgenabled == pg_sys::TRIGGER_FIRES_ON_ORIGIN as std::ffi::c_char
                && TRIGGERS.contains(&CStr::from_ptr(trigger.tgname))
        };
        let triggers = std::slice::from_raw_parts((*triggers).triggers, (*triggers).numtriggers as usize);
        let checks = (*constraints).num_check as usize;
        (*class).relkind == pg_sys::RELKIND_RELATION as std::ffi::c_char
            && !(*class).relhasrules
            && !has_generated(&*constraints)
            && PgRelation::from_pg(relation).tuple_desc().iter().all(is_as_written)
            && checks == CHECKS.len()
            && std::slice::from_raw_parts((*constraints).check, checks)
                .iter()
                .all(|check| CHECKS.contains(&CStr::from_ptr(check.ccname)))
            && triggers.iter().filter(on_insert).count() == TRIGGERS.len()
            && triggers.iter().filter(on_insert).all(ours)
            && !has_others_constraint(relation)
    }
}

/// Whether an index other than the primary key may refuse a row: what it says then would not go past this library whole.
///
/// # Safety
/// The relation is open.
#[allow(unsafe_code)]
unsafe fn has_others_constraint(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller's; the list is of the relation's indexes, which exist while it is locked.
    unsafe {
        let Some(list) = pg_sys::RelationGetIndexList(relation).as_ref() else { return false };
        std::slice::from_raw_parts(list.elements, list.length as usize).iter().any(|cell| {
            let index = pg_sys::index_open(cell.oid_value, pg_sys::AccessShareLock as _);
            let form = &*(*index).rd_index;
            let refuses = (form.indisunique || form.indisexclusion) && !form.indisprimary;
            pg_sys::index_close(index, pg_sys::NoLock as _);
            refuses
        })
    }
}

fn has_generated(constraints: &pg_sys::TupleConstr) -> bool {
    #[cfg(feature = "pg18")]
    if constraints.has_generated_virtual {
        return true;
    }
    constraints.has_generated_stored
}

/// Whether a column takes what is written here: of a later version's, its default.
fn is_as_written(column: &pg_sys::FormData_pg_attribute) -> bool {
    let name = column.name();
    column.attisdropped
        || FILLED.contains(&name)
        || !column.attnotnull && (column.atthasdef || FREE.contains(&name))
}

/// Whether the current role may insert, without anything that would have to be evaluated for the row.
///
/// # Safety
/// The relation is open.
#[allow(unsafe_code)]
unsafe fn may_insert(relation: pg_sys::Relation) -> bool {
    let role = identity::current_role();
    // SAFETY: the caller's, and catalog lookups inside a transaction.
    unsafe {
        let (table, right) = ((*relation).rd_id, pg_sys::AclMode::from(pg_sys::ACL_INSERT));
        let granted = |column: &&CStr| {
            let number = pg_sys::SPI_fnumber((*relation).rd_att, column.as_ptr()) as i16;
            pg_sys::pg_attribute_aclcheck(table, number, role, right) == pg_sys::AclResult::ACLCHECK_OK
        };
        (pg_sys::pg_class_aclcheck(table, role, right) == pg_sys::AclResult::ACLCHECK_OK
            || SAID.iter().all(granted))
            && match pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true) as u32 {
                pg_sys::CheckEnableRlsResult::RLS_ENABLED => policies_let_all_in(relation, role),
                _ => true,
            }
    }
}

/// Whether the policies let a role insert whatever it likes.
///
/// # Safety
/// The relation is open.
#[allow(unsafe_code)]
unsafe fn policies_let_all_in(relation: pg_sys::Relation, role: pg_sys::Oid) -> bool {
    // SAFETY: the caller's; the list is of RowSecurityPolicy, and a policy's roles an array of oid.
    unsafe {
        if !pg_sys::row_security || (*relation).rd_rsdesc.is_null() {
            return false;
        }
        let policies = pgrx::PgList::<pg_sys::RowSecurityPolicy>::from_pg((*(*relation).rd_rsdesc).policies);
        let mut let_in = false;
        for policy in policies.iter_ptr().map(|policy| &*policy) {
            if !matches!(policy.polcmd as u8, b'a' | b'*') {
                continue;
            }
            if !policy.permissive {
                return false;
            }
            let roles = pgrx::Array::<pg_sys::Oid>::from_datum(pg_sys::Datum::from(policy.roles), false);
            let_in |= is_true(policy.with_check_qual)
                && roles.is_some_and(|roles| {
                    roles
                        .iter_deny_null()
                        .any(|of| of == pg_sys::Oid::INVALID || identity::has_rights_of(role, of))
                });
        }
        let_in
    }
}

/// Whether an expression is the constant `true`.
#[allow(unsafe_code)]
unsafe fn is_true(expression: *mut pg_sys::Expr) -> bool {
    // SAFETY: an expression's tag says what it is.
    unsafe {
        if expression.is_null() || (*expression).type_ != pg_sys::NodeTag::T_Const {
            return false;
        }
        let constant = &*expression.cast::<pg_sys::Const>();
        !constant.constisnull && constant.constvalue.value() != 0
    }
}

/// # Safety
/// The relation is open for writing, of this layout, and closed by this.
#[allow(unsafe_code)]
unsafe fn write_row(relation: pg_sys::Relation, layout: &Layout<9>, new: &New<'_>, id: &[u8; 16]) {
    // SAFETY: the caller's. The values are of their columns' types; those passed by reference are the caller's, this
    // frame's, or in the row's memory.
    unsafe {
        let mut table = Table::of(relation, layout);
        table.insert(|| {
            [
                Some(pg_sys::Datum::from(id.as_ptr())),
                new.kind.into_datum(),
                new.project.into_datum(),
                Some(new.payload),
                None,
                new.occurred_at.into_datum(),
                identity::principal().into_datum(),
                Some(pg_sys::Datum::from(pg_sys::GetCurrentTransactionStartTimestamp())),
                trace::traceparent().into_datum(),
            ]
        });
        table.close();
    }
}

/// Where the table's columns are; none where something is on the table that the extension did not put there.
///
/// # Safety
/// The relation is open.
#[allow(unsafe_code)]
unsafe fn layout(relation: pg_sys::Relation) -> Option<Layout<9>> {
    // SAFETY: the caller's.
    unsafe { is_as_installed(relation).then(|| Layout::of(relation, COLUMNS)) }
}
