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
use crate::report::{Report, quantile};
use crate::stage::{Stage, preloaded};

/// Between one event of the steady load and the next: 800 a second.
const PERIOD: Duration = Duration::from_micros(1_250);
const SECOND: usize = 800;
const BURST: i64 = 20_000;
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
    let (begin, wanted) = (Instant::now(), Duration::from_secs(plan.pick(60, 600)));
    // The last looks take some time, too.
    let mut last = Duration::ZERO;
    while begin.elapsed() + last < wanted {
        let round = Instant::now();
        both(&sides, 1).await?;
        last = round.elapsed() * u32::try_from(rounds)?;
    }
    let after = both(&sides, rounds).await?;
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
    for (side, how) in ["without it", "with it"].into_iter().enumerate() {
        let (before, after) = (&before[side], &after[side]);
        report.row(
            &format!("rate at the end against before, {how}"),
            &[middle(&after.rate) / middle(&before.rate)],
        );
        report.row(
            &format!("p50 at the end against before, {how}"),
            &[middle(&after.p50) / middle(&before.p50)],
        );
    }
    Ok(())
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
            emitters.push(Emitter::new(&stage, "run.failed").await?);
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

fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
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
    let (_, answered) = latencies(stage, "steady", &commits).await?;
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
