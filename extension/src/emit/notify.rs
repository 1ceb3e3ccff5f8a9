//! `klaxon.notify_event`: writes the event, or has a statement do it.
//!
//! Written by hand, and not by pgrx, so that what the statement raises goes past this function as it is. Through pgrx'
//! guard, an error would lose its constraint, its context, and a SQLSTATE of the application's own.

use std::mem::size_of;

use pgrx::prelude::*;
use pgrx::{pg_getarg, pg_getarg_datum, pgrx_extern_c_guard};

use super::direct::{self, New};

/// The arguments' types: type, payload, project, dedup_key, occurred_at.
const ARGUMENTS: [pg_sys::Oid; 5] =
    [pg_sys::TEXTOID, pg_sys::JSONBOID, pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID];

/// What is left to do of a call.
#[derive(Clone, Copy)]
enum Todo {
    /// Nothing: this is the event's id.
    Nothing(pg_sys::Datum),
    /// To call this with that.
    Call(unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum, pg_sys::FunctionCallInfo),
}

/// The convention by which Postgres calls [`klaxon_notify_event`].
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
pub extern "C-unwind" fn pg_finfo_klaxon_notify_event() -> &'static pg_sys::Pg_finfo_record {
    const CONVENTION: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &CONVENTION
}

/// Emits an event, with the caller's rights.
///
/// # Safety
/// Postgres calls it, as `klaxon.notify_event` is declared.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
pub unsafe extern "C-unwind" fn klaxon_notify_event(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the caller's. An error of the inner call jumps over this frame, which holds nothing that wants to be
    // dropped.
    unsafe {
        match pgrx_extern_c_guard(|| begin(call)) {
            Todo::Nothing(id) => id,
            Todo::Call(run, inner) => {
                let id = run(inner);
                (*call).isnull = (*inner).isnull;
                id
            }
        }
    }
}

/// # Safety
/// The call of `klaxon.notify_event`.
#[allow(unsafe_code)]
unsafe fn begin(call: pg_sys::FunctionCallInfo) -> Todo {
    // SAFETY: the caller's; each argument is of its type.
    unsafe {
        let new = match (pg_getarg(call, 0), pg_getarg_datum(call, 1), pg_getarg_datum(call, 4)) {
            (Some(kind), Some(payload), Some(at)) if pg_getarg_datum(call, 3).is_none() => {
                let occurred_at = at.value() as i64;
                Some(New { kind, payload, project: pg_getarg(call, 2), occurred_at })
            }
            _ => None,
        };
        let id = new.and_then(|new| direct::write(&new));
        match id.and_then(|id| pgrx::Uuid::from_bytes(id).into_datum()) {
            Some(id) => Todo::Nothing(id),
            None => by_statement(call),
        }
    }
}

/// `klaxon.insert_event` with the same arguments. Looked up once of a place in a query, as Postgres does with what is
/// called there.
///
/// # Safety
/// The call of `klaxon.notify_event`.
#[allow(unsafe_code)]
unsafe fn by_statement(call: pg_sys::FunctionCallInfo) -> Todo {
    // SAFETY: the caller's. What is remembered lives as long as what it is remembered in; the inner call has room for
    // its arguments, which are those of the outer one.
    unsafe {
        let place = &mut *(*call).flinfo;
        if place.fn_extra.is_null() {
            let mut name = pgrx::PgList::<pg_sys::Node>::new();
            for part in [c"klaxon", c"insert_event"] {
                name.push(pg_sys::makeString(part.as_ptr().cast_mut()).cast());
            }
            let count = ARGUMENTS.len() as i32;
            let function = pg_sys::LookupFuncName(name.as_ptr(), count, ARGUMENTS.as_ptr(), false);
            let found = pg_sys::MemoryContextAllocZero(place.fn_mcxt, size_of::<pg_sys::FmgrInfo>());
            pg_sys::fmgr_info_cxt(function, found.cast(), place.fn_mcxt);
            place.fn_extra = found;
        }
        let function = place.fn_extra.cast::<pg_sys::FmgrInfo>();
        let room = size_of::<pg_sys::FunctionCallInfoBaseData>()
            + ARGUMENTS.len() * size_of::<pg_sys::NullableDatum>();
        let inner = pg_sys::palloc0(room).cast::<pg_sys::FunctionCallInfoBaseData>();
        (*inner).flinfo = function;
        (*inner).fncollation = (*call).fncollation;
        (*inner).nargs = ARGUMENTS.len() as i16;
        let (from, to) = ((*call).args.as_ptr(), (*inner).args.as_mut_ptr());
        std::ptr::copy_nonoverlapping(from, to, ARGUMENTS.len());
        Todo::Call((*function).fn_addr.expect("a function that was found"), inner)
    }
}
