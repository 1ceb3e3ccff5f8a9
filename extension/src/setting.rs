//! The extension's configuration parameters.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

/// How the worker is told that something was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum Wakeup {
    /// A background worker notifies, so that application transactions never do. Without the
    /// library in `shared_preload_libraries` the same as `notify`.
    #[name = c"relay"]
    Relay,
    /// At most one payload-free `NOTIFY` a transaction.
    #[name = c"notify"]
    Notify,
    /// Nothing is fired; the worker polls.
    #[name = c"poll"]
    Poll,
}

pub static PRINCIPAL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
pub static TRACEPARENT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
/// One of the two is the parameter: its default differs.
static WAKEUP: GucSetting<Wakeup> = GucSetting::<Wakeup>::new(Wakeup::Notify);
static WAKEUP_PRELOADED: GucSetting<Wakeup> = GucSetting::<Wakeup>::new(Wakeup::Relay);
static PRELOADED: AtomicBool = AtomicBool::new(false);
static RELAY_DATABASE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"postgres"));
pub static MAX_PAYLOAD_BYTES: GucSetting<i32> = GucSetting::<i32>::new(256 * 1024);
pub static ALLOW_HTTP: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Whether the library came with the server, by `shared_preload_libraries`.
pub fn is_preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// How the worker is to be told.
pub fn wakeup() -> Wakeup {
    if is_preloaded() { WAKEUP_PRELOADED.get() } else { WAKEUP.get() }
}

/// Where the relay notifies.
pub fn relay_database() -> String {
    RELAY_DATABASE.get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Defines them all; once, from `_PG_init`.
pub fn define(preloaded: bool) {
    PRELOADED.store(preloaded, Ordering::Relaxed);
    GucRegistry::define_string_guc(
        c"klaxon.principal",
        c"Who acts, for a session that serves many users.",
        c"Counts only where the current role is a member of klaxon_app.",
        &PRINCIPAL,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"klaxon.traceparent",
        c"Where in a trace this session emits, as W3C Trace Context writes it.",
        c"Recorded with each event, unless its payload has a traceparent. What is none is taken for absent.",
        &TRACEPARENT,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"klaxon.wakeup",
        c"How the worker is told that something was committed.",
        c"relay, notify or poll.",
        if preloaded { &WAKEUP_PRELOADED } else { &WAKEUP },
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"klaxon.relay_database",
        c"The database in which the relay notifies.",
        c"In others, relay acts as notify. Counts where the library is in shared_preload_libraries.",
        &RELAY_DATABASE,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"klaxon.max_payload_bytes",
        c"Largest payload an event may have.",
        c"Measured on the jsonb as Postgres holds it in memory.",
        &MAX_PAYLOAD_BYTES,
        1024,
        64 * 1024 * 1024,
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
    GucRegistry::define_bool_guc(
        c"klaxon.allow_http",
        c"Whether a webhook's url may be http.",
        c"The worker has a switch of its own.",
        &ALLOW_HTTP,
        GucContext::Suset,
        GucFlags::default(),
    );
}
