//! A delivery that ends every worker that sends it is found, and everything else arrives.

use std::ops::RangeInclusive;

use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use klaxon_tests::worker::{LogLine, Worker};
use serde_json::json;

const CAREFUL: &str = "workers keep ending in shards, works them with care";

/// The next worker, once Postgres has noticed the end of the one before and this one has its shards.
async fn next(scene: &Scene<'_>) -> Worker {
    let worker = scene.worker(&[]).await;
    until(&scene.client, "(SELECT count(*) = 64 FROM klaxon.shard WHERE owner = (SELECT max(id::text)::uuid FROM klaxon.worker WHERE cardinality(shards) = 64))").await;
    worker
}

/// Forgets a worker that was killed, as the next one would in ten seconds.
async fn bury(scene: &Scene<'_>, worker: &mut Worker) {
    worker.signal("KILL");
    worker.wait().await;
    scene.client.batch_execute("DELETE FROM klaxon.worker").await.unwrap();
}

/// Kills each worker as soon as it has sent the delivery that waits at `/poison`, which is never answered: upon these
/// of its arrivals. Returns the next worker.
async fn kill(scene: &Scene<'_>, mut worker: Worker, arrivals: RangeInclusive<usize>) -> Worker {
    for arrival in arrivals {
        scene.receiver.wait_at("/poison", arrival).await;
        bury(scene, &mut worker).await;
        worker = scene.worker(&[]).await;
    }
    worker
}

async fn warnings(scene: &Scene<'_>) -> String {
    let row = scene.client.query_one("SELECT value FROM klaxon.status() WHERE item = 'warnings'", &[]).await;
    row.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
}

