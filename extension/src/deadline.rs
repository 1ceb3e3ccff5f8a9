//! A bound on the time of the processor that one call into Postgres may take: its own timer, and a catch for the error.
//! A machine that has other things to do does not make a call long.
//!
//! For pure functions only: what is caught here left no lock, buffer or row behind, so that no
//! subtransaction is needed to clean up after it.

use std::cell::Cell;
use std::ffi::c_int;
use std::panic::{RefUnwindSafe, UnwindSafe};

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

/// What any identifier from `USER_TIMEOUT` up asks `RegisterTimeout` for: a free one. Its value
/// differs by version (12 in 15, 13 from 17 on), and the ten that may be asked for overlap here.
const ANY_USER_TIMEOUT: c_int = 16;

#[allow(unsafe_code)]
unsafe extern "C-unwind" {
    // From utils/timeout.h, which pgrx does not bind.
    fn RegisterTimeout(id: c_int, handler: unsafe extern "C-unwind" fn()) -> c_int;
    fn enable_timeout_every(id: c_int, first_at: pg_sys::TimestampTz, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
}

thread_local! {
    static TIMEOUT: Cell<Option<c_int>> = const { Cell::new(None) };
    static EXPIRED: Cell<bool> = const { Cell::new(false) };
    /// What the processor had spent on this backend when the timer first went off, in nanoseconds.
    static SPENT: Cell<Option<i64>> = const { Cell::new(None) };
    /// What a call may take, in milliseconds.
    static BOUND: Cell<c_int> = const { Cell::new(0) };
}

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It took too long.
    Expired,
    /// It raised this.
    Raised(String),
}

/// Calls a pure function of Postgres', for `milliseconds` of the processor's time or up to three times as many: it is looked
/// at as often as that passes by the clock, and counted from the first look. An error of it is a result here; a cancel or a
/// shutdown that somebody else asked for goes on.
///
/// # Errors
/// It took too long or raised an error.
pub fn within<T: 'static>(
    milliseconds: c_int,
    call: impl FnOnce() -> T + UnwindSafe + RefUnwindSafe,
) -> Result<T, Failure> {
    let timer = Timer::start(milliseconds);
    PgTryBuilder::new(|| Ok(call()))
        .catch_others(|error| match &error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
                match report.sql_error_code() {
                    PgSqlErrorCode::ERRCODE_QUERY_CANCELED if timer.expired() => Err(Failure::Expired),
                    PgSqlErrorCode::ERRCODE_QUERY_CANCELED
                    | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN
                    | PgSqlErrorCode::ERRCODE_CRASH_SHUTDOWN
                    | PgSqlErrorCode::ERRCODE_DATABASE_DROPPED => error.rethrow(),
                    _ => Err(Failure::Raised(report.message().to_owned())),
                }
            }
            CaughtError::RustPanic { .. } => error.rethrow(),
        })
        .finally(|| timer.stop())
        .execute()
}

struct Timer {
    id: c_int,
}

impl Timer {
    #[allow(unsafe_code)]
    fn start(milliseconds: c_int) -> Self {
        EXPIRED.set(false);
        SPENT.set(None);
        BOUND.set(milliseconds);
        // SAFETY: registered once a backend; the handler does what Postgres' own timeout handlers
        // do. Enabling is allowed anywhere outside a signal handler.
        unsafe {
            let id = TIMEOUT.get().unwrap_or_else(|| RegisterTimeout(ANY_USER_TIMEOUT, expire));
            TIMEOUT.set(Some(id));
            let first_at = pg_sys::GetCurrentTimestamp() + i64::from(milliseconds) * 1000;
            enable_timeout_every(id, first_at, milliseconds);
            Self { id }
        }
    }

    fn expired(&self) -> bool {
        EXPIRED.get()
    }

    #[allow(unsafe_code)]
    fn stop(&self) {
        // SAFETY: the timeout was registered. A timer that went off after the call's last look at
        // interrupts has left a cancel behind, which is nobody's.
        unsafe {
            disable_timeout(self.id, false);
            if EXPIRED.get() && pg_sys::QueryCancelPending != 0 {
                pg_sys::QueryCancelPending = 0;
            }
        }
    }
}

/// Runs inside a signal handler, each time the bound has passed by the clock: looks at the processor's, which may be done
/// there, sets flags that the call looks at, and nothing else.
#[allow(unsafe_code)]
unsafe extern "C-unwind" fn expire() {
    let now = spent();
    let Some(before) = SPENT.get() else { return SPENT.set(Some(now)) };
    if now - before < i64::from(BOUND.get()) * 1_000_000 {
        return;
    }
    // A cancel that somebody else asked for is theirs.
    // SAFETY: the flags are sig_atomic_t, made to be written here.
    unsafe {
        if pg_sys::QueryCancelPending == 0 {
            EXPIRED.set(true);
            pg_sys::QueryCancelPending = 1;
            pg_sys::InterruptPending = 1;
        }
    }
}

/// What the processor has spent on this backend, in nanoseconds.
#[allow(unsafe_code)]
fn spent() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time into its argument; a signal handler may call it.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
