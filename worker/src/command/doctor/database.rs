//! What is examined in a database.

use std::cmp::Ordering;
use std::time::{Duration, SystemTime};

use klaxon_model::version::Version;
use tokio::time::timeout;
use tokio_postgres::{Client, Row};

use super::{Findings, egress};
use crate::config::Settings;
use crate::database::{Session, describe};
use crate::deployment;
use crate::keys::Keys;
use crate::ownership;
use crate::schedule::Shards;

/// What Postgres says of itself, in one look.
const FACTS: &str = include_str!("facts.sql");
/// Who stands in the workers' way.
const HOLDERS: &str = include_str!("../../sql/holders.sql");
/// How far apart the clocks may be: receivers of Standard Webhooks take five minutes.
const SKEW: f64 = 60.0;
/// How long a notification may take.
const NOTIFICATION: Duration = Duration::from_secs(3);
/// Seconds for which a transaction may hold back vacuum without being named.
const OLD: f64 = 3600.0;

/// Examines all of it. What the connection does not survive is a finding, too.
pub async fn examine(session: Session, settings: &Settings, keys: Option<&Keys>, findings: &mut Findings) {
    if let Err(error) = checks(session, settings, keys, findings).await {
        findings.fail(
            "questions",
            format!("{error:#}"),
            "GRANT klaxon_worker TO the role of database-url, and run this again",
        );
    }
}

async fn checks(
    mut session: Session,
    settings: &Settings,
    keys: Option<&Keys>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let facts = session.client.query_one(FACTS, &[]).await.map_err(describe)?;
    postgres(&facts, findings)?;
    replication(&facts, findings)?;
    if !installed(&session.client, settings, keys, findings).await {
        return Ok(());
    }
    rights(&facts, findings)?;
    versions(&session.client, findings).await?;
    wake_up(&session.client, findings).await?;
    pooler(&mut session, findings).await?;
    upkeep(&facts, findings)?;
    restored(&session.client, findings).await?;
    workers(&session.client, findings).await?;
    shards(&session.client, findings).await?;
    if keys.is_some() {
        egress::examine(&session.client, settings, findings).await?;
    }
    Ok(())
}

/// Version, durability, clock.
fn postgres(facts: &Row, findings: &mut Findings) -> anyhow::Result<()> {
    let (version, number): (String, i32) = (facts.try_get("version")?, facts.try_get("version_num")?);
    if (150_000..190_000).contains(&number) {
        findings.ok("postgres", version);
    } else {
        findings.fail(
            "postgres",
            format!("{version} is none of 15 to 18"),
            "upgrade Postgres to 15 or later",
        );
    }
    let off: Vec<String> = facts.try_get("not_durable")?;
    if off.is_empty() {
        findings.ok("durability", "fsync, full_page_writes and synchronous_commit are on");
    } else {
        let mend: Vec<String> = off.iter().map(|name| format!("ALTER SYSTEM RESET {name}")).collect();
        findings.warn(
            "durability",
            format!("{} is off: a crash of the server loses what it had committed", off.join(" and ")),
            format!("{}; SELECT pg_reload_conf()", mend.join("; ")),
        );
    }
    let there: f64 = facts.try_get("clock")?;
    let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let skew = (here - there).abs();
    if skew < SKEW {
        findings.ok("clock", format!("{skew:.0} s from the database's"));
    } else {
        findings.warn(
            "clock",
            format!("{skew:.0} s from the database's: receivers refuse signatures that are 5 minutes off"),
            "timedatectl set-ntp true",
        );
    }
    Ok(())
}

/// Whether the extension is there, of this version and of this deployment.
async fn installed(
    client: &Client,
    settings: &Settings,
    keys: Option<&Keys>,
    findings: &mut Findings,
) -> bool {
    let refused = match keys {
        Some(keys) => deployment::check(client, settings.deployment_id.as_deref(), keys).await.err(),
        None => deployment::read(client).await.err(),
    };
    let Some(error) = refused else {
        findings.ok("deployment", settings.deployment_id.as_deref().unwrap_or("not checked"));
        return true;
    };
    let said = format!("{error:#}");
    let (detail, mend) = said.split_once("run ").unwrap_or((&said, "see docs/operations.md"));
    findings.fail("deployment", detail.trim_end_matches([':', ';', ' ', ',']), mend);
    false
}

/// What the worker's role may.
fn rights(facts: &Row, findings: &mut Findings) -> anyhow::Result<()> {
    let role: String = facts.try_get("role")?;
    let (member, superuser): (bool, bool) = (facts.try_get("is_worker")?, facts.try_get("is_superuser")?);
    match (member, superuser) {
        (_, true) => findings.warn(
            "role",
            format!("{role} is a superuser, and the worker needs no more than klaxon_worker"),
            "CREATE ROLE klaxon LOGIN IN ROLE klaxon_worker, and use it in database-url",
        ),
        (true, false) => findings.ok("role", format!("{role} is a member of klaxon_worker")),
        (false, false) => findings.fail(
            "role",
            format!("{role} is no member of klaxon_worker"),
            format!("GRANT klaxon_worker TO {role}"),
        ),
    }
    Ok(())
}

