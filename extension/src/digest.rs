//! When digests are due.

use std::panic::AssertUnwindSafe;

use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

use crate::deadline::within;

/// What finding a time zone may take, in milliseconds: it reads a file at most.
const BOUND_MS: i32 = 1000;

/// That time zone, or UTC where the server knows none of that name: a dump may come from one that did, and an emitter
/// must not fail for it.
#[pg_extern(stable, strict, parallel_safe)]
#[allow(unsafe_code)]
pub fn known_timezone(timezone: &str) -> String {
    // SAFETY: what AT TIME ZONE calls; it is pure, and whatever it raises leaves only memory behind.
    let found = within(
        BOUND_MS,
        AssertUnwindSafe(|| unsafe {
            let epoch = TimestampWithTimeZone::try_from(0).ok().into_datum();
            pgrx::direct_function_call_as_datum(pg_sys::timestamptz_zone, &[timezone.into_datum(), epoch])
                .is_some()
        }),
    );
    if found.is_ok() { timezone.to_owned() } else { "UTC".to_owned() }
}
