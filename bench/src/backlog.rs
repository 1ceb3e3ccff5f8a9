//! Millions of rows that wait for a channel that is dead: what the others notice of them.

use std::time::{Duration, Instant};

use klaxon_tests::cluster::free_port;
use klaxon_tests::worker::Worker;
use serde_json::json;

use crate::emit::insert;
use crate::plan::Plan;
use crate::report::{Goal, Report};
use crate::stage::{Stage, preloaded};

const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];
/// Deliveries of a burst.
pub const BURST: i64 = 40_000;
const LIMIT: Duration = Duration::from_secs(300);

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let waiting: i64 = plan.pick(500_000, 5_000_000);
    let cluster = preloaded("pg_klaxon")?;
    let (empty, full) = (stage(&cluster).await?, stage(&cluster).await?);
    pile_up(&full, dead_channel(&full).await?, 1, waiting).await?;

    let (mut at_empty, mut at_full) = (Vec::new(), Vec::new());
    for _ in 0..plan.pick(2, 5) {
        at_empty.push(first(&empty).await?);
        at_full.push(first(&full).await?);
    }
    let (at_rest, worker) = (empty.worker(&[]).await, full.worker(&[]).await);
    let (alone, beside) = in_turns(plan, &empty, &full).await?;
    let left: i64 = full
        .client
        .query_one(
            "SELECT count(*) FROM klaxon.outbox WHERE event_id = '00000000-0000-7000-8000-000000000000'",
            &[],
        )
        .await?
        .get(0);
    anyhow::ensure!(left == waiting, "{left} of {waiting} still wait");

    report.section(&format!("Beside {waiting} rows that wait for a dead channel"));
    report.rate(
        "deliveries a second of the others, 40,000 in four channels, where nothing waits",
        BURST as f64,
        &alone,
    );
    let what = format!("deliveries a second beside {waiting} rows that wait, against none");
    report.goal(&what, &alone, &beside, Goal::AtLeast(0.9));
    report.row("s from starting the worker to its first delivery, where nothing waits", &at_empty);
    report.row("the same beside what waits", &at_full);
    report.row("MB of the worker's memory, where nothing waits", &[megabytes(&at_rest)]);
    report.row("the same beside what waits", &[megabytes(&worker)]);
    Ok(())
}

fn megabytes(worker: &Worker) -> f64 {
    worker.peak_memory() as f64 / 1e6
}

/// Four channels that hear of failed runs.
pub async fn stage(cluster: &klaxon_tests::cluster::Cluster) -> anyhow::Result<Stage<'_>> {
    let stage = Stage::set(cluster).await?;
    for channel in CHANNELS {
        stage.webhook(channel, "run.failed").await?;
    }
    Ok(stage)
}

/// A channel whose port nobody listens on, and an event for what waits for it.
pub async fn dead_channel(stage: &Stage<'_>) -> anyhow::Result<i64> {
    let url = format!("http://127.0.0.1:{}/", free_port()?);
    let channel = stage.channel("dead", json!({"url": url, "hmac_secret": "bench"}), "task.failed").await?;
    stage
        .client
        .batch_execute(
            "SET session_replication_role = replica;
             INSERT INTO klaxon.event (id, type, payload)
             VALUES ('00000000-0000-7000-8000-000000000000', 'task.failed', '{\"task_id\": 1}');
             RESET session_replication_role",
        )
        .await?;
    Ok(channel)
}

/// The rows of these numbers, as the matcher would write them, of one event to a channel.
pub async fn pile_up(stage: &Stage<'_>, channel: i64, from: i64, to: i64) -> anyhow::Result<()> {
    stage
        .client
        .execute(
            "INSERT INTO klaxon.outbox (id, event_id, event_type, subscription_id, channel_id, shard)
             SELECT ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, '00000000-0000-7000-8000-000000000000', 'task.failed', 0, $1::bigint, ($1::bigint & 63)::smallint
             FROM generate_series($2::bigint, $3::bigint) AS n",
            &[&channel, &from, &to],
        )
        .await?;
    stage.client.batch_execute("VACUUM ANALYZE klaxon.outbox").await?;
    stage.client.batch_execute("CHECKPOINT").await?;
    Ok(())
}

/// Seconds from a worker's start to the arrival of what was committed before.
async fn first(stage: &Stage<'_>) -> anyhow::Result<f64> {
    CHANNELS.into_iter().for_each(|path| stage.sink.clear(path));
    insert(&stage.client, "klaxon.event", "run.failed", 1).await?;
    let begin = Instant::now();
    let mut worker = stage.start(&[]);
    for path in CHANNELS {
        stage.sink.wait(path, 1, LIMIT).await?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    worker.signal("TERM");
    worker.wait().await;
    Ok(seconds)
}

/// Seconds that a burst takes at each of two, in turns.
pub async fn in_turns(
    plan: Plan,
    one: &Stage<'_>,
    other: &Stage<'_>,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let mut times = (Vec::new(), Vec::new());
    // The first round opens connections and is not counted.
    for round in 0..=plan.pick(2, 5) {
        let (at_one, at_other) = (drain(one, BURST).await?, drain(other, BURST).await?);
        if round > 0 {
            times.0.push(at_one);
            times.1.push(at_other);
        }
    }
    Ok(times)
}

/// Seconds from a commit of many deliveries to the arrival of the last.
pub async fn drain(stage: &Stage<'_>, count: i64) -> anyhow::Result<f64> {
    CHANNELS.into_iter().for_each(|path| stage.sink.clear(path));
    insert(&stage.client, "klaxon.event", "run.failed", count / 4).await?;
    let begin = Instant::now();
    for path in CHANNELS {
        stage.sink.wait_once_each(path, usize::try_from(count / 4)?, LIMIT).await?;
    }
    Ok(begin.elapsed().as_secs_f64())
}