/// Library, schema and worker.
async fn versions(client: &Client, findings: &mut Findings) -> anyhow::Result<()> {
    let row = client
        .query_one(
            "SELECT klaxon.version(), extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_klaxon'",
            &[],
        )
        .await
        .map_err(describe)?;
    let (library, schema): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let worker = env!("CARGO_PKG_VERSION");
    if library == worker && schema == worker {
        findings.ok("versions", format!("library, schema and worker are {worker}"));
    } else {
        let mend = match Version::parse(&library).cmp(&Version::parse(&schema)) {
            _ if schema == library => format!("install the worker of version {schema}"),
            Ordering::Less => "install the library of the schema's version, and restart Postgres".to_owned(),
            _ => "ALTER EXTENSION pg_klaxon UPDATE".to_owned(),
        };
        findings.warn("versions", format!("library {library}, schema {schema}, worker {worker}"), mend);
    }
    Ok(())
}

/// How the worker learns of what was committed.
async fn wake_up(client: &Client, findings: &mut Findings) -> anyhow::Result<()> {
    let row = client
        .query_one(
            // The list of libraries is hidden from most roles; the parameter's default tells as much.
            "SELECT s.setting, s.boot_val = 'relay', pg_catalog.current_setting('klaxon.relay_database'),
                    pg_catalog.current_database()::text
             FROM pg_catalog.pg_settings AS s WHERE s.name = 'klaxon.wakeup'",
            &[],
        )
        .await
        .map_err(describe)?;
    let (mode, preloaded): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
    let (relayed, here): (String, String) = (row.try_get(2)?, row.try_get(3)?);
    match mode.as_str() {
        "relay" if !preloaded => findings.warn(
            "wakeup",
            "relay, but the library is not preloaded: it acts as notify",
            "add pg_klaxon to shared_preload_libraries, and restart Postgres",
        ),
        "relay" if relayed != here => findings.warn(
            "wakeup",
            format!("relay, but klaxon.relay_database is \"{relayed}\": in {here} it acts as notify"),
            format!("ALTER SYSTEM SET klaxon.relay_database = '{here}'; SELECT pg_reload_conf()"),
        ),
        "notify" => findings.ok(
            "wakeup",
            "notify: transactions that notify commit one at a time; relay, by shared_preload_libraries, lifts that",
        ),
        _ => findings.ok("wakeup", mode),
    }
    Ok(())
}

/// Whether there is a pooler in between that takes the session apart.
async fn pooler(session: &mut Session, findings: &mut Findings) -> anyhow::Result<()> {
    let pid = || async {
        let row = session.client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?;
        row.try_get::<_, i32>(0)
    };
    let channel = format!("klaxon_doctor_{}", uuid::Uuid::new_v4().simple());
    session.client.batch_execute(&format!("LISTEN {channel}")).await.map_err(describe)?;
    let first = pid().await.map_err(describe)?;
    session.client.batch_execute(&format!("NOTIFY {channel}")).await.map_err(describe)?;
    let arrives = async {
        while let Some(notification) = session.notifications.recv().await {
            if notification.channel() == channel {
                return true;
            }
        }
        false
    };
    let arrived = timeout(NOTIFICATION, arrives).await.unwrap_or(false);
    let same = pid().await.map_err(describe)? == first;
    if arrived && same {
        findings.ok("session", "notifications arrive, over a session of its own");
    } else {
        findings.fail(
            "session",
            "notifications do not arrive: a pooler in transaction mode stands in between",
            "give the worker a connection of its own: the server's host and port in database-url",
        );
    }
    Ok(())
}

