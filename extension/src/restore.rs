//! Foreign keys that step aside while `pg_restore` loads the extension's tables.
//!
//! With several jobs it loads them in no particular order, and at the same time: a row may come before
//! the one it points to. So an INSERT of `pg_restore`'s is run as a replica's is: triggers fire only where
//! they are ENABLE ALWAYS, and those of foreign keys are not. Which of ours are, `sql/restore.sql` says.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::prelude::*;

thread_local! {
    /// Whether the statement that is running was begun here.
    static BEGUN: Cell<bool> = const { Cell::new(false) };
}

/// BEFORE INSERT, once a statement.
#[pg_trigger]
pub fn begin_restore<'a>(
    _trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByRust>>, PgTriggerError> {
    let restoring = is_restoring();
    if restoring {
        set_role(c"replica");
    }
    BEGUN.set(restoring);
    Ok(None)
}

/// AFTER INSERT, once a statement: what comes next in the transaction is like any other.
#[pg_trigger]
pub fn end_restore<'a>(
    _trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByRust>>, PgTriggerError> {
    if BEGUN.replace(false) {
        set_role(c"origin");
    }
    Ok(None)
}

/// Whether a superuser's own statement runs here, and it is `pg_restore`'s. Anybody may take that name, and
/// inside a SECURITY DEFINER function anybody is its owner: that is why all three are asked.
#[allow(unsafe_code)]
fn is_restoring() -> bool {
    // SAFETY: reads variables of this backend; the name is NUL-terminated where there is one.
    unsafe {
        let name = pg_sys::application_name;
        pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_ORIGIN as i32
            && !name.is_null()
            && CStr::from_ptr(name) == c"pg_restore"
            && pg_sys::superuser()
            && !pg_sys::InLocalUserIdChange()
    }
}

/// For the rest of the transaction. What has been planned is planned anew, as Postgres does for SET.
#[allow(unsafe_code)]
fn set_role(role: &CStr) {
    // SAFETY: both texts are copied, and the parameter is there.
    unsafe {
        pg_sys::set_config_option(
            c"session_replication_role".as_ptr(),
            role.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}
