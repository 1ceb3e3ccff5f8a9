//! What waking the worker costs those who commit: the three modes side by side.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use klaxon_tests::database::Database;
use klaxon_tests::until::until;
use tokio_postgres::Client;

use crate::plan::Plan;
use crate::report::Report;
use crate::stage::preloaded;

const CLIENTS: usize = 32;
const ROUND: Duration = Duration::from_secs(3);

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let cluster = preloaded("pg_klaxon")?;
    let database = Database::create(&cluster);
    let client = database.connect().await;
    client.batch_execute(&format!("ALTER SYSTEM SET klaxon.relay_database = '{}'", database.name)).await?;
    client.batch_execute("SELECT pg_reload_conf()").await?;
    until(&client, "EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'klaxon relay' AND datname = current_database())").await;
    client
        .batch_execute(
            "INSERT INTO klaxon.channel (name, kind, config) VALUES ('c', 'webhook', '{\"url\": \"https://x.example.com\"}');
             SELECT klaxon.subscribe(ARRAY['c'], ARRAY['run.failed'], owner => NULL)",
        )
        .await?;
    // Somebody listens, as a worker does.
    let (_listener, mut notifications) = database.listen("klaxon_outbox").await;
    tokio::spawn(async move { while notifications.recv().await.is_some() {} });
    let mut sessions = Vec::new();
    for _ in 0..CLIENTS {
        sessions.push(database.connect().await);
    }
    let (mut poll, mut relay, mut notify) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=plan.rounds() {
        let times = (
            commits(&sessions, "poll").await?,
            commits(&sessions, "relay").await?,
            commits(&sessions, "notify").await?,
        );
        client.batch_execute("TRUNCATE klaxon.event; DELETE FROM klaxon.outbox; CHECKPOINT").await?;
        if round > 0 {
            poll.push(times.0);
            relay.push(times.1);
            notify.push(times.2);
        }
    }
    report.section("Waking the worker: 32 clients, each committing one notify_event after the other");
    report.row("commits a second in poll mode", &poll);
    report.ratio("commits in relay mode, against that", &relay, &poll);
    report.ratio("commits in notify mode, against that", &notify, &poll);
    Ok(())
}

/// Commits a second of all sessions together.
async fn commits(sessions: &[Client], mode: &str) -> anyhow::Result<f64> {
    for session in sessions {
        session.batch_execute(&format!("SET klaxon.wakeup = {mode}")).await?;
    }
    let begin = Instant::now();
    let counts = try_join_all(sessions.iter().map(|session| async move {
        let emit = session.prepare("SELECT klaxon.notify_event('run.failed', '{\"run_id\": 1}')").await?;
        let mut count = 0u32;
        while begin.elapsed() < ROUND {
            session.query(&emit, &[]).await?;
            count += 1;
        }
        Ok::<u32, tokio_postgres::Error>(count)
    }))
    .await?;
    Ok(f64::from(counts.iter().sum::<u32>()) / begin.elapsed().as_secs_f64())
}