/// What keeps dead rows.
fn upkeep(facts: &Row, findings: &mut Findings) -> anyhow::Result<()> {
    let without: Vec<String> = facts.try_get("without_autovacuum")?;
    let enabled: bool = facts.try_get("autovacuum")?;
    if !enabled {
        findings.warn(
            "autovacuum",
            "is off: the outbox's dead rows are never taken away",
            "ALTER SYSTEM RESET autovacuum; SELECT pg_reload_conf()",
        );
    } else if without.is_empty() {
        findings.ok("autovacuum", "on");
    } else {
        let mend: Vec<String> =
            without.iter().map(|table| format!("ALTER TABLE {table} RESET (autovacuum_enabled)")).collect();
        findings.warn("autovacuum", format!("is off for {}", without.join(", ")), mend.join("; "));
    }
    let oldest: Option<f64> = facts.try_get("oldest_transaction")?;
    match oldest.filter(|age| *age > OLD) {
        None => findings.ok("transactions", "none has held back vacuum for an hour"),
        Some(age) => findings.warn(
            "transactions",
            format!("one has held back vacuum for {:.0} minutes", age / 60.0),
            "SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xmin IS NOT NULL ORDER BY xact_start, \
             then pg_terminate_backend(pid)",
        ),
    }
    let slots: Vec<String> = facts.try_get("idle_slots")?;
    if !slots.is_empty() {
        findings.warn(
            "replication slots",
            format!("nobody reads from {}: vacuum and WAL wait for it", slots.join(", ")),
            format!("SELECT pg_drop_replication_slot('{}')", slots[0]),
        );
    }
    Ok(())
}

/// What leaves our tables for other servers by logical replication, and what comes from there.
fn replication(facts: &Row, findings: &mut Findings) -> anyhow::Result<()> {
    let published: Vec<String> = facts.try_get("published")?;
    for publication in published {
        findings.warn(
            "logical replication",
            format!(
                "publication {publication} of klaxon's tables: a subscriber gets rows and nothing else. No trigger fires \
                 for them, so that nothing is matched there; sequences stay behind; what is pending has transaction ids \
                 of this cluster, and a worker that served it there would send it a second time"
            ),
            "publish your own tables alone: ALTER PUBLICATION … SET TABLE …; for a second server take a physical standby",
        );
    }
    let subscribed: Vec<String> = facts.try_get("subscribed")?;
    for subscription in subscribed {
        findings.fail(
            "logical replication",
            format!(
                "subscription {subscription} of klaxon's tables: no trigger fires for what arrives, so that no event of \
                 it is matched; ids that it brings are given again by the sequences here; what is pending on the \
                 publisher is its workers' to send, and would be sent from here, too"
            ),
            "ALTER SUBSCRIPTION … REFRESH PUBLICATION, once the publisher publishes its own tables alone, and run no worker here",
        );
    }
    Ok(())
}

/// Whether all of it was restored. Foreign keys step aside for `pg_restore`, so that a part of a dump may be
/// there without the rest.
async fn restored(client: &Client, findings: &mut Findings) -> anyhow::Result<()> {
    let known = client
        .query_one("SELECT pg_catalog.to_regprocedure('klaxon.orphans()') IS NOT NULL", &[])
        .await
        .map_err(describe)?;
    // A schema from before there was such a function.
    if !known.try_get::<_, bool>(0)? {
        return Ok(());
    }
    let rows = client
        .query("SELECT relation, field, target, orphans FROM klaxon.orphans()", &[])
        .await
        .map_err(describe)?;
    let mut found = Vec::new();
    for row in rows {
        let (relation, field, target): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let orphans: i64 = row.try_get(3)?;
        found.push(format!("{orphans} of {relation} by {field}, which is not in {target}"));
    }
    if found.is_empty() {
        findings.ok("references", "every row points to one that is there");
    } else {
        findings.warn(
            "references",
            format!("rows point nowhere: {}", found.join("; ")),
            "restore what they point to, from the same dump, or delete them",
        );
    }
    Ok(())
}

/// Who serves it.
async fn workers(client: &Client, findings: &mut Findings) -> anyhow::Result<()> {
    let row = client
        .query_one("SELECT value FROM klaxon.status() WHERE item = 'workers'", &[])
        .await
        .map_err(describe)?;
    match row.try_get::<_, Option<String>>(0)?.as_deref() {
        None | Some("0") => findings.warn("workers", "none is alive: nothing is delivered", "klaxon run"),
        Some(alive) => findings.ok("workers", format!("{alive} alive")),
    }
    Ok(())
}

/// Whether somebody else has what workers own their shards by.
async fn shards(client: &Client, findings: &mut Findings) -> anyhow::Result<()> {
    let holders = ownership::holders(client, HOLDERS, Shards::all()).await.map_err(describe)?;
    if holders.is_empty() {
        findings.ok("shards", "nobody but workers has their locks");
    }
    for holder in holders {
        let (who, mend) = match holder.pid {
            Some(pid) => (
                format!("process {pid} of role {}", holder.role.as_deref().unwrap_or("unknown")),
                format!("SELECT pg_terminate_backend({pid})"),
            ),
            None => (
                "a prepared transaction".to_owned(),
                "SELECT gid FROM pg_prepared_xacts, then ROLLBACK PREPARED".to_owned(),
            ),
        };
        let detail =
            format!("{who} is no worker, and has the locks of {}: nobody delivers them", holder.shards);
        findings.fail("shards", detail, mend);
    }
    Ok(())
}
