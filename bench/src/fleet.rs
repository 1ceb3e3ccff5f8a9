//! More workers on one database, and one event to many subscriptions.

use std::time::{Duration, Instant};

use klaxon_tests::cluster::Cluster;
use klaxon_tests::until::until_within;
use klaxon_tests::worker::Worker;
use serde_json::json;

use crate::append;
use crate::model::{Costs, Fleet};
use crate::plan::Plan;
use crate::plot::Plot;
use crate::report::{Goal, Report, median};
use crate::sink::Sink;
use crate::stage::{Stage, preloaded};
use crate::usage;

/// As many as there are shards, so that they divide evenly.
const CHANNELS: usize = 64;
const TIME: Duration = Duration::from_millis(50);
const IN_FLIGHT: usize = 64;
const SUBSCRIPTIONS: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(300);
const PATH: &str = "posts";

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    workers(plan, report).await?;
    fan_out(plan, report).await
}

async fn workers(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let cluster = preloaded("pg_klaxon")?;
    let stage = Stage::with(&cluster, Sink::taking(TIME)?).await?;
    channels(&stage, CHANNELS).await?;
    let each = plan.pick(40, 200);
    let fleets = [1, 2, 4];
    let mut runs = [const { Vec::new() }; 3];
    for _ in 0..plan.rounds() {
        for (at, size) in fleets.into_iter().enumerate() {
            runs[at].push(run(&cluster, &stage, size, each).await?);
        }
    }
    let rates: Vec<Vec<f64>> = runs.iter().map(|runs| runs.iter().map(|run| run.rate).collect()).collect();
    report.section(&format!(
        "{} deliveries to a receiver that takes 50 ms, {IN_FLIGHT} in flight a worker",
        each * CHANNELS
    ));
    for (size, rates) in fleets.into_iter().zip(&rates) {
        report.row(&format!("deliveries a second, workers: {size}"), rates);
    }
    report.goal("deliveries a second of 4 workers, against 1", &rates[2], &rates[0], Goal::AtLeast(3.5));
    let costs = costs(&cluster, &runs[0]).await?;
    report.row("µs of the worker's CPU time a delivery, one worker", &[costs.worker * 1e6]);
    report.row("µs of Postgres' CPU time a delivery, one worker", &[costs.postgres * 1e6]);
    report.row("µs for which a delivery of a full batch holds the end of the log", &[costs.log * 1e6]);
    for (workers, rates) in fleets.into_iter().zip(&rates) {
        let fleet = Fleet { workers, in_flight: IN_FLIGHT, answer: TIME.as_secs_f64(), cores: cores() };
        let simulated = fleet.simulate(costs, each * CHANNELS);
        report.row(&format!("deliveries a second by the formula, workers: {workers}"), &[fleet.bound(costs)]);
        report.row(&format!("by the simulation, workers: {workers}"), &[simulated]);
        report.row("what was measured, against the simulation", &[median(rates) / simulated]);
    }
    let bars = fleets.into_iter().map(|size| format!("workers: {size}")).zip(rates).collect();
    report
        .plot("workers", &Plot::bars("Deliveries a second to a receiver that takes 50 ms", "a second", bars));
    Ok(())
}

/// What so many workers did.
struct Run {
    /// Deliveries a second, from the first arrival to the last.
    rate: f64,
    /// Seconds of CPU time a delivery, of the workers and of Postgres.
    workers: f64,
    postgres: f64,
}

