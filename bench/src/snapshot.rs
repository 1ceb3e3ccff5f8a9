//! A transaction that is left open: nothing that it might see can be vacuumed while it is, and whoever
//! walks what is dead gets slower from minute to minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::emit::insert;
use crate::latency::{Emitter, latencies, paced};
use crate::plan::Plan;
use crate::plot::Plot;
use crate::report::{Goal, Report, median, quantile};
use crate::stage::{Stage, preloaded};

/// Between one event of the steady load and the next: 800 a second.
const PERIOD: Duration = Duration::from_micros(1_250);
const SECOND: usize = 800;
const BURST: i64 = 20_000;
const BURSTS: usize = 3;
const LIMIT: Duration = Duration::from_secs(120);

/// What some seconds of load showed.
struct Seen {
    p50: Vec<f64>,
    p99: Vec<f64>,
    rate: Vec<f64>,
}

/// The same over time.
#[derive(Default)]
struct Course {
    p50: Vec<(f64, f64)>,
    p99: Vec<(f64, f64)>,
    rate: Vec<(f64, f64)>,
}

impl Course {
    fn add(&mut self, begin: Instant, seen: &Seen) {
        let at = begin.elapsed().as_secs_f64();
        self.p50.push((at, median(&seen.p50)));
        self.p99.push((at, median(&seen.p99)));
        self.rate.push((at, median(&seen.rate)));
    }
}

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let cluster = preloaded("pg_klaxon")?;
    let stage = Stage::set(&cluster).await?;
    stage.relay().await?;
    stage.webhook("steady", "run.failed").await?;
    for channel in ["a", "b", "c", "d"] {
        stage.webhook(channel, "task.failed").await?;
    }
    let mut emitters = Vec::new();
    for _ in 0..8 {
        emitters.push(
            Emitter::new(
                stage.database.connect().await,
                "SELECT klaxon.notify_event('run.failed', '{\"run_id\": 1}')",
            )
            .await?,
        );
    }
    let _worker = stage.worker(&[]).await;
    // Connections and caches.
    look(&stage, &emitters, 2, 1).await?;

    let seconds = plan.pick(5, 20);
    let before = look(&stage, &emitters, seconds, BURSTS).await?;
    let held = hold(&stage).await?;
    let (begin, wanted) = (Instant::now(), Duration::from_secs(plan.pick(30, 600)));
    let mut course = Course::default();
    course.add(begin, &before);
    // The last look takes some seconds, too.
    while begin.elapsed() + Duration::from_secs(seconds as u64 + 10) < wanted {
        let seen = look(&stage, &emitters, seconds, 1).await?;
        course.add(begin, &seen);
    }
    let after = look(&stage, &emitters, seconds, BURSTS).await?;
    course.add(begin, &after);
    let open = begin.elapsed().as_secs_f64();
    let dead: i64 = stage.client.query_one("SELECT count(*) FROM klaxon.delivery", &[]).await?.get(0);
    held.batch_execute("ROLLBACK").await?;

    report.section("A transaction left open under load, 800 events a second and bursts of 20,000 deliveries");
    report.row("seconds it was open", &[open]);
    report.row("deliveries settled in all, which leave as many dead rows in the outbox", &[dead as f64]);
    report.row("deliveries a second of a burst, before", &before.rate);
    report.row("the same at the end", &after.rate);
    report.reach(
        "deliveries a second with a snapshot held open, against those before",
        &[median(&after.rate) / median(&before.rate)],
        Goal::AtLeast(0.9),
    );
    report.row("ms from commit to arrival of the steady load, p50, before", &before.p50);
    report.row("the same at the end", &after.p50);
    report.reach(
        "commit to arrival, p50, with a snapshot held open, against before",
        &[median(&after.p50) / median(&before.p50)],
        Goal::AtMost(1.2),
    );
    report.row("p99, before", &before.p99);
    report.row("the same at the end", &after.p99);
    let since = "seconds since the snapshot was taken";
    let rates = [("deliveries of a burst".to_owned(), course.rate)];
    report.plot(
        "snapshot-rate",
        &Plot::course("A snapshot held open: bursts", since, "deliveries a second", &rates),
    );
    let times = [("p50".to_owned(), course.p50), ("p99".to_owned(), course.p99)];
    report.plot(
        "snapshot-latency",
        &Plot::course("A snapshot held open: commit to arrival", since, "ms", &times),
    );
    Ok(())
}

/// A transaction with a snapshot and an id, as a forgotten session holds one.
async fn hold(stage: &Stage<'_>) -> anyhow::Result<Client> {
    let client = stage.database.connect().await;
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id(); SELECT count(*) FROM klaxon.outbox")
        .await?;
    Ok(client)
}

/// So many seconds of steady load, and then bursts.
async fn look(
    stage: &Stage<'_>,
    emitters: &[Arc<Emitter>],
    seconds: usize,
    bursts: usize,
) -> anyhow::Result<Seen> {
    let mut seen = Seen { p50: Vec::new(), p99: Vec::new(), rate: Vec::new() };
    stage.sink.clear("steady");
    let commits = paced(emitters, seconds * SECOND, PERIOD).await?;
    let (_, answered) = latencies(&stage.sink, "steady", &commits).await?;
    seen.p50.push(quantile(&answered, 0.50));
    seen.p99.push(quantile(&answered, 0.99));
    for _ in 0..bursts {
        for path in ["a", "b", "c", "d"] {
            stage.sink.clear(path);
        }
        insert(&stage.client, "klaxon.event", "task.failed", BURST / 4).await?;
        let begin = Instant::now();
        for path in ["a", "b", "c", "d"] {
            stage.sink.wait(path, usize::try_from(BURST / 4)?, LIMIT).await?;
        }
        seen.rate.push(BURST as f64 / begin.elapsed().as_secs_f64());
    }
    Ok(seen)
}
