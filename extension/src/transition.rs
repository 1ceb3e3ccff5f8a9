//! The rows a statement inserted into `klaxon.event`, read from the trigger's transition table.

use std::ffi::CStr;

use pgrx::prelude::*;
use pgrx::{FromDatum, PgRelation};

use crate::schema;

/// Where the columns are; looked up by name, so that an upgraded table reads the same.
struct Columns {
    id: usize,
    kind: usize,
    project: usize,
    payload: usize,
    created_at: usize,
}

/// One inserted event. Its datums live until the next one is read.
pub struct Event<'a> {
    pub id: [u8; 16],
    pub kind: &'a str,
    pub project: Option<&'a str>,
    pub payload: pg_sys::Datum,
    /// Bytes of the payload before compression.
    pub payload_bytes: usize,
    /// Microseconds since 2000-01-01, as Postgres counts.
    pub created_at: i64,
}

/// Calls `each` for every row of the trigger's `NEW TABLE`.
#[allow(unsafe_code)]
pub fn for_each_event(trigger: &PgTrigger<'_>, relation: &PgRelation, mut each: impl FnMut(Event<'_>)) {
    let data = trigger.trigger_data();
    if data.tg_newtable.is_null() {
        return;
    }
    let columns = Columns {
        id: attribute(relation, c"id"),
        kind: attribute(relation, c"type"),
        project: attribute(relation, c"project"),
        payload: attribute(relation, c"payload"),
        created_at: attribute(relation, c"created_at"),
    };
    // SAFETY: Postgres keeps the tuplestore until the trigger returns. It may be shared with other
    // triggers, so it is read through a pointer of our own and the active one is put back. The slot
    // is of the tuplestore's own tuple kind and of the relation's shape, which NEW TABLE has. Each
    // tuple's values point into the slot until the next tuple is fetched.
    unsafe {
        let store = data.tg_newtable;
        let pointer = pg_sys::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND as i32);
        pg_sys::tuplestore_select_read_pointer(store, pointer);
        pg_sys::tuplestore_rescan(store);
        let slot = pg_sys::MakeSingleTupleTableSlot(
            (*relation.as_ptr()).rd_att,
            &raw const pg_sys::TTSOpsMinimalTuple,
        );
        while pg_sys::tuplestore_gettupleslot(store, true, false, slot) {
            pg_sys::slot_getallattrs(slot);
            let values = std::slice::from_raw_parts((*slot).tts_values, (*slot).tts_nvalid as usize);
            let nulls = std::slice::from_raw_parts((*slot).tts_isnull, (*slot).tts_nvalid as usize);
            let project = if nulls[columns.project] {
                None
            } else {
                <&str>::from_datum(values[columns.project], false)
            };
            each(Event {
                id: *values[columns.id].cast_mut_ptr::<[u8; 16]>(),
                kind: <&str>::from_datum(values[columns.kind], false).expect("type is not null"),
                project,
                payload: values[columns.payload],
                payload_bytes: pg_sys::toast_raw_datum_size(values[columns.payload]),
                created_at: values[columns.created_at].value() as i64,
            });
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::tuplestore_select_read_pointer(store, 0);
    }
}

/// Where a column is, from 0 on.
#[allow(unsafe_code)]
pub fn attribute(relation: &PgRelation, name: &CStr) -> usize {
    // SAFETY: the relation is open; the result is a positive attribute number or an error code.
    let number = unsafe { pg_sys::SPI_fnumber((*relation.as_ptr()).rd_att, name.as_ptr()) };
    usize::try_from(number)
        .ok()
        .and_then(|n| n.checked_sub(1))
        .unwrap_or_else(|| schema::missing(&format!("column {name:?} in klaxon.{}", relation.name())))
}
