//! From committed rows to a receiver, one post each: the product, its peers, and posting alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use klaxon_tests::cluster::Cluster;
use uuid::Uuid;

use crate::board::Board;
use crate::contender::{Contender, PATH, Who};
use crate::peer::Peer;
use crate::plan::Plan;
use crate::plot::Plot;
use crate::report::{Goal, Report, rates};
use crate::sink::Sink;
use crate::stage::preloaded;
use crate::usage;

/// Requests in flight, or connections.
pub const CONCURRENCY: usize = 64;
const LIMIT: Duration = Duration::from_secs(600);

/// What delivering showed.
#[derive(Default)]
struct Boards {
    rate: Board,
    worker: Board,
    postgres: Board,
    both: Board,
    wal: Board,
    memory: Board,
    again: Board,
}

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let count = plan.pick(10_000, 100_000);
    let cluster = preloaded("pg_klaxon")?;
    let (mut boards, mut posted) = (Boards::default(), Vec::new());
    for round in 0..plan.pick(1, 5) {
        posted.push(post(count).await?);
        for who in Who::in_turn(round) {
            deliver(&cluster, who, count, &mut boards).await?;
        }
    }
    report.section(&format!(
        "Delivering {count} committed rows, one post each, {CONCURRENCY} in flight; ours signed and logged"
    ));
    report.rate("requests a second, reqwest alone, to the same receiver", count as f64, &posted);
    boards.rate.rows(report, "deliveries a second from the first arrival to the last");
    boards.rate.against(report, "deliveries a second", Peer::Graphile, Goal::AtLeast(2.0));
    report.goal(
        "deliveries a second, against posting by reqwest alone",
        boards.rate.of(Who::Klaxon),
        &rates(count as f64, &posted),
        Goal::AtLeast(0.5),
    );
    boards.worker.rows(report, "µs of the worker's CPU time a delivery, its start included");
    boards.postgres.rows(report, "µs of Postgres' CPU time a delivery, enqueueing aside");
    boards.both.against(
        report,
        "CPU time of worker and Postgres a delivery",
        Peer::Graphile,
        Goal::AtMost(0.6),
    );
    boards.wal.rows(report, "bytes of WAL a delivery, enqueueing included");
    boards.wal.against(report, "bytes of WAL a delivery", Peer::Graphile, Goal::AtMost(1.0));
    boards.memory.rows(report, "MB of the worker's memory");
    report.reach(
        "MB of the worker's memory while delivering",
        boards.memory.of(Who::Klaxon),
        Goal::AtMost(64.0),
    );
    boards.again.rows(report, "posts that came more than once");
    let mut bars = vec![("reqwest alone".to_owned(), rates(count as f64, &posted))];
    bars.extend(boards.rate.named());
    report.plot("deliver", &Plot::bars("Deliveries a second", "a second", bars));
    report.plot(
        "deliver-cpu",
        &Plot::bars("CPU time of worker and Postgres a delivery", "µs", boards.both.named()),
    );
    Ok(())
}

async fn deliver(cluster: &Cluster, who: Who, count: usize, boards: &mut Boards) -> anyhow::Result<()> {
    let contender = Contender::set(cluster, who, Sink::start()?).await?;
    contender.client().batch_execute("CHECKPOINT").await?;
    let before = contender.written().await?;
    contender.fill(count).await?;
    let postgres = usage::of_cluster(cluster)?;
    let process = contender.work(CONCURRENCY).await?;
    let again = contender.finish(count).await?;
    let a_delivery = |seconds: f64| seconds / count as f64 * 1e6;
    let worker = a_delivery(usage::of_process(process.pid())?);
    let postgres = a_delivery(usage::of_cluster(cluster)? - postgres);
    boards.rate.push(who, (count - 1) as f64 / contender.sink().span(PATH));
    boards.worker.push(who, worker);
    boards.postgres.push(who, postgres);
    boards.both.push(who, worker + postgres);
    boards.wal.push(who, (contender.written().await? - before) / count as f64);
    boards.memory.push(who, process.megabytes());
    boards.again.push(who, again as f64);
    contender.check(count).await?;
    drop(process);
    contender.end()
}

/// Seconds of so many posts by a client that does nothing else, of a body like the worker's.
async fn post(count: usize) -> anyhow::Result<f64> {
    let sink = Sink::start()?;
    let client = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let url = sink.url(PATH);
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
    sink.wait_once_each(PATH, count, LIMIT).await?;
    Ok(seconds)
}
