//! The snapshot a cache is filled under.

use pgrx::prelude::*;

/// Runs queries under a snapshot taken now. A read-only query of SPI uses the active one, which in a
/// cursor or a STABLE function may be older than an invalidation this backend has already processed:
/// what is read under it must not be kept.
#[allow(unsafe_code)]
pub fn latest<T>(read: impl FnOnce() -> T) -> T {
    // SAFETY: pushed and popped in pairs. If `read` raises, the transaction's or subtransaction's
    // abort pops it, as Postgres relies on everywhere.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let done = read();
        pg_sys::PopActiveSnapshot();
        done
    }
}
