//! A hundred thousand events at once, to three subscriptions: all of them arrive, each attempt is
//! one row of the log, memory stays small, and a killed worker loses nothing.

use std::collections::HashSet;
use std::time::Duration;

use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until_within;
use serde_json::json;
use uuid::Uuid;

const EVENTS: i64 = 100_000;
const PATHS: [&str; 3] = ["one", "two", "three"];
const LIMIT: Duration = Duration::from_secs(900);
const MEMORY: u64 = 100 * 1000 * 1000;

async fn set() -> Scene<'static> {
    let scene = Scene::set(Database::new()).await;
    for path in PATHS {
        scene.webhook(path, Hook::default().secret("volume").counting(), json!({}), &["run.finished"]).await;
    }
    scene
}

async fn insert(scene: &Scene<'_>) {
    let inserted = scene
        .client
        .execute(
            "INSERT INTO klaxon.event (type, project, payload)
             SELECT 'run.finished', 'volume', jsonb_build_object('run_id', n, 'branch', 'main', 'total_tests', 412)
             FROM generate_series(1, $1::bigint) AS n",
            &[&EVENTS],
        )
        .await
        .unwrap();
    assert_eq!(inserted, EVENTS as u64);
}

async fn deliveries(scene: &Scene<'_>, sql: &str) -> Vec<u128> {
    scene.client.query(sql, &[]).await.unwrap().iter().map(|row| row.get::<_, Uuid>(0).as_u128()).collect()
}

/// A worker may add to the log meanwhile: its heartbeat takes what people change into it, and a session that has
/// lost its worker ends what it was asked.
async fn verified(scene: &Scene<'_>) {
    let rows = async || -> i64 {
        scene.client.query_one("SELECT count(*) FROM klaxon.delivery", &[]).await.unwrap().get(0)
    };
    let before = rows().await;
    let output = scene.installation.run(&["audit", "verify", "--json"]).await;
    let after = rows().await;
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &verdict["ok"]), (Some(0), &json!(true)), "{verdict}");
    let read = verdict["rows"].as_i64().unwrap();
    assert!((before..=after).contains(&read), "{read} rows were read of {before} to {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_events_are_delivered_once_each() {
    let scene = set().await;
    let worker = scene.worker(&[]).await;
    insert(&scene).await;
    let mut received = Vec::new();
    for path in PATHS {
        received.extend(scene.receiver.wait_ids(LIMIT, &format!("/{path}"), EVENTS as usize).await);
    }
    until_within(LIMIT, &scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let peak = worker.peak_memory();
    assert!(peak < MEMORY, "the worker had {peak} bytes resident");

    let logged = deliveries(&scene, "SELECT delivery_id FROM klaxon.delivery WHERE kind = 'attempt'").await;
    assert_eq!(logged.len(), 3 * EVENTS as usize, "one row an attempt");
    received.sort_unstable();
    received.dedup();
    assert_eq!(received.len(), 3 * EVENTS as usize, "nothing twice, nothing missing");
    assert_eq!(logged.into_iter().collect::<HashSet<_>>(), received.into_iter().collect::<HashSet<_>>());
    let others: i64 = scene
        .client
        .query_one("SELECT count(*) FROM klaxon.delivery WHERE status <> 'sent' OR attempt <> 1", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(others, 0);
    verified(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_loses_nothing() {
    let scene = set().await;
    let mut worker = scene.worker(&[]).await;
    insert(&scene).await;
    let expected: HashSet<_> = {
        // What was settled before this read is in the log, the rest in the outbox: one snapshot.
        let sql = "SELECT id FROM klaxon.outbox UNION SELECT delivery_id FROM klaxon.delivery WHERE kind = 'attempt'";
        deliveries(&scene, sql).await.into_iter().collect()
    };
    assert_eq!(expected.len(), 3 * EVENTS as usize);
    scene.receiver.wait_ids(LIMIT, "/two", EVENTS as usize / 4).await;
    worker.signal("KILL");
    worker.wait().await;
    let settled: i64 = scene
        .client
        .query_one("SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt'", &[])
        .await
        .unwrap()
        .get(0);
    assert!(settled < 3 * EVENTS, "killed in the middle");
    verified(&scene).await;

    let _next = scene.worker(&[]).await;
    until_within(LIMIT, &scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let received: Vec<_> = PATHS.iter().flat_map(|path| scene.receiver.ids(&format!("/{path}"))).collect();
    let repeated = received.len() - expected.len();
    assert_eq!(received.into_iter().collect::<HashSet<_>>(), expected);
    // At least once: what was in flight at the kill (256), answered and waiting to be settled (500)
    // or being written (500) comes again, and no more than that.
    assert!(repeated <= 256 + 2 * 500, "{repeated} deliveries came twice");
    let sent = deliveries(&scene, "SELECT delivery_id FROM klaxon.delivery WHERE status = 'sent'").await;
    assert_eq!(sent.len(), expected.len(), "settled once each");
    assert_eq!(sent.into_iter().collect::<HashSet<_>>(), expected);
    verified(&scene).await;
}
