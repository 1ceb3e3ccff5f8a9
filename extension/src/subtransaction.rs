//! Work that may raise, undone when it does: a subtransaction, as PL/pgSQL's EXCEPTION has one.

use std::ffi::{CStr, CString};
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use crate::failure;

/// An error that was caught, and what it had done undone.
#[derive(Clone, Debug)]
pub struct Caught {
    pub code: PgSqlErrorCode,
    pub message: String,
    detail: Option<String>,
    hint: String,
}

impl Caught {
    /// A value that cannot be.
    pub fn invalid(message: String) -> Self {
        let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
        Self { code, message, detail: None, hint: String::new() }
    }

    /// Raises it again, as it was.
    pub fn raise(self) -> ! {
        failure::raise(self.code, self.message, self.detail, &self.hint)
    }

    /// Five characters.
    #[allow(unsafe_code)]
    pub fn sqlstate(&self) -> String {
        // SAFETY: the result is a static, NUL-terminated buffer that is copied at once.
        unsafe { CStr::from_ptr(pg_sys::unpack_sql_state(self.code as i32)).to_string_lossy().into_owned() }
    }
}

/// Runs something in a subtransaction.
///
/// # Errors
/// What it raised; except cancels, shutdowns, and what the whole transaction has to be tried again for: these are raised
/// again, what it had done undone. Who holds something of the transaction around it lets go of that as they pass, which is
/// only allowed once the subtransaction has ended.
#[allow(unsafe_code)]
pub fn attempt<T>(work: impl FnOnce() -> T) -> Result<T, Caught> {
    let name = CString::default();
    // SAFETY: begun and ended in pairs, with the memory context and resource owner put back, as
    // PL/pgSQL does it. Rolling back restores role, settings and SPI connections to what they were.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(name.as_ptr());
        pg_sys::MemoryContextSwitchTo(context);
        let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
            .catch_others(|error| Err(Box::new(error)))
            .execute();
        if result.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result.map_err(|error| caught(*error))
    }
}

/// What an error says, unless it is not for anybody here to catch.
fn caught(error: CaughtError) -> Caught {
    match &error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
            match report.sql_error_code() {
                PgSqlErrorCode::ERRCODE_QUERY_CANCELED
                | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN
                | PgSqlErrorCode::ERRCODE_CRASH_SHUTDOWN
                | PgSqlErrorCode::ERRCODE_DATABASE_DROPPED
                | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
                | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED => error.rethrow(),
                code => Caught {
                    code,
                    message: report.message().to_owned(),
                    detail: report.detail().map(str::to_owned),
                    hint: report.hint().unwrap_or_default().to_owned(),
                },
            }
        }
        CaughtError::RustPanic { .. } => error.rethrow(),
    }
}
