//! What befalls sessions: roles' settings, listeners, the queue of notifications, a pooler.

use std::io::Write as _;
use std::time::{Duration, Instant};

use klaxon_tests::database::{EMITTER_ROLE, WORKER_ROLE};
use klaxon_tests::history::now;
use klaxon_tests::limit::within;
use klaxon_tests::notify_queue::{self, FullQueue, PAGES};
use klaxon_tests::pooler::Pooler;
use tokio::time::sleep;
use tokio_postgres::Config;
use tokio_postgres::error::SqlState;

use crate::ground::{Ground, LOAD};
use crate::times;

/// The session that listens, every second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listener_killed() {
    let kills = times(60, 5);
    let mut ground = Ground::set(&[]).await;
    ground.emit(6);
    let worker = ground.scene.worker(&[]).await;
    for _ in 0..kills {
        let from = now();
        let sql = "SELECT pg_terminate_backend(pid) FROM klaxon.worker";
        ground.scene.client.batch_execute(sql).await.unwrap();
        ground.incident("the end of a worker's session", from);
        sleep(Duration::from_secs(1)).await;
    }
    ground.recover().await;
    ground
        .judge("session::listener_killed", "listener killed every second", kills.to_string(), vec![worker])
        .await;
}

/// Somebody listens and never reads, so that the queue fills: whoever notifies is refused then, and is told so.
/// Transactions that fire nothing, and those whose notification is the relay's, commit all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_full() {
    const TEST: &str = "session::queue_full";
    if !notify_queue::can_be_small() {
        let _ = writeln!(
            std::io::stderr(),
            "NOT TESTED: {TEST} needs max_notify_queue_pages, which Postgres has since 17: before, the queue is of 8 GB"
        );
        return;
    }
    let length = Duration::from_secs(times(60, 5) as u64);
    let mut ground = Ground::set(&[PAGES]).await;
    let worker = ground.scene.worker(&[]).await;
    let full = FullQueue::fill(&ground.scene.database).await;
    ground.emit(6);
    let emit = "SELECT klaxon.notify_event($1, project => $2)";
    let (began, mut refused) = (Instant::now(), 0);
    while began.elapsed() < length {
        for mode in ["notify", "relay", "poll"] {
            let set = format!("SET klaxon.wakeup = '{mode}'");
            ground.scene.client.batch_execute(&set).await.unwrap();
            match ground.scene.client.query_one(emit, &[&LOAD.name, &LOAD.project]).await {
                Ok(row) if mode != "notify" => ground.ledger.write(|entries| {
                    entries.committed.insert(row.get(0), LOAD);
                }),
                Err(error) if mode == "notify" => {
                    let error = error.as_db_error().expect("Postgres says it");
                    assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED, "{error}");
                    assert_eq!(error.message(), "too many notifications in the NOTIFY queue");
                    refused += 1;
                }
                result => panic!("{mode}: {result:?}"),
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    ground.recover().await;
    full.let_go().await;
    ground.recover().await;
    // The relay has gone on, and notifies again.
    let (_listener, mut notifications) = ground.scene.database.listen("klaxon_outbox").await;
    ground.scene.client.batch_execute("SET klaxon.wakeup = 'relay'").await.unwrap();
    ground.load(1).await;
    within("a notification", notifications.recv()).await.expect("the session lasts");
    let times = format!("{} s, {refused} refused", length.as_secs());
    ground.judge(TEST, "NOTIFY queue full", times, vec![worker]).await;
}

/// Clients share a few sessions of the server's, each for a transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pooled() {
    let seconds = times(60, 4);
    let mut ground = Ground::set(&[]).await;
    let pooler = Pooler::start(ground.scene.database.cluster, "transaction", 4).await;
    let mut way = Config::new();
    way.host("127.0.0.1").port(pooler.port()).user(EMITTER_ROLE).dbname(&ground.scene.database.name);
    ground.emit_by(8, &way);
    let worker = ground.scene.worker(&[]).await;
    sleep(Duration::from_secs(seconds as u64)).await;
    ground.recover().await;
    let fault = "emitters through pgbouncer, `pool_mode = transaction`";
    ground.judge("session::pooled", fault, format!("{seconds} s"), vec![worker]).await;
}

/// The worker's role and the emitters' have this setting.
async fn settled(test: &str, setting: &str, value: &str) {
    let seconds = times(20, 3);
    let mut ground = Ground::set(&[]).await;
    for role in [WORKER_ROLE, EMITTER_ROLE] {
        let sql = format!("ALTER ROLE {role} SET {setting} = {value}");
        ground.scene.client.batch_execute(&sql).await.unwrap();
    }
    ground.emit_by(6, &ground.scene.database.way(EMITTER_ROLE));
    let worker = ground.scene.worker(&[]).await;
    sleep(Duration::from_secs(seconds as u64)).await;
    ground.load(5_000).await;
    ground.recover().await;
    let fault = format!("roles with `{setting} = {value}`");
    ground.judge(test, &fault, format!("{seconds} s"), vec![worker]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hurried() {
    settled("session::hurried", "statement_timeout", "'50ms'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable() {
    settled("session::serializable", "default_transaction_isolation", "'serializable'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pathless() {
    settled("session::pathless", "search_path", "''").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only() {
    settled("session::read_only", "default_transaction_read_only", "on").await;
}
