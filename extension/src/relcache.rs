//! Invalidation of the compiled matchers, the way Postgres does it for its own caches.
//!
//! A trigger on the configuration tables sends a relcache invalidation for `klaxon.subscription`.
//! Postgres delivers it to this backend at the next command and to the others at commit, and to
//! nobody on rollback; a callback in each backend then counts a generation up. So uncommitted
//! changes of one's own are seen, others' are not, and the hot path asks the database nothing.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::rc::Rc;

use pgrx::prelude::*;

use crate::wakeup::{self, Signal};

thread_local! {
    static GENERATION: Cell<u64> = const { Cell::new(0) };
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    static SUBSCRIPTION: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
    static SNAPSHOT_BOUND: Cell<bool> = const { Cell::new(false) };
}

/// Counts up whenever what was compiled before may be out of date.
pub fn generation() -> u64 {
    GENERATION.get()
}

/// What was learnt of a relation from its entry in the relation cache: true until anything in that cache is
/// invalidated, of whichever relation.
pub struct Learnt<T>(RefCell<Option<Known<T>>>);

struct Known<T> {
    relation: pg_sys::Oid,
    changes: u64,
    fact: Rc<T>,
}

impl<T> Learnt<T> {
    pub const fn nothing() -> Self {
        Self(RefCell::new(None))
    }

    /// What is known of a relation that is open and locked, so that what is learnt now stays true meanwhile.
    pub fn of(&self, relation: pg_sys::Oid, learn: impl FnOnce() -> T) -> Rc<T> {
        let changes = CHANGES.get();
        if let Some(known) = &*self.0.borrow()
            && (known.relation, known.changes) == (relation, changes)
        {
            return Rc::clone(&known.fact);
        }
        let fact = Rc::new(learn());
        *self.0.borrow_mut() = Some(Known { relation, changes, fact: Rc::clone(&fact) });
        fact
    }
}

/// Marks what this transaction compiles as true for its own snapshot only. Under REPEATABLE READ a
/// matcher may be compiled from configuration older than an invalidation this backend has already
/// processed, so it must not outlive the transaction.
#[allow(unsafe_code)]
pub fn bind_to_transaction() {
    // SAFETY: reads a variable of this backend.
    if unsafe { pg_sys::XactIsoLevel } >= pg_sys::XACT_REPEATABLE_READ as i32 {
        SNAPSHOT_BOUND.set(true);
    }
}

/// Remembers which relation's invalidations matter. Looked up at every compilation, because
/// DROP and CREATE EXTENSION change it.
pub fn remember_subscription() {
    SUBSCRIPTION.set(oid(c"subscription"));
}

/// One of the extension's relations; invalid where there is none of that name.
#[allow(unsafe_code)]
pub fn oid(name: &CStr) -> pg_sys::Oid {
    // SAFETY: syscache lookups inside a transaction.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"klaxon".as_ptr(), true);
        if schema == pg_sys::InvalidOid {
            return schema;
        }
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    }
}

/// Registers the callbacks; once per backend, from `_PG_init`.
#[allow(unsafe_code)]
pub fn watch() {
    // SAFETY: both are registered for the life of the backend, which is the life of the library;
    // neither allocates nor raises, as callbacks at these points must not.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0));
        pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut());
    }
}

#[allow(unsafe_code)]
unsafe extern "C-unwind" fn relation_changed(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    CHANGES.set(CHANGES.get() + 1);
    // InvalidOid: invalidations were lost, anything may have changed.
    if relation == pg_sys::InvalidOid || relation == SUBSCRIPTION.get() {
        GENERATION.set(GENERATION.get() + 1);
    }
}

#[allow(unsafe_code)]
unsafe extern "C-unwind" fn transaction_ended(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    if (event == pg_sys::XactEvent::XACT_EVENT_COMMIT || event == pg_sys::XactEvent::XACT_EVENT_ABORT)
        && SNAPSHOT_BOUND.replace(false)
    {
        GENERATION.set(GENERATION.get() + 1);
    }
}

/// Statement trigger on every table the matcher reads.
#[pg_trigger]
#[allow(unsafe_code)]
pub fn configuration_changed<'a>(
    _trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByRust>>, PgTriggerError> {
    let subscription = oid(c"subscription");
    if subscription != pg_sys::InvalidOid {
        // SAFETY: the relation exists; the message is queued in this transaction.
        unsafe { pg_sys::CacheInvalidateRelcacheByRelid(subscription) };
    }
    wakeup::at_commit(Signal::Config);
    Ok(None)
}
