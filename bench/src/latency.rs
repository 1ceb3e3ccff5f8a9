//! From commit to arrival, a hundred events a second, whether or not the one before has arrived.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::plan::Plan;
use crate::report::{Report, quantile};
use crate::stage::{Stage, preloaded};

const PERIOD: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(30);

/// An event's commit, as the application sees it.
pub struct Commit {
    event: Uuid,
    sent: Instant,
    answered: Instant,
}

/// A session that emits.
pub struct Emitter {
    client: Client,
    emit: Statement,
}

impl Emitter {
    /// Over a session of its own.
    pub async fn new(stage: &Stage<'_>, event: &str) -> anyhow::Result<Arc<Self>> {
        let client = stage.database.connect().await;
        let call =
            format!("SELECT klaxon.notify_event('{event}', '{{\"run_id\": 1, \"branch\": \"main\"}}')");
        let emit = client.prepare(&call).await?;
        Ok(Arc::new(Self { client, emit }))
    }

    /// An event in a transaction of its own.
    pub async fn emit(&self) -> Result<Commit, tokio_postgres::Error> {
        self.client.batch_execute("BEGIN").await?;
        let event = self.client.query_one(&self.emit, &[]).await?.get(0);
        let sent = Instant::now();
        self.client.batch_execute("COMMIT").await?;
        Ok(Commit { event, sent, answered: Instant::now() })
    }
}

/// Emits `count` events, one every `period`, by sessions in turn.
pub async fn paced(emitters: &[Arc<Emitter>], count: usize, period: Duration) -> anyhow::Result<Vec<Commit>> {
    let begin = Instant::now();
    let mut emitting = JoinSet::new();
    for n in 0..count {
        let due = begin + period * u32::try_from(n)?;
        sleep_until(due.into()).await;
        let emitter = Arc::clone(&emitters[n % emitters.len()]);
        emitting.spawn(async move { emitter.emit().await });
    }
    let mut commits = Vec::with_capacity(count);
    while let Some(emitted) = emitting.join_next().await {
        commits.push(emitted??);
    }
    Ok(commits)
}

/// Milliseconds from the COMMIT being sent, and from its answer, to arrival at `path`; each ascending.
pub async fn latencies(
    stage: &Stage<'_>,
    path: &str,
    commits: &[Commit],
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    stage.sink.wait(path, commits.len(), LIMIT).await?;
    let arrived: HashMap<Uuid, Instant> =
        stage.sink.arrivals(path).iter().map(|arrival| (arrival.event, arrival.at)).collect();
    let (mut sent, mut answered) = (Vec::new(), Vec::new());
    for commit in commits {
        let at =
            arrived.get(&commit.event).ok_or_else(|| anyhow::anyhow!("{} did not arrive", commit.event))?;
        sent.push(millis(commit.sent, *at));
        answered.push(millis(commit.answered, *at));
    }
    sent.sort_by(f64::total_cmp);
    answered.sort_by(f64::total_cmp);
    Ok((sent, answered))
}

/// Milliseconds between two instants; below zero where the second was first.
fn millis(from: Instant, to: Instant) -> f64 {
    let after = to.saturating_duration_since(from).as_secs_f64();
    let before = from.saturating_duration_since(to).as_secs_f64();
    (after - before) * 1e3
}

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let cluster = preloaded("pg_klaxon")?;
    let stage = Stage::set(&cluster).await?;
    stage.relay().await?;
    stage.webhook("events", "run.failed").await?;
    let mut emitters = Vec::new();
    for _ in 0..4 {
        emitters.push(Emitter::new(&stage, "run.failed").await?);
    }
    let _worker = stage.worker(&[]).await;
    let count = plan.pick(500, 2_000);
    let mut figures: HashMap<&str, [Vec<f64>; 4]> = HashMap::new();
    for round in 0..=plan.pick(1, 3) {
        for mode in ["relay", "notify"] {
            for emitter in &emitters {
                emitter.client.batch_execute(&format!("SET klaxon.wakeup = {mode}")).await?;
            }
            stage.sink.clear("events");
            let commits = paced(&emitters, if round == 0 { 100 } else { count }, PERIOD).await?;
            let (sent, answered) = latencies(&stage, "events", &commits).await?;
            // The first round opens connections and is not counted.
            if round > 0 {
                let rows = figures.entry(mode).or_default();
                rows[0].push(quantile(&answered, 0.50));
                rows[1].push(quantile(&answered, 0.99));
                rows[2].push(quantile(&sent, 0.50));
                rows[3].push(quantile(&sent, 0.99));
            }
        }
    }
    report.section("From commit to arrival, 100 events a second");
    for mode in ["relay", "notify"] {
        let rows = &figures[mode];
        report.row(&format!("ms from the COMMIT's answer to arrival in {mode} mode, p50"), &rows[0]);
        report.row("the same, p99", &rows[1]);
        report.row("ms from the COMMIT being sent, p50", &rows[2]);
        report.row("the same, p99", &rows[3]);
    }
    Ok(())
}
