//! A transaction that is left open: nothing that it might see can be vacuumed while it is, and whoever
//! walks what is dead gets slower from minute to minute.
//!
//! Two clusters take turns, second by second, and in one of them nothing is left open: what the machine does
//! meanwhile, and what the log costs as it grows, happens to both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use klaxon_tests::cluster::Cluster;
use klaxon_tests::worker::Worker;
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
const EMIT: &str = "SELECT klaxon.notify_event('run.failed', '{\"run_id\": 1}')";
const SECONDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(120);

/// What some seconds of load showed.
#[derive(Default)]
struct Seen {
    p50: Vec<f64>,
    p99: Vec<f64>,
    rate: Vec<f64>,
}

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let clusters = [preloaded("pg_klaxon")?, preloaded("pg_klaxon")?];
    let sides = [Side::set(&clusters[0]).await?, Side::set(&clusters[1]).await?];
    let rounds = plan.pick(2, 5);
    let before = both(&sides, rounds).await?;
    let held = hold(&sides[1].stage).await?;
    let (begin, wanted) = (Instant::now(), Duration::from_secs(plan.pick(20, 600)));
    let mut courses = [Course::default(), Course::default()];
    courses.iter_mut().zip(&before).for_each(|(course, seen)| course.add(begin, seen));
    // The last looks take some time, too.
    let mut last = Duration::ZERO;
    while begin.elapsed() + last < wanted {
        let round = Instant::now();
        let seen = both(&sides, 1).await?;
        courses.iter_mut().zip(&seen).for_each(|(course, seen)| course.add(begin, seen));
        last = round.elapsed() * u32::try_from(rounds)?;
    }
    let after = both(&sides, rounds).await?;
    courses.iter_mut().zip(&after).for_each(|(course, seen)| course.add(begin, seen));
    let open = begin.elapsed().as_secs_f64();
    held.batch_execute("ROLLBACK").await?;

    report.section("A transaction left open under load, 800 events a second and bursts of 20,000 deliveries");
    report.row("seconds it was open", &[open]);
    for (side, how) in sides.iter().zip(["without it", "with it"]) {
        let count = side.stage.client.query_one("SELECT count(*) FROM klaxon.delivery", &[]).await?;
        report.row(&format!("deliveries settled in all, {how}"), &[count.get::<_, i64>(0) as f64]);
    }
    for (seen, when) in [(&before, "before"), (&after, "at the end")] {
        for (seen, how) in seen.iter().zip(["without it", "with it"]) {
            report.row(&format!("{when}, {how}: deliveries a second of a burst"), &seen.rate);
            report.row("ms from commit to arrival of the steady load, p50", &seen.p50);
            report.row("p99", &seen.p99);
        }
    }
    let changes =
        |of: fn(&Seen) -> &Vec<f64>| [0, 1].map(|side| median(of(&after[side])) / median(of(&before[side])));
    let (rate, p50) = (changes(|seen| &seen.rate), changes(|seen| &seen.p50));
    report.row("rate at the end against before, without it", &rate[..1]);
    report.reach(
        "deliveries a second with a snapshot held open, against before",
        &rate[1..],
        Goal::AtLeast(0.9),
    );
    report.row(
        "that, against the cluster beside it, which was measured in the same minutes",
        &[rate[1] / rate[0]],
    );
    report.row("p50 at the end against before, without it", &p50[..1]);
    report.reach(
        "commit to arrival, p50, with a snapshot held open, against before",
        &p50[1..],
        Goal::AtMost(1.2),
    );
    report.row("that, against the cluster beside it", &[p50[1] / p50[0]]);
    let since = "seconds since the snapshot was taken";
    let lines = |of: fn(&Course) -> &Vec<(f64, f64)>| {
        [("none held".to_owned(), of(&courses[0]).clone()), ("one held".to_owned(), of(&courses[1]).clone())]
    };
    let (rates, times) = (lines(|course| &course.rate), lines(|course| &course.p50));
    report.plot(
        "snapshot-rate",
        &Plot::course("A snapshot held open: bursts", since, "deliveries a second", &rates),
    );
    let title = "A snapshot held open: commit to arrival, p50";
    report.plot("snapshot-latency", &Plot::course(title, since, "ms", &times));
    Ok(())
}

/// The same over time.
#[derive(Default)]
struct Course {
    p50: Vec<(f64, f64)>,
    rate: Vec<(f64, f64)>,
}

impl Course {
    fn add(&mut self, begin: Instant, seen: &Seen) {
        let at = begin.elapsed().as_secs_f64();
        self.p50.push((at, median(&seen.p50)));
        self.rate.push((at, median(&seen.rate)));
    }
}

/// One of the two.
struct Side<'c> {
    stage: Stage<'c>,
    emitters: Vec<Arc<Emitter>>,
    _worker: Worker,
}

impl<'c> Side<'c> {
    async fn set(cluster: &'c Cluster) -> anyhow::Result<Self> {
        let stage = Stage::set(cluster).await?;
        stage.relay().await?;
        stage.webhook("steady", "run.failed").await?;
        for channel in ["a", "b", "c", "d"] {
            stage.webhook(channel, "task.failed").await?;
        }
        let mut emitters = Vec::new();
        for _ in 0..8 {
            emitters.push(Emitter::new(stage.database.connect().await, EMIT).await?);
        }
        let worker = stage.worker(&[]).await;
        // Connections and caches.
        look(&stage, &emitters, &mut Seen::default()).await?;
        Ok(Self { stage, emitters, _worker: worker })
    }
}

/// So many looks at both in turns.
async fn both(sides: &[Side<'_>; 2], rounds: usize) -> anyhow::Result<[Seen; 2]> {
    let mut seen = [Seen::default(), Seen::default()];
    for _ in 0..rounds {
        for (side, seen) in sides.iter().zip(&mut seen) {
            look(&side.stage, &side.emitters, seen).await?;
        }
    }
    Ok(seen)
}

/// A transaction with a snapshot and an id, as a forgotten session holds one.
async fn hold(stage: &Stage<'_>) -> anyhow::Result<Client> {
    let client = stage.database.connect().await;
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id(); SELECT count(*) FROM klaxon.outbox")
        .await?;
    Ok(client)
}

/// Some seconds of steady load, and then a burst.
async fn look(stage: &Stage<'_>, emitters: &[Arc<Emitter>], seen: &mut Seen) -> anyhow::Result<()> {
    stage.sink.clear("steady");
    let commits = paced(emitters, SECONDS * SECOND, PERIOD).await?;
    let (_, answered) = latencies(&stage.sink, "steady", &commits).await?;
    seen.p50.push(quantile(&answered, 0.50));
    seen.p99.push(quantile(&answered, 0.99));
    for path in ["a", "b", "c", "d"] {
        stage.sink.clear(path);
    }
    insert(&stage.client, "klaxon.event", "task.failed", BURST / 4).await?;
    let begin = Instant::now();
    for path in ["a", "b", "c", "d"] {
        stage.sink.wait(path, usize::try_from(BURST / 4)?, LIMIT).await?;
    }
    seen.rate.push(BURST as f64 / begin.elapsed().as_secs_f64());
    Ok(())
}
