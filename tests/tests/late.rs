//! A transaction that began before many others and commits after them.

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::{Database, WORKER_ROLE};
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;

const SETTLED: &str = "NOT EXISTS (SELECT FROM klaxon.outbox)";
const EMIT: &str = "SELECT klaxon.notify_event('run.failed', '{\"late\": true}')";

/// Counted by what the worker asks, whatever the time that takes: the read that was on its way, and the one
/// that finds it.
#[tokio::test]
async fn what_commits_late_is_found_by_the_next_read() {
    let cluster = Cluster::start(&[("log_statement", "all"), ("log_line_prefix", "%u ")]).unwrap();
    let scene = Scene::set(Database::create(&cluster)).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    let late = scene.database.connect().await;
    late.batch_execute("SET klaxon.wakeup = 'poll'").await.unwrap();
    late.batch_execute(&format!("BEGIN; {EMIT}")).await.unwrap();
    // Each is read under a snapshot of its own, with the late one in progress.
    for n in 0..100 {
        scene.emit("run.failed", json!({ "n": n })).await;
    }
    let before = scene.receiver.wait_at("/hook", 100).await;
    assert!(before.iter().all(|request| request.json()["data"]["late"].is_null()));
    until(&scene.client, SETTLED).await;
    late.batch_execute("COMMIT /* late */").await.unwrap();
    let request = scene.receiver.wait_at("/hook", 101).await.remove(100);
    assert_eq!(request.json()["data"], json!({"late": true}));
    until(&scene.client, SETTLED).await;

    let log = cluster.log();
    let of_worker = format!("{WORKER_ROLE} LOG:  execute");
    let after = log.split_once("COMMIT /* late */").expect("it is logged").1;
    let asked: Vec<&str> = after.lines().filter(|line| line.starts_with(&of_worker)).collect();
    let settled = asked.iter().position(|line| line.contains("-- Delivered")).expect("it was settled");
    let reads = asked[..settled].iter().filter(|line| line.contains("-- What became visible")).count();
    assert!((1..=2).contains(&reads), "{reads} reads: {asked:#?}");
}

/// By the notification of its own commit, where it makes one: no poll comes for a minute.
#[tokio::test]
async fn what_commits_late_tells_so_itself() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let mut worker = scene.worker(&["--poll-interval", "60"]).await;
    worker.wait_for_log("that it hears", |line| line.message() == "notifications arrive").await;
    let late = scene.database.connect().await;
    late.batch_execute(&format!("BEGIN; {EMIT}")).await.unwrap();
    for n in 0..20 {
        scene.emit("run.failed", json!({ "n": n })).await;
    }
    scene.receiver.wait_at("/hook", 20).await;
    until(&scene.client, SETTLED).await;
    late.batch_execute("COMMIT").await.unwrap();
    let request = scene.receiver.wait_at("/hook", 21).await.remove(20);
    assert_eq!(request.json()["data"], json!({"late": true}));
}
