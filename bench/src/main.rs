//! What `make bench` measures, as ratios of one run on one machine: absolute figures are that
//! machine's. Each is the median of three rounds in alternation with what it is compared to.
//!
//! Writes `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until_within;
use serde_json::json;
use tokio_postgres::Client;

const ROUNDS: usize = 3;
const EVENTS: i64 = 100_000;
const LATENCIES: u32 = 500;
const LIMIT: Duration = Duration::from_secs(600);

/// The settings of the cluster: durable, and with room for the working set.
const SETTINGS: [(&str, &str); 4] =
    [("fsync", "on"), ("synchronous_commit", "on"), ("shared_buffers", "1GB"), ("max_wal_size", "8GB")];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cluster = Cluster::start(&SETTINGS)?;
    let mut report = String::from(
        "# Benchmarks\n\nWritten by `make bench`: medians of three rounds, with minimum and maximum, on the machine it ran on. \
         The cluster is durable (`fsync`, `synchronous_commit` on), the receiver verifies every signature.\n\n\
         | | median | minimum | maximum |\n|---|---|---|---|\n",
    );
    emitting(&cluster, &mut report).await?;
    delivering(&cluster, &mut report).await?;
    print!("{report}");
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md"), report)?;
    Ok(())
}

/// Bulk inserts of events that match nothing, and one subscription, against a plain table.
async fn emitting(cluster: &Cluster, report: &mut String) -> anyhow::Result<()> {
    let database = Database::create(cluster);
    let client = database.connect().await;
    client
        .batch_execute(
            "CREATE TABLE plain (LIKE klaxon.event INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
             ALTER TABLE plain ADD PRIMARY KEY (id);
             INSERT INTO klaxon.channel (name, kind, config) VALUES ('c', 'webhook', '{\"url\": \"https://x.example.com\"}');
             SELECT klaxon.subscribe(ARRAY['c'], ARRAY['run.failed'], owner => NULL);",
        )
        .await?;
    let (mut plain, mut silent, mut matched) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(insert(&client, "plain", "task.failed").await?);
        silent.push(insert(&client, "klaxon.event", "task.failed").await?);
        matched.push(insert(&client, "klaxon.event", "run.failed").await?);
        client.batch_execute("TRUNCATE plain; DELETE FROM klaxon.outbox; CHECKPOINT").await?;
    }
    let base = median(&mut plain.clone());
    rate(report, "rows a second, bulk insert into a plain table of the same columns", &plain);
    rate(report, "the same as events that match nothing", &silent);
    rate(report, "the same as events that match one subscription", &matched);
    ratio(report, "time of events that match nothing, against the plain table", &silent, base);
    ratio(report, "time of events that match one subscription, against the plain table", &matched, base);
    Ok(())
}

async fn insert(client: &Client, table: &str, kind: &str) -> anyhow::Result<f64> {
    let begin = Instant::now();
    client
        .execute(
            &format!(
                "INSERT INTO {table} (type, payload)
                 SELECT '{kind}', jsonb_build_object('run_id', n) FROM generate_series(1, {EVENTS}) AS n"
            ),
            &[],
        )
        .await?;
    Ok(begin.elapsed().as_secs_f64())
}

/// From the outbox to a receiver, all at once and one at a time.
async fn delivering(cluster: &Cluster, report: &mut String) -> anyhow::Result<()> {
    let (mut drained, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let scene = Scene::set(Database::create(cluster)).await;
        scene.webhook("all", Hook::default().secret("bench").counting(), json!({}), &["run.failed"]).await;
        insert(&scene.client, "klaxon.event", "run.failed").await?;
        let begin = Instant::now();
        let worker = scene.worker(&[]).await;
        until_within(LIMIT, &scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
        drained.push(begin.elapsed().as_secs_f64());
        memory.push(worker.peak_memory() as f64 / 1e6);
    }
    rate(
        report,
        "deliveries a second, 100,000 pending, signed and logged, start of the worker included",
        &drained,
    );
    row(report, "MB of the worker's memory meanwhile", &memory);

    let scene = Scene::set(Database::create(cluster)).await;
    scene.webhook("one", Hook::default().secret("bench"), json!({}), &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    let mut latencies = Vec::new();
    for n in 0..LATENCIES {
        let begin = Instant::now();
        scene.emit("run.failed", json!({"run_id": n})).await;
        scene.receiver.wait_at("/one", n as usize + 1).await;
        latencies.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    writeln!(
        report,
        "| ms from emitting to arrival, commit included, one at a time: p50, p99 | {:.2}, {:.2} | {:.2} | {:.2} |",
        at(0.5),
        at(0.99),
        at(0.0),
        at(1.0)
    )?;
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn row(report: &mut String, what: &str, values: &[f64]) {
    let mut sorted = values.to_vec();
    let middle = median(&mut sorted);
    let figure = |value: f64| if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    let _ = writeln!(
        report,
        "| {what} | {} | {} | {} |",
        figure(middle),
        figure(sorted[0]),
        figure(sorted[sorted.len() - 1])
    );
}

fn rate(report: &mut String, what: &str, seconds: &[f64]) {
    let rates: Vec<f64> = seconds.iter().map(|seconds| EVENTS as f64 / seconds).collect();
    row(report, what, &rates);
}

fn ratio(report: &mut String, what: &str, seconds: &[f64], base: f64) {
    let ratios: Vec<f64> = seconds.iter().map(|seconds| seconds / base).collect();
    row(report, what, &ratios);
}
