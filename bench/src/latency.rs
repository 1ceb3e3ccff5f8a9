//! From commit to arrival, a hundred events a second, whether or not the one before has arrived.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::board::{Better, Board};
use crate::contender::{Contender, PATH, Who};
use crate::deliver::CONCURRENCY;
use crate::peer::Enqueue;
use crate::plan::Plan;
use crate::plot::Plot;
use crate::report::{Goal, Report, quantile};
use crate::sink::Sink;
use crate::stage::{Stage, preloaded};

const PERIOD: Duration = Duration::from_millis(10);
const EMIT: &str = "SELECT klaxon.notify_event('run.failed', '{\"run_id\": 1, \"branch\": \"main\"}')";
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
    /// A peer is given the event's id; ours answers with it.
    peer: Option<Enqueue>,
}

impl Emitter {
    /// One that calls `notify_event` as this query does.
    pub async fn new(client: Client, call: &str) -> anyhow::Result<Arc<Self>> {
        let emit = client.prepare(call).await?;
        Ok(Arc::new(Self { client, emit, peer: None }))
    }

    /// One that enqueues in a peer.
    pub async fn enqueueing(client: Client, peer: Enqueue) -> anyhow::Result<Arc<Self>> {
        let emit = client.prepare_typed(&peer.text, &[Type::TEXT]).await?;
        Ok(Arc::new(Self { client, emit, peer: Some(peer) }))
    }

    /// An event in a transaction of its own.
    pub async fn emit(&self) -> Result<Commit, tokio_postgres::Error> {
        self.client.batch_execute("BEGIN").await?;
        let event = self.write().await?;
        let sent = Instant::now();
        self.client.batch_execute("COMMIT").await?;
        Ok(Commit { event, sent, answered: Instant::now() })
    }

    /// An event in the transaction that there is, or in that of the statement.
    pub async fn write(&self) -> Result<Uuid, tokio_postgres::Error> {
        let Some(peer) = &self.peer else {
            return Ok(self.client.query_one(&self.emit, &[]).await?.get(0));
        };
        let event = Uuid::new_v4();
        self.client.query(&self.emit, &[&peer.argument(event)]).await?;
        Ok(event)
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
pub async fn latencies(sink: &Sink, path: &str, commits: &[Commit]) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    sink.wait(path, commits.len(), LIMIT).await?;
    let arrived: HashMap<Uuid, Instant> =
        sink.arrivals(path).iter().map(|arrival| (arrival.event, arrival.at)).collect();
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
        emitters.push(Emitter::new(stage.database.connect().await, EMIT).await?);
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
            let (sent, answered) = latencies(&stage.sink, "events", &commits).await?;
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
    against_peers(plan, report).await
}

/// The same of everybody, in their own tables and by their own SQL.
async fn against_peers(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let count = plan.pick(300, 2_000);
    let cluster = preloaded("pg_klaxon")?;
    let (mut p50, mut p99) = (Board::default(), Board::default());
    for round in 0..plan.rounds() {
        for who in Who::in_turn(round) {
            let contender = Contender::set(&cluster, who, Sink::start()?).await?;
            let mut emitters = Vec::new();
            for _ in 0..4 {
                emitters.push(contender.emitter().await?);
            }
            let process = contender.work(CONCURRENCY).await?;
            for (warm, count) in [(true, 100), (false, count)] {
                contender.sink().clear(PATH);
                let commits = paced(&emitters, count, PERIOD).await?;
                let (_, answered) = latencies(contender.sink(), PATH, &commits).await?;
                if !warm {
                    p50.push(who, quantile(&answered, 0.50));
                    p99.push(who, quantile(&answered, 0.99));
                }
            }
            drop(process);
            contender.end()?;
        }
    }
    report.section("From the COMMIT's answer to arrival, 100 events a second");
    p50.rows(report, "ms, p50");
    p99.rows(report, "ms, p99");
    p50.against_best(report, "commit to arrival, p50", Better::Less, Goal::AtMost(1.0));
    p99.against_best(report, "commit to arrival, p99", Better::Less, Goal::AtMost(1.0));
    report.plot("latency-p50", &Plot::bars("From commit to arrival, p50", "ms", p50.named()));
    report.plot("latency-p99", &Plot::bars("From commit to arrival, p99", "ms", p99.named()));
    Ok(())
}
