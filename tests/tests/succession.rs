//! Who takes over from a worker that is gone, and how soon; and from whom nobody does.

use klaxon_tests::cluster::{Cluster, Stop};
use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use klaxon_tests::worker::{LogLine, Worker};
use serde_json::json;
use tokio_postgres::{Client, NoTls};

/// Below the 10 s after which a worker that is merely silent is taken for dead, by the database's clock. About two
/// is usual.
const SOON: f64 = 8.0;

/// Two workers have half of the shards each.
const SHARED: &str = "(SELECT count(*) = 2 AND min(cardinality(shards)) = 32 FROM klaxon.worker)
    AND (SELECT count(DISTINCT owner) = 2 FROM klaxon.shard)";

/// A scene with two channels, of shards that two workers do not both have.
async fn set(database: Database<'_>) -> Scene<'_> {
    let scene = Scene::set(database).await;
    let one = scene.webhook("one", Hook::default(), json!({}), &["run.failed"]).await;
    let other = scene.webhook("other", Hook::default(), json!({}), &["run.failed"]).await;
    assert_eq!((one - other) & 1, 1);
    scene
}

async fn seconds(client: &Client, expression: &str) -> f64 {
    let sql = format!("SELECT extract(epoch FROM {expression})::double precision");
    client.query_one(&sql, &[]).await.unwrap().get(0)
}

async fn bury(worker: &mut Worker) {
    worker.signal("KILL");
    worker.wait().await;
}

/// Emits an event, and says how many seconds later both channels had it.
async fn told_after(scene: &Scene<'_>) -> f64 {
    let began = seconds(&scene.client, "clock_timestamp()").await;
    let event = scene.emit("run.failed", json!({})).await;
    let of = format!("FROM klaxon.delivery WHERE event_id = '{event}' AND status = 'sent'");
    until(&scene.client, &format!("(SELECT count(*) = 2 {of})")).await;
    seconds(&scene.client, &format!("(SELECT max(attempted_at) {of})")).await - began
}

#[tokio::test]
async fn what_a_killed_worker_had_is_soon_the_others() {
    let scene = set(Database::new()).await;
    let mut first = scene.worker(&[]).await;
    let second = scene.worker(&[]).await;
    until(&scene.client, SHARED).await;
    bury(&mut first).await;
    let took = told_after(&scene).await;
    println!("told {took:.1} s after the kill");
    assert!(took < SOON, "{took} s");
    until(&scene.client, "(SELECT count(*) = 1 AND min(cardinality(shards)) = 64 FROM klaxon.worker)").await;
    let deaths = "SELECT sum(deaths)::bigint FROM klaxon.shard";
    assert_eq!(scene.client.query_one(deaths, &[]).await.unwrap().get::<_, i64>(0), 32);
    drop(second);
}

#[tokio::test]
async fn a_successor_does_not_wait_for_who_is_gone() {
    let scene = set(Database::new()).await;
    bury(&mut scene.worker(&[]).await).await;
    let _next = scene.start(&[]);
    let took = told_after(&scene).await;
    println!("told {took:.1} s after the kill");
    assert!(took < SOON, "{took} s");
}

/// Its session lives, with its locks: for all that can be seen it may go on at any moment.
#[tokio::test]
async fn one_that_is_silent_and_not_gone_is_waited_for() {
    let scene = set(Database::new()).await;
    let first = scene.worker(&[]).await;
    let _second = scene.worker(&[]).await;
    until(&scene.client, SHARED).await;
    first.signal("STOP");
    let event = scene.emit("run.failed", json!({})).await;
    // That of the one that is stopped: the other's goes on.
    until(
        &scene.client,
        "(SELECT min(heartbeat_at) < clock_timestamp() - interval '3 s' AND count(*) = 2 FROM klaxon.worker)",
    )
    .await;
    let heard = seconds(&scene.client, "(SELECT min(heartbeat_at) FROM klaxon.worker)").await;
    let of = format!("FROM klaxon.delivery WHERE event_id = '{event}' AND status = 'sent'");
    until(&scene.client, &format!("(SELECT count(*) = 2 {of})")).await;
    let told = seconds(&scene.client, &format!("(SELECT max(attempted_at) {of})")).await;
    assert!(told - heard >= 10.0, "{} s", told - heard);
    first.signal("CONT");
}

/// Every session ends then, and no worker has.
#[tokio::test]
async fn a_restart_of_the_server_is_nobodys_death() {
    let cluster = Cluster::start(&[]).unwrap();
    let mut scene = set(Database::create(&cluster)).await;
    let mut workers = [scene.worker(&[]).await, scene.worker(&[]).await];
    until(&scene.client, SHARED).await;
    cluster.stop(Stop::Immediate).unwrap();
    // For longer than one whose session alone has ended would be waited for.
    for worker in &mut workers {
        worker
            .wait_for_log("that it has tried for a while", |line| {
                line.message() == "cannot reach postgres" && line.field("attempt").as_u64() >= Some(6)
            })
            .await;
    }
    cluster.restart().unwrap();
    scene.client = scene.database.connect().await;
    until(
        &scene.client,
        &format!("{SHARED} AND (SELECT min(started_at) > pg_postmaster_start_time() FROM klaxon.worker)"),
    )
    .await;
    let deaths = "SELECT sum(deaths)::bigint FROM klaxon.shard";
    assert_eq!(scene.client.query_one(deaths, &[]).await.unwrap().get::<_, i64>(0), 0);
    let fenced = |line: &LogLine| line.message() == "fenced a silent worker";
    assert!(!workers.iter().any(|worker| worker.log().iter().any(fenced)));
}

/// Process ids come round again, the worker's own too. Whose it is now began later than the one that is gone.
#[tokio::test]
async fn another_session_under_the_same_process_id_is_not_taken_for_the_workers() {
    let scene = Scene::set(Database::new()).await;
    let mut worker = scene.worker(&[]).await;
    let (other, connection) = tokio_postgres::connect(&scene.database.worker_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    scene
        .client
        .execute(
            "INSERT INTO klaxon.worker (id, host, version, started_at, heartbeat_at, pid)
             SELECT gen_random_uuid(), w.host, '0.1.0', a.backend_start + w.after, clock_timestamp(), a.pid
             FROM (VALUES ($1, 'gone', interval '-1 s'), ($1, 'lives', interval '1 ms'), ((SELECT pid FROM klaxon.worker), 'gone, too', interval '-1 s'))
                 AS w (pid, host, after)
             JOIN pg_stat_activity AS a USING (pid)",
            &[&other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0)],
        )
        .await
        .unwrap();
    let fences = |line: &LogLine| line.message() == "fenced a silent worker";
    for host in ["gone", "gone, too"] {
        let what = format!("that {host} is fenced");
        worker.wait_for_log(&what, |line| fences(line) && *line.field("host") == json!(host)).await;
    }
    let log = worker.log();
    let fenced: Vec<_> = log.iter().filter(|line| fences(line)).collect();
    assert!(
        fenced.len() == 2 && fenced.iter().all(|line| *line.field("ended") == json!(false)),
        "{fenced:#?}"
    );
    assert!(!log.iter().any(|line| line.message() == "cannot reach postgres"), "its own session is its own");
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.worker WHERE host = 'lives')").await;
    // It was not the worker's to end, and is not.
    other.batch_execute("SELECT").await.unwrap();
}
