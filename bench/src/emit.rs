//! What matching costs the transaction that emits, against a plain table and as subscriptions grow.

use std::time::Instant;

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use tokio_postgres::Client;

use crate::plan::Plan;
use crate::report::{Goal, Report, rates};

const BULK: i64 = 10_000;
const CALLS: i64 = 5_000;
const MANY: i64 = 100_000;
const GLOBS: i64 = 1_000;

/// A channel, and a subscription that hears of one type in one project.
const ONE: &str = "
    INSERT INTO klaxon.project (slug) SELECT 'p' || n FROM generate_series(0, 999) AS n;
    INSERT INTO klaxon.channel (name, kind, config) VALUES ('c', 'webhook', '{\"url\": \"https://x.example.com\"}');
    SELECT klaxon.subscribe(ARRAY['c'], ARRAY['run.failed'], project => 'p0', owner => NULL);";

pub async fn measure(cluster: &Cluster, plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    report.section("Emitting");
    bulk(cluster, plan, report).await?;
    many_subscriptions(cluster, plan, report).await?;
    many_globs(cluster, plan, report).await
}

/// Bulk inserts, against a plain table of the same columns.
async fn bulk(cluster: &Cluster, plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let database = Database::create(cluster);
    let client = database.connect().await;
    client.batch_execute(ONE).await?;
    client
        .batch_execute(
            "CREATE TABLE plain (LIKE klaxon.event INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
             ALTER TABLE plain ADD PRIMARY KEY (id);
             SELECT klaxon.subscribe(ARRAY['c'], ARRAY['run.finished'], owner => NULL)",
        )
        .await?;
    let (mut plain, mut silent, mut matched) = (Vec::new(), Vec::new(), Vec::new());
    // The first round fills caches and is not counted.
    for round in 0..=plan.rounds() * 3 {
        client.batch_execute("TRUNCATE plain, klaxon.event; DELETE FROM klaxon.outbox; CHECKPOINT").await?;
        let times = (
            insert(&client, "plain", "task.failed", BULK).await?,
            insert(&client, "klaxon.event", "task.failed", BULK).await?,
            insert(&client, "klaxon.event", "run.finished", BULK).await?,
        );
        if round > 0 {
            plain.push(times.0);
            silent.push(times.1);
            matched.push(times.2);
        }
    }
    report.rate(
        "rows a second, one insert of 10,000 into a plain table of the same columns",
        BULK as f64,
        &plain,
    );
    report.ratio("time of 10,000 events that match nothing, against that", &silent, &plain);
    report.goal(
        "bulk insert of events, one matching subscription each, against the plain rows",
        &rates(BULK as f64, &matched),
        &rates(BULK as f64, &plain),
        Goal::AtLeast(0.25),
    );
    Ok(())
}

/// One subscription, and 100,000 more of other types and projects: calls, and a fresh connection.
async fn many_subscriptions(cluster: &Cluster, plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let (few, many) = (Database::create(cluster), Database::create(cluster));
    let (at_few, at_many) = (few.connect().await, many.connect().await);
    at_few.batch_execute(ONE).await?;
    at_many.batch_execute(ONE).await?;
    at_many
        .batch_execute(&format!(
            "WITH others AS (
                 INSERT INTO klaxon.subscription (project, events)
                 SELECT 'p' || (1 + n % 999), ARRAY[CASE n % 3 WHEN 0 THEN 'task.failed' WHEN 1 THEN 'run.finished' ELSE 'task.*' END]
                 FROM generate_series(1, {MANY}) AS n
                 RETURNING id
             )
             INSERT INTO klaxon.subscription_channel (subscription_id, channel_id)
             SELECT others.id, c.id FROM others, klaxon.channel AS c"
        ))
        .await?;
    for client in [&at_few, &at_many] {
        client.batch_execute("VACUUM ANALYZE").await?;
    }
    let (mut one, mut all) = (Vec::new(), Vec::new());
    for round in 0..=plan.rounds() * 3 {
        let times = (calls(&at_few).await?, calls(&at_many).await?);
        if round > 0 {
            one.push(times.0);
            all.push(times.1);
        }
    }
    let per_call: Vec<f64> = one.iter().map(|seconds| seconds / CALLS as f64 * 1e6).collect();
    report.row("µs a call of notify_event that matches, 5,000 in a transaction", &per_call);
    report.ratio(
        "time of such calls with 100,000 subscriptions of other types and projects, against one",
        &all,
        &one,
    );

    let mut more = Vec::new();
    for _ in 0..plan.rounds() * 7 {
        let (base, met) = (first_event(&few).await?, first_event(&many).await?);
        more.push((met - base) * 1000.0);
    }
    report.row(
        "ms more for the first event of a fresh connection, with 100,000 subscriptions against one",
        &more,
    );
    Ok(())
}

