//! Telling the worker, and inboxes, that there is something to read after this commit.

use std::ffi::{CStr, c_char};

use crate::setting::{WAKEUP, Wakeup};

/// Deliveries were written to the outbox.
pub const OUTBOX: &CStr = c"klaxon_outbox";
/// Inbox rows were written.
pub const INBOX: &CStr = c"klaxon_inbox";
/// Channels, projects or subscriptions changed.
pub const CONFIG: &CStr = c"klaxon_config";

// Exported by the server, absent from pgrx's bindings.
#[allow(unsafe_code)]
unsafe extern "C-unwind" {
    fn Async_Notify(channel: *const c_char, payload: *const c_char);
}

/// Fires a payload-free notification at commit. Postgres folds equal ones of a transaction into
/// one, so calling this once per statement costs one wake-up per transaction.
#[allow(unsafe_code)]
pub fn at_commit(channel: &'static CStr) {
    if WAKEUP.get() == Wakeup::Poll {
        return;
    }
    // SAFETY: inside a transaction, with NUL-terminated strings that Postgres copies.
    unsafe { Async_Notify(channel.as_ptr(), c"".as_ptr()) }
}
