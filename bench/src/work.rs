//! What a delivery, and a second without one, cost the database: statements and rows, as Postgres
//! counts them.

use std::time::Duration;

use klaxon_tests::until::until_within;
use tokio_postgres::Client;

use crate::emit::insert;
use crate::plan::Plan;
use crate::report::Report;
use crate::stage::{Stage, WORKER, preloaded};

const EVENTS: i64 = 20_000;
const LIMIT: Duration = Duration::from_secs(120);

/// Rows a table's writers have written.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    inserted: i64,
    updated: i64,
    deleted: i64,
}

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let cluster = preloaded("pg_klaxon,pg_stat_statements")?;
    let stage = Stage::set(&cluster).await?;
    let client = &stage.client;
    client.batch_execute("CREATE EXTENSION pg_stat_statements; SET synchronous_commit = on").await?;
    stage.relay().await?;
    for channel in ["a", "b", "c", "d"] {
        stage.webhook(channel, "run.failed").await?;
    }
    let worker = stage.worker(&[]).await;
    insert(client, "klaxon.event", "run.failed", EVENTS / 4).await?;
    until_within(LIMIT, client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;

    report.section("The database's work: statements and rows");
    let (mut statements, mut a_batch) = (Vec::new(), Vec::new());
    let (mut inserts, mut deletes, mut logged, mut others) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds() {
        flush(client).await;
        let (outbox, delivery, all) = tables(client).await?;
        client.batch_execute("SELECT pg_stat_statements_reset()").await?;
        insert(client, "klaxon.event", "run.failed", EVENTS / 4).await?;
        until_within(LIMIT, client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
        let calls = calls(client).await?;
        flush(client).await;
        let (outbox_after, delivery_after, all_after) = tables(client).await?;
        let a_delivery = |rows: i64| rows as f64 / EVENTS as f64;
        statements.push(a_delivery(calls.all));
        a_batch.push(calls.settling as f64 / calls.batches as f64);
        inserts.push(a_delivery(outbox_after.inserted - outbox.inserted));
        deletes.push(a_delivery(outbox_after.deleted - outbox.deleted));
        logged.push(a_delivery(delivery_after.inserted - delivery.inserted));
        others.push(a_delivery(all_after - all));
    }
    report.row("statements of the worker a delivery, 20,000 pending in four channels", &statements);
    report.row("statements a settled batch of up to 500, BEGIN and COMMIT included", &a_batch);
    report.row("rows inserted into the outbox a delivery", &inserts);
    report.row("rows deleted from it", &deletes);
    report.row("rows inserted into the audit log", &logged);
    report.row("rows written to any other table but the events", &others);

    // Nothing to do, once the log has said what there is to say of itself: what is left is the heartbeat.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let (mut idle, seconds) = (Vec::new(), plan.pick(5, 20));
    for _ in 0..plan.rounds() {
        client.batch_execute("SELECT pg_stat_statements_reset()").await?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        idle.push(calls(client).await?.all as f64 / seconds as f64);
    }
    report.row("statements a second of a worker without work", &idle);
    drop(worker);
    let worker = stage.worker(&[]).await;
    tokio::time::sleep(Duration::from_secs(plan.pick(2, 10))).await;
    report.row("MB of memory of a worker that never had work", &[worker.peak_memory() as f64 / 1e6]);
    Ok(())
}

/// Statements of the worker's role since the last reset.
struct Calls {
    all: i64,
    /// Those of settling batches.
    settling: i64,
    batches: i64,
}

async fn calls(client: &Client) -> anyhow::Result<Calls> {
    let row = client
        .query_one(
            "SELECT coalesce(sum(s.calls), 0)::bigint,
                    coalesce(sum(s.calls) FILTER (WHERE s.query ~ '^(BEGIN|COMMIT)|klaxon\\.audit_head|DELETE FROM klaxon\\.outbox|channel_state'), 0)::bigint,
                    coalesce(max(s.calls) FILTER (WHERE s.query ~ 'INSERT INTO klaxon\\.delivery'), 0)::bigint
             FROM pg_stat_statements AS s
             WHERE s.userid = $1::text::regrole AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &[&WORKER],
        )
        .await?;
    Ok(Calls { all: row.get(0), settling: row.get(1), batches: row.get(2) })
}

/// Sessions report what they wrote at most once a second.
async fn flush(client: &Client) {
    let reported = "(SELECT sum(n_tup_ins) FROM pg_stat_user_tables WHERE relname = 'delivery') = (SELECT count(*) FROM klaxon.delivery WHERE true)
         AND (SELECT sum(n_tup_del) FROM pg_stat_user_tables WHERE relname = 'outbox') = (SELECT sum(n_tup_ins) FROM pg_stat_user_tables WHERE relname = 'outbox')";
    until_within(LIMIT, client, reported).await;
}

/// Rows written to the outbox, the log, and all other tables but the events.
async fn tables(client: &Client) -> anyhow::Result<(Written, Written, i64)> {
    let rows = client
        .query("SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE schemaname = 'klaxon'", &[])
        .await?;
    let (mut outbox, mut delivery, mut others) = (Written::default(), Written::default(), 0);
    for row in &rows {
        let written = Written { inserted: row.get(1), updated: row.get(2), deleted: row.get(3) };
        match row.get("relname") {
            "outbox" => outbox = written,
            "delivery" => delivery = written,
            "event" => {}
            _ => others += written.inserted + written.updated + written.deleted,
        }
    }
    others += outbox.updated + delivery.updated + delivery.deleted;
    Ok((outbox, delivery, others))
}
