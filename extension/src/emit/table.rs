//! Rows written into a table and its indexes without a statement: starting an INSERT costs more than what it then
//! writes, and every transaction that emits pays for it.
//!
//! What a statement would have done besides (rights, triggers, CHECKs) is the caller's to know. Columns that this
//! library does not know take their defaults.

use std::ffi::CStr;
use std::mem::size_of;

use pgrx::PgRelation;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::prelude::*;

use crate::transition::attribute;

/// Rows that are gathered and written at once: one visit of a page, and one record of WAL for it.
const BATCH: usize = 256;

/// Where a table's columns are.
pub struct Layout<const N: usize> {
    columns: [usize; N],
    /// Columns of a later version that have a default.
    unknown: Vec<usize>,
}

impl<const N: usize> Layout<N> {
    /// That of an open relation: `columns` are those that are written.
    ///
    /// # Safety
    /// The relation is open.
    #[allow(unsafe_code)]
    pub unsafe fn of(relation: pg_sys::Relation, columns: [&CStr; N]) -> Self {
        // SAFETY: the caller's. `PgRelation` only borrows what is open: dropped, it would release a lock that a writer
        // holds to the end.
        let borrowed = unsafe { PgRelation::from_pg(relation) };
        let columns = columns.map(|name| attribute(&borrowed, name));
        let described = borrowed.tuple_desc();
        let unknown = (0..described.len())
            .filter(|at| !columns.contains(at) && described.get(*at).is_some_and(|column| column.atthasdef))
            .collect();
        Self { columns, unknown }
    }
}

/// A table and its indexes, open. After an error the end of the transaction closes them.
pub struct Table<const N: usize> {
    relation: pg_sys::Relation,
    state: *mut pg_sys::EState,
    target: *mut pg_sys::ResultRelInfo,
    /// As many as rows were ever gathered at once, of which the first `gathered` are not yet written.
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    gathered: usize,
    columns: [usize; N],
    /// Columns of a later version that have a default, and it.
    unknown: Vec<(usize, *mut pg_sys::ExprState)>,
}

impl<const N: usize> Table<N> {
    /// Takes a table that is open for writing, and will be closed with this, and what was learnt of it.
    ///
    /// # Safety
    /// The relation is open with the lock of a writer, inside a transaction, and of this layout. The current memory
    /// context outlives the result.
    #[allow(unsafe_code)]
    pub unsafe fn of(relation: pg_sys::Relation, layout: &Layout<N>) -> Self {
        // SAFETY: the caller's. `palloc0` gives InitResultRelInfo the room it fills in.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            let target = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            pg_sys::InitResultRelInfo(target, relation, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(target, false);
            let unknown = layout.unknown.iter().map(|at| (*at, default(relation, *at, state))).collect();
            let columns = layout.columns;
            Self { relation, state, target, slots: Vec::new(), gathered: 0, columns, unknown }
        }
    }

    /// Inserts a row, of which `values` makes the values: in the order of the columns, and in a memory context that
    /// is reset with the next row. It is written when many are gathered, or with [`Self::close`].
    ///
    /// # Safety
    /// Each value is of its column's type, and lives until this returns.
    #[allow(unsafe_code)]
    pub unsafe fn insert(&mut self, values: impl FnOnce() -> [Option<pg_sys::Datum>; N]) {
        // SAFETY: the slot is of the relation's shape, and the values as the caller promises until the slot has a copy.
        unsafe {
            let context = pg_sys::MakePerTupleExprContext(self.state);
            let memory = (*context).ecxt_per_tuple_memory;
            pg_sys::MemoryContextReset(memory);
            let slot = self.free_slot();
            let before = pg_sys::MemoryContextSwitchTo(memory);
            let width = (*(*slot).tts_tupleDescriptor).natts as usize;
            let slots = std::slice::from_raw_parts_mut((*slot).tts_values, width);
            let nulls = std::slice::from_raw_parts_mut((*slot).tts_isnull, width);
            nulls.fill(true);
            for (value, at) in values().into_iter().zip(self.columns) {
                if let Some(value) = value {
                    (slots[at], nulls[at]) = (value, false);
                }
            }
            for (at, default) in &self.unknown {
                slots[*at] = pg_sys::ExecEvalExpr(*default, context, &raw mut nulls[*at]);
            }
            pg_sys::ExecStoreVirtualTuple(slot);
            if let Some(materialize) = (*(*slot).tts_ops).materialize {
                pg_guard_ffi_boundary(|| materialize(slot));
            }
            pg_sys::MemoryContextSwitchTo(before);
        }
        self.gathered += 1;
        if self.gathered == BATCH {
            self.write();
        }
    }

    /// An empty slot for the next row.
    #[allow(unsafe_code)]
    fn free_slot(&mut self) -> *mut pg_sys::TupleTableSlot {
        if let Some(slot) = self.slots.get(self.gathered) {
            return *slot;
        }
        // SAFETY: the relation is open. The slot lives as long as the state, however short the caller's memory does.
        let slot = unsafe {
            let before = pg_sys::MemoryContextSwitchTo((*self.state).es_query_cxt);
            let slot = pg_sys::table_slot_create(self.relation, std::ptr::null_mut());
            pg_sys::MemoryContextSwitchTo(before);
            slot
        };
        self.slots.push(slot);
        slot
    }

    /// Writes what is gathered.
    #[allow(unsafe_code)]
    fn write(&mut self) {
        let rows = &mut self.slots[..std::mem::take(&mut self.gathered)];
        // SAFETY: the slots are full, and of the relation's shape; a table that is open has its methods.
        unsafe {
            let memory = (*pg_sys::MakePerTupleExprContext(self.state)).ecxt_per_tuple_memory;
            pg_sys::MemoryContextReset(memory);
            let before = pg_sys::MemoryContextSwitchTo(memory);
            match ((*(*self.relation).rd_tableam).multi_insert, &mut *rows) {
                (Some(insert), [_, _, ..]) => {
                    let command = pg_sys::GetCurrentCommandId(true);
                    let (relation, rows, count) = (self.relation, rows.as_mut_ptr(), rows.len() as i32);
                    pg_guard_ffi_boundary(|| insert(relation, rows, count, command, 0, std::ptr::null_mut()));
                }
                _ => rows.iter().for_each(|row| pg_sys::simple_table_tuple_insert(self.relation, *row)),
            }
            for row in rows {
                index(self.target, *row, self.state);
                pg_sys::ExecClearTuple(*row);
            }
            pg_sys::MemoryContextSwitchTo(before);
        }
    }

    /// Writes what is gathered, and closes it. The lock stays until the transaction ends.
    #[allow(unsafe_code)]
    pub fn close(mut self) {
        self.write();
        // SAFETY: what `of` took and made, and the slots, once.
        unsafe {
            self.slots.iter().for_each(|slot| pg_sys::ExecDropSingleTupleTableSlot(*slot));
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
