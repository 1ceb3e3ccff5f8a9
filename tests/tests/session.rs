//! The session that owns the shards: taken, given up, lost.

use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;

/// Without a word from the client, the server keeps a session, and its locks, for hours.
#[tokio::test]
async fn a_worker_that_comes_back_ends_the_session_it_had() {
    let mut scene = Scene::set(Database::new()).await;
    let proxy = scene.proxy().await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let mut worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({"n": 1})).await;
    scene.receiver.wait_at("/hook", 1).await;
    proxy.forsake();
    worker.wait_for_log("that its session is lost", |line| line.message() == "cannot reach postgres").await;
    scene.emit("run.failed", json!({"n": 2})).await;
    let requests = scene.receiver.wait_at("/hook", 2).await;
    assert_eq!(requests[1].json()["data"], json!({"n": 2}));
    until(
        &scene.client,
        "(SELECT count(DISTINCT l.pid) = 1 FROM pg_locks AS l
          WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
    )
    .await;
}

/// What it was taking when it was told to stop is not its to begin with, though something else keeps it
/// for a while.
#[tokio::test]
async fn a_worker_that_is_told_to_stop_while_it_takes_a_shard_sends_nothing_of_it() {
    let scene = Scene::set(Database::new()).await;
    let (held, release) = Hook::default().held();
    scene.webhook("held", held, json!({}), &["run.failed"]).await;
    let late = scene.webhook("late", Hook::default(), json!({}), &["run.failed"]).await;
    let [shard, roll, pending] =
        [scene.database.connect().await, scene.database.connect().await, scene.database.connect().await];
    let waits_in = |statement: &str| {
        format!(
            "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'klaxon%'
                     AND wait_event_type = 'Lock' AND query LIKE '%{statement}%')"
        )
    };
    // Step by step: another has the shard of one channel; the worker waits in a heartbeat; it has the shard,
    // and waits to see what is pending in it.
    shard
        .batch_execute(&format!("SELECT pg_advisory_lock(x'6b6c6178'::integer, {late} & 63)"))
        .await
        .unwrap();
    let mut worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    scene.receiver.wait_at("/held", 1).await;
    roll.batch_execute("BEGIN; LOCK TABLE klaxon.worker IN EXCLUSIVE MODE").await.unwrap();
    until(&scene.client, &waits_in("A sign of life")).await;
    pending.batch_execute("BEGIN; LOCK TABLE klaxon.outbox").await.unwrap();
    shard.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    roll.batch_execute("COMMIT").await.unwrap();
    until(&scene.client, &waits_in("WITH RECURSIVE channel")).await;
    worker.signal("TERM");
    worker.wait_for_log("that it drains", |line| line.message() == "draining").await;
    pending.batch_execute("COMMIT").await.unwrap();
    let now: String = scene.client.query_one("SELECT clock_timestamp()::text", &[]).await.unwrap().get(0);
    until(
        &scene.client,
        &format!("(SELECT heartbeat_at > '{now}'::timestamptz + interval '1 s' FROM klaxon.worker)"),
    )
    .await;
    release.send(true).unwrap();
    assert_eq!(worker.wait().await.code(), Some(0));
    assert_eq!(scene.receiver.requests_at("/late").len(), 0);
    let left: Vec<i64> = scene
        .client
        .query("SELECT channel_id FROM klaxon.outbox", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(left, [late], "it waits for the next worker");
}