/// What one delivery costs, by what one worker did.
async fn costs(cluster: &Cluster, runs: &[Run]) -> anyhow::Result<Costs> {
    let middle = |of: fn(&Run) -> f64| median(&runs.iter().map(of).collect::<Vec<_>>());
    let log = append::held(cluster).await?;
    Ok(Costs { worker: middle(|run| run.workers), postgres: middle(|run| run.postgres), log })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

async fn run(cluster: &Cluster, stage: &Stage<'_>, size: usize, each: usize) -> anyhow::Result<Run> {
    let mut fleet = Vec::new();
    for _ in 0..size {
        fleet.push(stage.start(&["--concurrency", &IN_FLIGHT.to_string()]));
    }
    let shared = format!(
        "SELECT count(*) = {size} AND bool_and(cardinality(shards) = {}) FROM klaxon.worker",
        CHANNELS / size
    );
    until_within(LIMIT, &stage.client, &shared).await;
    stage.sink.clear(PATH);
    let insert = format!(
        "INSERT INTO klaxon.event (type, project, payload)
         SELECT 'run.failed', 'p' || n % {CHANNELS}, jsonb_build_object('run_id', n) FROM generate_series(1, {}) AS n",
        each * CHANNELS
    );
    stage.client.batch_execute(&insert).await?;
    let count = each * CHANNELS;
    let busy = |fleet: &[Worker]| {
        let workers =
            fleet.iter().map(|worker| usage::of_process(worker.pid())).sum::<anyhow::Result<f64>>()?;
        anyhow::Ok((workers, usage::of_cluster(cluster)?))
    };
    let before = busy(&fleet)?;
    stage.sink.wait_once_each(PATH, count, LIMIT).await?;
    until_within(LIMIT, &stage.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let after = busy(&fleet)?;
    for worker in &mut fleet {
        worker.signal("TERM");
        worker.wait().await;
    }
    let a_delivery = |seconds: f64| seconds / count as f64;
    Ok(Run {
        rate: (count - 1) as f64 / stage.sink.span(PATH),
        workers: a_delivery(after.0 - before.0),
        postgres: a_delivery(after.1 - before.1),
    })
}

/// So many channels, each with a subscription of failed runs of a project of its own.
async fn channels(stage: &Stage<'_>, count: usize) -> anyhow::Result<()> {
    let config = json!({"url": stage.sink.url(PATH), "hmac_secret": "bench"});
    stage
        .client
        .execute(
            "INSERT INTO klaxon.project (slug) SELECT 'p' || n FROM generate_series(0, $1::bigint - 1) AS n",
            &[&i64::try_from(count)?],
        )
        .await?;
    stage
        .client
        .execute(
            "INSERT INTO klaxon.channel (name, kind, config)
             SELECT 'c' || n, 'webhook', $2::jsonb FROM generate_series(0, $1::bigint - 1) AS n",
            &[&i64::try_from(count)?, &config],
        )
        .await?;
    stage
        .client
        .batch_execute(
            "SELECT klaxon.subscribe(ARRAY[name], ARRAY['run.failed'], project => 'p' || substr(name, 2), owner => NULL) FROM klaxon.channel",
        )
        .await?;
    Ok(())
}

/// One event that a thousand subscriptions match, each with a channel of its own.
async fn fan_out(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let cluster = preloaded("pg_klaxon")?;
    let stage = Stage::set(&cluster).await?;
    stage.relay().await?;
    channels(&stage, SUBSCRIPTIONS).await?;
    stage.client.batch_execute("UPDATE klaxon.subscription SET project = NULL").await?;
    stage.client.batch_execute("VACUUM ANALYZE").await?;
    let _worker = stage.worker(&[]).await;
    let emit = stage.client.prepare("SELECT klaxon.notify_event('run.failed', '{\"run_id\": 1}')").await?;
    let (mut commits, mut rates) = (Vec::new(), Vec::new());
    // The first event fills caches and opens connections, and is not counted.
    for round in 0..=plan.pick(5, 20) {
        stage.sink.clear(PATH);
        let begin = Instant::now();
        stage.client.query(&emit, &[]).await?;
        let commit = begin.elapsed().as_secs_f64() * 1e3;
        stage.sink.wait_once_each(PATH, SUBSCRIPTIONS, LIMIT).await?;
        until_within(LIMIT, &stage.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
        if round > 0 {
            commits.push(commit);
            rates.push((SUBSCRIPTIONS - 1) as f64 / stage.sink.span(PATH));
        }
    }
    report.section("One event to 1,000 subscriptions, each with a channel of its own");
    report.reach("ms of the transaction that emits to 1,000 subscriptions", &commits, Goal::AtMost(5.0));
    report.row("deliveries a second of such an event, from the first arrival to the last", &rates);
    Ok(())
}
