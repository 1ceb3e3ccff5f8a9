//! One event a transaction: what telling somebody adds to a commit, against a plain row and against the peers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use tokio_postgres::Client;

use crate::board::{Better, Board};
use crate::contender::{Contender, Who};
use crate::latency::Emitter;
use crate::plan::Plan;
use crate::plot::Plot;
use crate::report::{Goal, Report};
use crate::sink::Sink;
use crate::stage::preloaded;

const CLIENTS: [usize; 2] = [8, 32];
/// A table as the events' without what listens to it, and rows like an event.
const PLAIN: &str = "
    CREATE TABLE plain (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), type text NOT NULL, project text, payload jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now())";
const INSERT: &str =
    "INSERT INTO plain (type, project, payload) VALUES ('run.failed', 'p0', '{\"run_id\": 1}') RETURNING id";
const NOTIFY: &str = "WITH event AS (INSERT INTO plain (type, project, payload) VALUES ('run.failed', 'p0', '{\"run_id\": 1}') RETURNING id)
    SELECT id, pg_notify('plain', '') FROM event";

/// Sessions that commit, and one that listens as a worker does.
struct Side<'c> {
    sessions: Vec<Arc<Emitter>>,
    _listener: Client,
    _contender: Option<Contender<'c>>,
}

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let cluster = preloaded("pg_klaxon")?;
    let plain = Database::bare(&cluster);
    plain.psql(PLAIN);
    let row = limit(&plain, INSERT).await?;
    let notified = limit(&plain, NOTIFY).await?;
    let mut sides = HashMap::new();
    for who in Who::ALL {
        sides.insert(who, side(&cluster, who).await?);
    }
    let time = plan.pick(Duration::from_millis(700), Duration::from_secs(3));
    for clients in CLIENTS {
        let (mut rows, mut notifies, mut board) = (Vec::new(), Vec::new(), Board::default());
        // The first round fills caches and is not counted.
        for round in 0..=plan.rounds() {
            plain.psql("CHECKPOINT");
            let (row, notified) =
                (commits(&row, clients, time).await?, commits(&notified, clients, time).await?);
            for who in Who::in_turn(round) {
                let rate = commits(&sides[&who], clients, time).await?;
                if round > 0 {
                    board.push(who, rate);
                }
            }
            if round > 0 {
                rows.push(row);
                notifies.push(notified);
            }
        }
        report
            .section(&format!("One event a transaction, {clients} clients, each one commit after the other"));
        report.row("transactions a second that insert a plain row", &rows);
        report.row("the same with a NOTIFY", &notifies);
        board.rows(report, "transactions a second that enqueue");
        let what = format!("notify_event a transaction, {clients} clients");
        report.goal(
            &format!("{what}, against the plain row"),
            board.of(Who::Klaxon),
            &rows,
            Goal::AtLeast(0.7),
        );
        board.against_best(report, &what, Better::More, Goal::AtLeast(2.5));
        let mut bars = vec![("plain INSERT".to_owned(), rows), ("INSERT and NOTIFY".to_owned(), notifies)];
        bars.extend(board.named());
        let title = format!("One event a transaction, {clients} clients");
        report.plot(&format!("commits-{clients}"), &Plot::bars(&title, "transactions a second", bars));
    }
    Ok(())
}

/// What a plain table allows.
async fn limit(database: &Database<'_>, statement: &str) -> anyhow::Result<Side<'static>> {
    let mut sessions = Vec::new();
    for _ in 0..CLIENTS[1] {
        sessions.push(Emitter::new(database.connect().await, statement).await?);
    }
    Ok(Side { sessions, _listener: listener(database, "plain").await, _contender: None })
}

async fn side(cluster: &Cluster, who: Who) -> anyhow::Result<Side<'_>> {
    let contender = Contender::set(cluster, who, Sink::start()?).await?;
    let mut sessions = Vec::new();
    for _ in 0..CLIENTS[1] {
        sessions.push(contender.emitter().await?);
    }
    let listener = listener(contender.database(), contender.listens()).await;
    Ok(Side { sessions, _listener: listener, _contender: Some(contender) })
}

/// Somebody listens, as a worker does.
async fn listener(database: &Database<'_>, channel: &str) -> Client {
    let (client, mut notifications) = database.listen(&format!("\"{channel}\"")).await;
    tokio::spawn(async move { while notifications.recv().await.is_some() {} });
    client
}

/// Commits a second of so many of a side's sessions together.
async fn commits(side: &Side<'_>, clients: usize, time: Duration) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let counts = try_join_all(side.sessions[..clients].iter().map(|session| async move {
        let mut count = 0u32;
        while begin.elapsed() < time {
            session.write().await?;
            count += 1;
        }
        Ok::<u32, tokio_postgres::Error>(count)
    }))
    .await?;
    Ok(f64::from(counts.iter().sum::<u32>()) / begin.elapsed().as_secs_f64())
}
