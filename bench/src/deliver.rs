//! From the outbox to a receiver, against posting alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use klaxon_tests::until::until_within;
use uuid::Uuid;

use crate::cpu;
use crate::emit::insert;
use crate::plan::Plan;
use crate::report::Report;
use crate::stage::{Stage, preloaded};

const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];
/// Deliveries in flight: those of four channels.
const CONCURRENCY: usize = 64;
const LIMIT: Duration = Duration::from_secs(600);

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let events: i64 = plan.pick(40_000, 100_000);
    let count = usize::try_from(events)?;
    let cluster = preloaded("pg_klaxon")?;
    let (mut posted, mut arrived, mut settled) = (Vec::new(), Vec::new(), Vec::new());
    let (mut memory, mut wal, mut at_worker, mut at_postgres) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.pick(2, 5) {
        let stage = Stage::set(&cluster).await?;
        posted.push(post(&stage, count).await?);
        for channel in CHANNELS {
            stage.webhook(channel, "run.failed").await?;
        }
        stage.client.batch_execute("CHECKPOINT").await?;
        let before = written(&stage).await?;
        insert(&stage.client, "klaxon.event", "run.failed", events / 4).await?;
        let (begin, postgres) = (Instant::now(), cpu::of_cluster(&cluster)?);
        let worker = stage.start(&[]);
        for path in CHANNELS {
            stage.sink.wait_once_each(path, count / 4, LIMIT).await?;
        }
        arrived.push(begin.elapsed().as_secs_f64());
        until_within(LIMIT, &stage.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
        settled.push(begin.elapsed().as_secs_f64());
        at_worker.push(cpu::of_process(worker.pid())? / events as f64 * 1e6);
        at_postgres.push((cpu::of_cluster(&cluster)? - postgres) / events as f64 * 1e6);
        memory.push(worker.peak_memory() as f64 / 1e6);
        wal.push((written(&stage).await? - before) / events as f64);
        let logged: i64 = stage
            .client
            .query_one("SELECT count(*) FROM klaxon.delivery WHERE status = 'sent'", &[])
            .await?
            .get(0);
        anyhow::ensure!(logged == events, "{logged} of {events} in the log");
    }
    report.section(&format!("Delivering {events} pending webhooks, signed and logged, 64 in flight"));
    report.rate("requests a second, reqwest alone, to the same receiver", events as f64, &posted);
    report.rate("deliveries a second, start of the worker included", events as f64, &arrived);
    report.ratio("rate of deliveries, against reqwest alone", &posted, &arrived);
    report.rate("deliveries a second until the last is settled", events as f64, &settled);
    report.row("µs of the worker's CPU time a delivery", &at_worker);
    report.row("µs of Postgres' CPU time a delivery, emitting it aside", &at_postgres);
    report.row("MB of the worker's memory meanwhile", &memory);
    report.row("bytes of WAL a delivery, event and log included", &wal);
    Ok(())
}

/// Bytes of WAL written so far.
async fn written(stage: &Stage<'_>) -> anyhow::Result<f64> {
    let row = stage.client.query_one("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8", &[]).await?;
    Ok(row.get(0))
}

/// Seconds of so many posts by a client that does nothing else, of a body like the worker's.
async fn post(stage: &Stage<'_>, count: usize) -> anyhow::Result<f64> {
    let client = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let url = stage.sink.url("posted");
    let next = AtomicUsize::new(0);
    let body = Arc::new(format!(
        "{{\"id\":\"{}\",\"type\":\"run.failed\",\"timestamp\":\"2026-01-01T00:00:00.000000Z\",\"project\":null,\"attempt\":1,\"url\":null,\"data\":{{\"run_id\":10000}}}}",
        Uuid::now_v7()
    ));
    let begin = Instant::now();
    try_join_all((0..CONCURRENCY).map(|_| {
        let (client, url, body, next) = (client.clone(), url.clone(), Arc::clone(&body), &next);
        async move {
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let id = Uuid::now_v7().to_string();
                let request =
                    client.post(&url).header("webhook-id", id).header("content-type", "application/json");
                request.body(String::clone(&body)).send().await?.error_for_status()?.bytes().await?;
            }
            anyhow::Ok(())
        }
    }))
    .await?;
    let seconds = begin.elapsed().as_secs_f64();
    stage.sink.wait_once_each("posted", count, LIMIT).await?;
    Ok(seconds)
}