/// 1,000 subscriptions of one type and project, each with a glob of its own.
async fn many_globs(cluster: &Cluster, plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let (few, many) = (Database::create(cluster), Database::create(cluster));
    let (at_few, at_many) = (few.connect().await, many.connect().await);
    for client in [&at_few, &at_many] {
        client.batch_execute(ONE).await?;
    }
    at_many
        .batch_execute(&format!(
            "WITH globs AS (
                 INSERT INTO klaxon.subscription (project, events, filters)
                 SELECT 'p0', ARRAY['run.failed'], jsonb_build_object('task_name_pattern', 'report' || n || '.*.daily[0-9]')
                 FROM generate_series(1, {GLOBS}) AS n
                 RETURNING id
             )
             INSERT INTO klaxon.subscription_channel (subscription_id, channel_id)
             SELECT globs.id, c.id FROM globs, klaxon.channel AS c"
        ))
        .await?;
    let mut more = Vec::new();
    for round in 0..=plan.rounds() * 3 {
        let (base, met) = (named(&at_few).await?, named(&at_many).await?);
        if round > 0 {
            more.push((met - base) / BULK as f64 * 1e6);
        }
        for client in [&at_few, &at_many] {
            client.batch_execute("TRUNCATE klaxon.event; DELETE FROM klaxon.outbox; CHECKPOINT").await?;
        }
    }
    report.row(
        "µs more an event where 1,000 subscriptions with distinct globs match its type and project",
        &more,
    );
    Ok(())
}

/// Seconds of one INSERT of so many events, or rows.
pub async fn insert(client: &Client, table: &str, kind: &str, count: i64) -> anyhow::Result<f64> {
    time(
        client,
        &format!(
            "INSERT INTO {table} (type, payload)
             SELECT '{kind}', jsonb_build_object('run_id', n) FROM generate_series(1, {count}) AS n"
        ),
    )
    .await
}

async fn named(client: &Client) -> anyhow::Result<f64> {
    time(
        client,
        &format!(
            "INSERT INTO klaxon.event (type, project, payload)
             SELECT 'run.failed', 'p0', jsonb_build_object('task_name', 'report' || n % 2000 || '.billing.daily7')
             FROM generate_series(1, {BULK}) AS n"
        ),
    )
    .await
}

async fn calls(client: &Client) -> anyhow::Result<f64> {
    let seconds = time(
        client,
        &format!(
            "DO $$ BEGIN FOR n IN 1..{CALLS} LOOP
                 PERFORM klaxon.notify_event('run.failed', '{{\"run_id\": 1}}', 'p0');
             END LOOP; END $$"
        ),
    )
    .await?;
    client.batch_execute("TRUNCATE klaxon.event; DELETE FROM klaxon.outbox").await?;
    client.batch_execute("VACUUM klaxon.outbox").await?;
    Ok(seconds)
}

/// A session's first event, in a transaction that is rolled back: no commit is measured.
async fn first_event(database: &Database<'_>) -> anyhow::Result<f64> {
    let client = database.connect().await;
    client.batch_execute("BEGIN").await?;
    let seconds = time(&client, "SELECT klaxon.notify_event('run.failed', '{\"run_id\": 1}', 'p0')").await?;
    client.batch_execute("ROLLBACK").await?;
    Ok(seconds)
}

async fn time(client: &Client, statement: &str) -> anyhow::Result<f64> {
    let begin = Instant::now();
    client.batch_execute(statement).await?;
    Ok(begin.elapsed().as_secs_f64())
}
