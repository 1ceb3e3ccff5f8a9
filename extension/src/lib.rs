//! The Postgres half of pg_klaxon: it matches events inside the transaction that emits them.
//!
//! | module | Postgres facility it wraps |
//! |---|---|
//! | [`emit`] | the statement trigger on `klaxon.event` |
//! | [`explain`] | who would hear of an event, and why not |
//! | [`redeliver`] | dead letters and past events, once more |
//! | [`matcher`] | the subscriptions of one event type and project, compiled, per backend |
//! | [`condition`] | what their filters say, compiled |
//! | [`relcache`] | the invalidation that drops them |
//! | [`schema`] | whether the library goes with the schema |
//! | [`snapshot`] | the snapshot the matchers are read under |
//! | [`transition`] | the transition table of a statement trigger |
//! | [`restore`] | foreign keys that step aside while a dump is restored |
//! | [`journal`] | changes of the configuration, for the audit log |
//! | [`jsonb`] | `jsonb`, read where it lies |
//! | [`channel`] | masking and sealing of channels' secrets |
//! | [`subscription`] | validation of what subscriptions say |
//! | [`digest`] | time zones that the server knows |
//! | [`deadline`] | a timer around one call into Postgres |
//! | [`watch`] | the trigger on watched tables, and what sets it up |
//! | [`subtransaction`] | errors that are caught, and undone |
//! | [`wakeup`] | `NOTIFY`, or the relay's part of it |
//! | [`relay`] | shared memory and the background worker that notifies for others |
//! | [`trace`] | where in a trace a session emits |
//! | [`setting`] | configuration parameters |
//!
//! Tables, views, policies and plain functions are SQL, one concept a file, under `sql/`.

use pgrx::prelude::*;

mod channel;
mod condition;
mod deadline;
mod digest;
mod emit;
mod explain;
mod failure;
mod identity;
mod journal;
mod jsonb;
mod jsonpath;
mod matcher;
mod redeliver;
mod relay;
mod relcache;
mod restore;
mod schema;
mod setting;
mod snapshot;
mod subscription;
mod subtransaction;
mod trace;
mod transition;
mod wakeup;
mod watch;

::pgrx::pg_module_magic!(name, version);

#[pg_guard]
#[allow(non_snake_case)]
pub extern "C-unwind" fn _PG_init() {
    let preloading = relay::is_preloading();
    setting::define(preloading);
    relcache::watch();
    if preloading {
        relay::install();
    }
}

// One after another, so that the generated schema reads the same every time.
extension_sql_file!("../../sql/roles.sql", name = "roles", bootstrap);
extension_sql_file!("../../sql/project.sql", name = "project", requires = ["roles"]);
extension_sql_file!("../../sql/event_type.sql", name = "event_type", requires = ["project"]);
extension_sql_file!(
    "../../sql/channel.sql",
    name = "channel",
    requires = ["event_type", channel::is_channel_kind, channel::holds_no_secret]
);
extension_sql_file!("../../sql/subscription.sql", name = "subscription", requires = ["channel"]);
extension_sql_file!(
    "../../sql/event.sql",
    name = "event",
    requires = ["subscription", identity::uuid_v7, identity::principal, trace::traceparent]
);
extension_sql_file!("../../sql/outbox.sql", name = "outbox", requires = ["event"]);
extension_sql_file!("../../sql/delivery.sql", name = "delivery", requires = ["outbox"]);
extension_sql_file!("../../sql/inbox.sql", name = "inbox", requires = ["delivery"]);
extension_sql_file!("../../sql/agent.sql", name = "agent", requires = ["inbox"]);
extension_sql_file!("../../sql/worker.sql", name = "worker", requires = ["agent"]);
extension_sql_file!(
    "../../sql/trigger.sql",
    name = "trigger",
    requires = [
        "worker",
        emit::match_events,
        relcache::configuration_changed,
        channel::begin_channels,
        channel::mask_channel,
        channel::seal_channel,
        subscription::check_subscription
    ]
);
extension_sql_file!("../../sql/emit.sql", name = "emit", requires = ["trigger", channel::check_public_key]);
extension_sql_file!("../../sql/membership.sql", name = "membership", requires = ["emit"]);
extension_sql_file!("../../sql/scope.sql", name = "scope", requires = ["membership"]);
extension_sql_file!("../../sql/cooldown.sql", name = "cooldown", requires = ["scope"]);
extension_sql_file!(
    "../../sql/digest.sql",
    name = "digest",
    requires = ["cooldown", digest::known_timezone, channel::is_link]
);
extension_sql_file!("../../sql/tick.sql", name = "tick", requires = ["digest"]);
extension_sql_file!("../../sql/status.sql", name = "status", requires = ["tick", identity::version]);
extension_sql_file!("../../sql/retention.sql", name = "retention", requires = ["status"]);
extension_sql_file!(
    "../../sql/journal.sql",
    name = "journal",
    requires = ["retention", journal::record_change]
);
extension_sql_file!("../../sql/watch_query.sql", name = "watch_query", requires = ["journal"]);
extension_sql_file!(
    "../../sql/watcher.sql",
    name = "watcher",
    requires = [
        "watch_query",
        watch::watched,
        watch::poll_watcher,
        watch::setup::watch,
        watch::setup::watch_runs,
        watch::setup::watch_tasks,
        watch::setup::watch_agents,
        watch::setup::unwatch
    ]
);
extension_sql_file!(
    "../../sql/channel_test.sql",
    name = "channel_test",
    requires = ["watcher", redeliver::request_channel_test, channel::request_config_test]
);
extension_sql_file!(
    "../../sql/restore.sql",
    name = "restore",
    requires = ["channel_test", restore::begin_restore, restore::end_restore]
);
extension_sql_file!(
    "../../sql/policy.sql",
    name = "policy",
    requires =
        ["restore", identity::version, explain::explain_event, redeliver::retry_dead, redeliver::replay]
);
extension_sql_file!("../../sql/dump.sql", name = "dump", requires = ["policy"], finalize);

#[cfg(any(test, feature = "pg_test"))]
mod tests;

/// What `cargo pgrx test` needs of a crate.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![]
    }
}
