//! Rows written into a table and its indexes without a statement: starting an INSERT costs more than what it then
//! writes, and every transaction that emits pays for it.
//!
//! What a statement would have done besides (rights, triggers, CHECKs) is the caller's to know. Columns that this
//! library does not know take their defaults.

use std::ffi::CStr;
use std::mem::size_of;

use pgrx::PgRelation;
use pgrx::prelude::*;

use crate::transition::attribute;

/// A table and its indexes, open. After an error the end of the transaction closes them.
pub struct Table<const N: usize> {
    relation: pg_sys::Relation,
    state: *mut pg_sys::EState,
    target: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    columns: [usize; N],
    /// Columns of a later version that have a default, and it.
    unknown: Vec<(usize, *mut pg_sys::ExprState)>,
}

impl<const N: usize> Table<N> {
    /// Takes a table that is open for writing, and will be closed with this, and the columns that are written.
    ///
    /// # Safety
    /// The relation is open with the lock of a writer, inside a transaction, and the current memory context outlives
    /// the result.
    #[allow(unsafe_code)]
    pub unsafe fn of(relation: pg_sys::Relation, columns: [&CStr; N]) -> Self {
        // SAFETY: the caller's. `palloc0` gives InitResultRelInfo the room it fills in. `PgRelation` only borrows
        // what is open: dropped, it would release a lock that a writer holds to the end.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            let target = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            pg_sys::InitResultRelInfo(target, relation, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(target, false);
            let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
            let borrowed = PgRelation::from_pg(relation);
            let columns = columns.map(|name| attribute(&borrowed, name));
            let described = borrowed.tuple_desc();
            let unknown = (0..described.len())
                .filter(|at| {
                    !columns.contains(at) && described.get(*at).is_some_and(|column| column.atthasdef)
                })
                .map(|at| (at, default(relation, at, state)))
                .collect();
            Self { relation, state, target, slot, columns, unknown }
        }
    }

    /// Inserts a row, of which `values` makes the values: in the order of the columns, and in a memory context that
    /// is reset with the next row.
    ///
    /// # Safety
    /// Each value is of its column's type, and lives until this returns.
    #[allow(unsafe_code)]
    pub unsafe fn insert(&mut self, values: impl FnOnce() -> [Option<pg_sys::Datum>; N]) {
        // SAFETY: the slot is of the relation's shape, and the values as the caller promises.
        unsafe {
            let context = pg_sys::MakePerTupleExprContext(self.state);
            let memory = (*context).ecxt_per_tuple_memory;
            pg_sys::MemoryContextReset(memory);
            let before = pg_sys::MemoryContextSwitchTo(memory);
            pg_sys::ExecClearTuple(self.slot);
            let width = (*(*self.slot).tts_tupleDescriptor).natts as usize;
            let slots = std::slice::from_raw_parts_mut((*self.slot).tts_values, width);
            let nulls = std::slice::from_raw_parts_mut((*self.slot).tts_isnull, width);
            nulls.fill(true);
            for (value, at) in values().into_iter().zip(self.columns) {
                if let Some(value) = value {
                    (slots[at], nulls[at]) = (value, false);
                }
            }
            for (at, default) in &self.unknown {
                slots[*at] = pg_sys::ExecEvalExpr(*default, context, &raw mut nulls[*at]);
            }
            pg_sys::ExecStoreVirtualTuple(self.slot);
            pg_sys::simple_table_tuple_insert(self.relation, self.slot);
            index(self.target, self.slot, self.state);
            pg_sys::MemoryContextSwitchTo(before);
        }
    }

    /// Closes it. The lock stays until the transaction ends.
    #[allow(unsafe_code)]
    pub fn close(self) {
        // SAFETY: what `of` took and made, once.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::ExecCloseIndices(self.target);
            pg_sys::FreeExecutorState(self.state);
            pg_sys::table_close(self.relation, pg_sys::NoLock as _);
        }
    }
}

/// A column's default, to be evaluated.
///
/// # Safety
/// The relation is open and has the column, which has a default; the state is not freed before the last evaluation.
#[allow(unsafe_code)]
unsafe fn default(
    relation: pg_sys::Relation,
    at: usize,
    state: *mut pg_sys::EState,
) -> *mut pg_sys::ExprState {
    // SAFETY: the caller's.
    unsafe { pg_sys::ExecPrepareExpr(pg_sys::build_column_default(relation, at as i32 + 1).cast(), state) }
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
