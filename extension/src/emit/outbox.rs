//! Writing the outbox: row by row into the table and its indexes, without a statement. Every transaction that
//! emits pays for this, and starting an INSERT costs more than what it then writes.
//!
//! What a statement would have done besides is not needed here: the table's CHECKs hold by what is written, and
//! its one trigger is for rows of other transactions. Columns that this library does not know take their defaults.

use std::mem::size_of;

use pgrx::PgRelation;
use pgrx::prelude::*;

use crate::relcache;
use crate::transition::attribute;

/// Shards of the outbox.
const SHARDS: i64 = 64;
/// The columns written, in the order of [`Outbox::insert`]'s values.
const COLUMNS: [&str; 16] = [
    "id",
    "event_id",
    "event_type",
    "project",
    "subscription_id",
    "channel_id",
    "shard",
    "cooldown_task",
    "due_at",
    "created_at",
    "xid",
    "attempts",
    "replayed",
    "held_back",
    "held_for",
    "last_error",
];

/// One delivery to be.
pub struct Delivery<'a> {
    pub event: [u8; 16],
    pub kind: &'a str,
    pub project: Option<&'a str>,
    pub subscription: i64,
    pub channel: i64,
    /// The task whose cooldown the worker has yet to settle, as [`super::write::window`] names it.
    pub cooldown_task: Option<&'a str>,
}

/// The table and its indexes, open. After an error the end of the transaction closes them.
pub struct Outbox {
    relation: pg_sys::Relation,
    state: *mut pg_sys::EState,
    target: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    columns: [usize; COLUMNS.len()],
    /// Columns of a later version, and the default of each.
    unknown: Vec<(usize, *mut pg_sys::ExprState)>,
}

/// Which of the outbox's shards a channel's deliveries are in.
pub fn shard(channel: i64) -> i16 {
    // Identities count up, so the remainder spreads them evenly.
    channel.rem_euclid(SHARDS) as i16
}

impl Outbox {
    #[allow(unsafe_code)]
    pub fn open() -> Self {
        // SAFETY: inside a transaction, and in a memory context that outlives the trigger's call. `palloc0` gives
        // InitResultRelInfo the room it fills in. `PgRelation` only borrows what is open: dropped, it would release
        // a lock that a writer holds to the end.
        unsafe {
            let relation = pg_sys::table_open(relcache::oid(c"outbox"), pg_sys::RowExclusiveLock as _);
            let state = pg_sys::CreateExecutorState();
            let target = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            pg_sys::InitResultRelInfo(target, relation, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(target, false);
            let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
            let borrowed = PgRelation::from_pg(relation);
            let columns = COLUMNS.map(|name| attribute(&borrowed, name));
            let described = borrowed.tuple_desc();
            let unknown = (0..described.len())
                .filter(|at| {
                    !columns.contains(at) && described.get(*at).is_some_and(|column| !column.attisdropped)
                })
                .map(|at| (at, default(relation, at, state)))
                .collect();
            Self { relation, state, target, slot, columns, unknown }
        }
    }

    #[allow(unsafe_code)]
    pub fn insert(&mut self, delivery: &Delivery<'_>) {
        let id = uuid::Uuid::now_v7();
        // SAFETY: the slot is of the relation's shape, and each value of its column's type. Those passed by
        // reference live until the tuple has been formed: in the context that is reset with the next row, or in
        // this frame.
        unsafe {
            let context = pg_sys::MakePerTupleExprContext(self.state);
            let memory = (*context).ecxt_per_tuple_memory;
            pg_sys::MemoryContextReset(memory);
            let before = pg_sys::MemoryContextSwitchTo(memory);
            let now = Some(pg_sys::Datum::from(pg_sys::GetCurrentTransactionStartTimestamp()));
            let values: [Option<pg_sys::Datum>; COLUMNS.len()] = [
                Some(pg_sys::Datum::from(id.as_bytes().as_ptr())),
                Some(pg_sys::Datum::from(delivery.event.as_ptr())),
                delivery.kind.into_datum(),
                delivery.project.into_datum(),
                delivery.subscription.into_datum(),
                delivery.channel.into_datum(),
                shard(delivery.channel).into_datum(),
                delivery.cooldown_task.into_datum(),
                now,
                now,
                Some(pg_sys::Datum::from(pg_sys::GetTopFullTransactionId().value)),
                0_i32.into_datum(),
                false.into_datum(),
                0_i64.into_datum(),
                None,
                None,
            ];
            pg_sys::ExecClearTuple(self.slot);
            let width = (*(*self.slot).tts_tupleDescriptor).natts as usize;
            let slots = std::slice::from_raw_parts_mut((*self.slot).tts_values, width);
            let nulls = std::slice::from_raw_parts_mut((*self.slot).tts_isnull, width);
            nulls.fill(true);
            for (value, at) in values.into_iter().zip(self.columns) {
                if let Some(value) = value {
                    (slots[at], nulls[at]) = (value, false);
                }
            }
            for (at, default) in &self.unknown {
                if !default.is_null() {
                    slots[*at] = pg_sys::ExecEvalExpr(*default, context, &raw mut nulls[*at]);
                }
            }
            pg_sys::ExecStoreVirtualTuple(self.slot);
            pg_sys::simple_table_tuple_insert(self.relation, self.slot);
            index(self.target, self.slot, self.state);
            pg_sys::MemoryContextSwitchTo(before);
        }
    }

    #[allow(unsafe_code)]
    pub fn close(self) {
        // SAFETY: what `open` made, once. The lock stays until the transaction ends.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::ExecCloseIndices(self.target);
            pg_sys::FreeExecutorState(self.state);
            pg_sys::table_close(self.relation, pg_sys::NoLock as _);
        }
    }
}

/// What a column's default evaluates to; null where it has none.
///
/// # Safety
/// The relation is open and has the column; the state is not freed before the last evaluation.
#[allow(unsafe_code)]
unsafe fn default(
    relation: pg_sys::Relation,
    at: usize,
    state: *mut pg_sys::EState,
) -> *mut pg_sys::ExprState {
    // SAFETY: the caller's.
    unsafe {
        let expression = pg_sys::build_column_default(relation, at as i32 + 1);
        if expression.is_null() {
            std::ptr::null_mut()
        } else {
            pg_sys::ExecPrepareExpr(expression.cast(), state)
        }
    }
}

/// Writes the entries of a row that was just inserted.
///
/// # Safety
/// The indexes are open, and the slot holds the row and its place.
#[allow(unsafe_code)]
unsafe fn index(
    target: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
) {
    let (none, nowhere) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the caller's. No constraint is deferred, so there is nothing to check later.
    unsafe {
        #[cfg(feature = "pg15")]
        pg_sys::ExecInsertIndexTuples(target, slot, state, false, false, none, nowhere);
        #[cfg(not(feature = "pg15"))]
        pg_sys::ExecInsertIndexTuples(target, slot, state, false, false, none, nowhere, false);
    }
}