async fn verify(scene: &Scene<'_>) {
    let output = scene.run(&["audit", "verify"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until what was sent to this channel is settled: a worker that is killed before that sends it again.
async fn settled(scene: &Scene<'_>, channel: i64) {
    until(&scene.client, &format!("NOT EXISTS (SELECT FROM klaxon.outbox WHERE channel_id = {channel})"))
        .await;
}

/// Has the next channel be of the same shard as this one.
async fn stay_in_shard(scene: &Scene<'_>, channel: i64) {
    scene.client.execute("SELECT setval('klaxon.channel_id_seq', $1)", &[&(channel + 63)]).await.unwrap();
}

fn is(message: &'static str) -> impl Fn(&LogLine) -> bool {
    move |line| line.message() == message
}

#[tokio::test]
async fn a_delivery_that_ends_workers_is_given_up_and_all_others_arrive() {
    let scene = Scene::set(Database::new()).await;
    let (poison, _never) = Hook::default().held();
    let channel = scene.webhook("poison", poison, json!({"retry_schedule": [1]}), &["run.failed"]).await;
    let elsewhere = scene.webhook("elsewhere", Hook::default(), json!({}), &["task.failed"]).await;
    stay_in_shard(&scene, channel).await;
    let beside = scene.webhook("beside", Hook::default(), json!({}), &["task.failed"]).await;
    assert_eq!(channel & 63, beside & 63);
    let event = scene.emit("run.failed", json!({})).await;

    let worker = next(&scene).await;
    let mut worker = kill(&scene, worker, 1..=3).await;
    worker.wait_for_log("that it is careful", is(CAREFUL)).await;
    assert!(
        warnings(&scene).await.contains("workers keep ending in 64 shards"),
        "{}",
        warnings(&scene).await
    );
    // Counted while it is being sent, and due again by the schedule.
    scene.receiver.wait_at("/poison", 4).await;
    let row = scene
        .client
        .query_one("SELECT attempts, last_error, due_at > clock_timestamp() - interval '10 s' FROM klaxon.outbox WHERE channel_id = $1", &[&channel])
        .await
        .unwrap();
    assert_eq!(
        (row.get(0), row.get::<_, &str>(1), row.get(2)),
        (1, "the worker ended during this attempt", true)
    );
    // Meanwhile the others get on, in that shard once the attempt has ended.
    scene.emit("task.failed", json!({"n": 1})).await;
    scene.receiver.wait_at("/elsewhere", 1).await;
    settled(&scene, elsewhere).await;
    assert!(scene.receiver.requests_at("/beside").is_empty(), "one at a time");

    bury(&scene, &mut worker).await;
    let worker = scene.worker(&[]).await;
    scene.receiver.wait_at("/beside", 1).await;
    settled(&scene, beside).await;
    let mut worker = kill(&scene, worker, 5..=5).await;
    worker
        .wait_for_log("that it gives it up", is("workers ended whenever they sent this delivery: given up"))
        .await;
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let dead = scene
        .client
        .query_one("SELECT event_id, attempts, last_error, reason FROM klaxon.dead_letter", &[])
        .await
        .unwrap();
    assert_eq!(
        (dead.get(0), dead.get(1), dead.get(2), dead.get(3)),
        (event, 2, "the worker ended during this attempt", "the worker ended during its attempts")
    );
    assert_eq!(scene.receiver.requests_at("/poison").len(), 5, "three unseen, two counted");
    let logged = scene
        .client
        .query_one(
            "SELECT count(*), max(status), max(attempt), max(error) FROM klaxon.delivery WHERE kind = 'attempt' AND event_id = $1",
            &[&event],
        )
        .await
        .unwrap();
    assert_eq!(
        (logged.get(0), logged.get(1), logged.get(2), logged.get(3)),
        (1_i64, "dead", 2, "the worker ended during this attempt")
    );

    // Attempts that are settled are counted once, with care as without.
    scene.emit("task.failed", json!({"n": 2})).await;
    scene.receiver.wait_at("/beside", 2).await;
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let attempts: Vec<(i32, String)> = scene
        .client
        .query("SELECT attempt, status FROM klaxon.delivery WHERE kind = 'attempt' AND event_type = 'task.failed'", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(attempts, vec![(1, "sent".to_owned()); 4]);
    verify(&scene).await;
}

/// What fails while a shard is worked with care is tried as often as ever; what may not be tried again is
/// sent once with care, and not once more.
#[tokio::test]
async fn attempts_that_are_counted_first_are_as_many_as_the_schedule_says() {
    let scene = Scene::set(Database::new()).await;
    let (poison, _never) = Hook::default().held();
    let channel = scene.webhook("poison", poison, json!({"retry_schedule": []}), &["run.failed"]).await;
    stay_in_shard(&scene, channel).await;
    let failing = Hook::default().statuses([500]);
    scene.webhook("failing", failing, json!({"retry_schedule": [1, 1]}), &["task.failed"]).await;
    scene.emit("run.failed", json!({})).await;
    let worker = next(&scene).await;
    let _worker = kill(&scene, worker, 1..=4).await;
    let failed = scene.emit("task.failed", json!({})).await;
    until(&scene.client, "(SELECT count(*) = 2 FROM klaxon.dead_letter)").await;
    let dead: Vec<(String, i32, String)> = scene
        .client
        .query("SELECT event_type, attempts, reason FROM klaxon.dead_letter ORDER BY event_type", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert_eq!(
        dead,
        [
            ("run.failed".to_owned(), 1, "the worker ended during its attempts".to_owned()),
            ("task.failed".to_owned(), 3, "retries exhausted".to_owned())
        ]
    );
    assert_eq!(scene.receiver.requests_at("/poison").len(), 4, "three unseen, one counted");
    assert_eq!(scene.receiver.requests_at("/failing").len(), 3);
    let logged: Vec<(i32, String)> = scene
        .client
        .query("SELECT attempt, status FROM klaxon.delivery WHERE event_id = $1 ORDER BY seq", &[&failed])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let expected = [(1, "failed"), (2, "failed"), (3, "dead")].map(|(n, status)| (n, status.to_owned()));
    assert_eq!(logged, expected);
    verify(&scene).await;
}

#[tokio::test]
async fn workers_that_are_told_to_stop_are_no_cause_for_care() {
    let scene = Scene::set(Database::new()).await;
    for _ in 0..4 {
        let mut worker = next(&scene).await;
        worker.signal("TERM");
        assert_eq!(worker.wait().await.code(), Some(0));
        until(&scene.client, "(SELECT count(*) = 64 FROM klaxon.shard WHERE owner IS NULL AND deaths = 0)")
            .await;
    }
    // Nor is one that gives half of them to another.
    let mut first = next(&scene).await;
    let second = scene.worker(&[]).await;
    until(&scene.client, "(SELECT count(DISTINCT owner) = 2 AND sum(deaths) = 0 FROM klaxon.shard)").await;
    first.signal("KILL");
    first.wait().await;
    drop(second);
    assert_eq!(warnings(&scene).await, "");
}
