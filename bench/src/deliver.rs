//! From the outbox to a receiver, all at once and one at a time.

use std::time::{Duration, Instant};

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until_within;
use serde_json::json;

use crate::ROUNDS;
use crate::emit::insert;
use crate::report::Report;

const EVENTS: i64 = 100_000;
const LATENCIES: usize = 500;
const LIMIT: Duration = Duration::from_secs(600);

pub async fn measure(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let (mut drained, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let scene = Scene::set(Database::create(cluster)).await;
        scene.webhook("all", Hook::default().secret("bench").counting(), json!({}), &["run.failed"]).await;
        insert(&scene.client, "klaxon.event", "run.failed", EVENTS).await?;
        let begin = Instant::now();
        let worker = scene.worker(&[]).await;
        until_within(LIMIT, &scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
        drained.push(begin.elapsed().as_secs_f64());
        memory.push(worker.peak_memory() as f64 / 1e6);
    }
    report.section("Delivering");
    report.rate(
        "deliveries a second, 100,000 pending, signed and logged, start of the worker included",
        EVENTS as f64,
        &drained,
    );
    report.row("MB of the worker's memory meanwhile", &memory);

    let scene = Scene::set(Database::create(cluster)).await;
    scene.webhook("one", Hook::default().secret("bench"), json!({}), &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    let mut latencies = Vec::new();
    for n in 0..LATENCIES {
        let begin = Instant::now();
        scene.emit("run.failed", json!({"run_id": n})).await;
        scene.receiver.wait_at("/one", n + 1).await;
        latencies.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    latencies.sort_by(f64::total_cmp);
    report.row("ms from emitting to arrival, commit included, one at a time", &latencies);
    report.row("the same, the slowest hundredth", &latencies[LATENCIES * 99 / 100..]);
    Ok(())
}
