//! Telling the worker, and inboxes, that there is something to read after this commit.

use std::ffi::{CStr, c_char};

use crate::relay;
use crate::setting::{self, Wakeup};

/// What there may be to read: a channel of `NOTIFY` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Deliveries were written to the outbox.
    Outbox,
    /// Inbox rows were written.
    Inbox,
    /// Channels, projects or subscriptions changed.
    Config,
}

impl Signal {
    pub const ALL: [Self; 3] = [Self::Outbox, Self::Inbox, Self::Config];

    /// The channel one LISTENs to.
    fn channel(self) -> &'static CStr {
        match self {
            Self::Outbox => c"klaxon_outbox",
            Self::Inbox => c"klaxon_inbox",
            Self::Config => c"klaxon_config",
        }
    }
}

// Exported by the server, absent from pgrx's bindings.
#[allow(unsafe_code)]
unsafe extern "C-unwind" {
    fn Async_Notify(channel: *const c_char, payload: *const c_char);
}

/// Fires a signal once this transaction has committed, and not if it does not.
pub fn at_commit(signal: Signal) {
    match setting::wakeup() {
        Wakeup::Poll => {}
        Wakeup::Relay if relay::serves_this_database() => relay::at_commit(signal),
        Wakeup::Relay | Wakeup::Notify => notify(signal),
    }
}

/// A payload-free notification at commit. Postgres folds equal ones of a transaction into one, so
/// calling this once per statement costs one wake-up per transaction.
#[allow(unsafe_code)]
pub fn notify(signal: Signal) {
    // SAFETY: inside a transaction, with NUL-terminated strings that Postgres copies.
    unsafe { Async_Notify(signal.channel().as_ptr(), c"".as_ptr()) }
}
