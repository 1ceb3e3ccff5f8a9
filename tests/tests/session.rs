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

/// Advisory locks are anybody's who may connect.
#[tokio::test]
async fn whoever_locks_a_shard_and_is_no_worker_is_named() {
    let scene = Scene::set(Database::new()).await;
    let holder = scene.database.connect().await;
    holder
        .batch_execute("SELECT pg_advisory_lock(x'6b6c6178'::integer, n) FROM generate_series(7, 8) AS n")
        .await
        .unwrap();
    let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let mut worker = scene.worker(&[]).await;
    let line = worker
        .wait_for_log("who has them", |line| {
            line.message() == "a session that is no worker's has the locks of shards: nobody delivers them"
        })
        .await;
    assert_eq!((line.field("pid"), line.field("shards")), (&json!(pid), &json!(2)));
    assert_eq!(line.field("role"), "postgres");
    holder.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    until(&scene.client, "(SELECT cardinality(shards) = 64 FROM klaxon.worker)").await;
}

/// As an extension or a trigger of an administrator's may do, without meaning any harm.
#[tokio::test]
async fn a_worker_whose_locks_somebody_gave_away_takes_them_anew() {
    let scene = Scene::set(Database::new()).await;
    let one = scene.webhook("one", Hook::default(), json!({}), &["run.failed"]).await;
    let other = scene.webhook("other", Hook::default(), json!({}), &["run.failed"]).await;
    assert_eq!((one - other) & 1, 1);
    let mut first = scene.worker(&[]).await;
    scene
        .client
        .batch_execute(
            "CREATE TABLE given (n int);
             CREATE FUNCTION give() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
                 BEGIN
                     IF NOT EXISTS (SELECT FROM public.given) THEN
                         PERFORM pg_advisory_unlock_all();
                         INSERT INTO public.given VALUES (1);
                     END IF;
                     RETURN NEW;
                 END
             $$;
             CREATE TRIGGER give BEFORE UPDATE ON klaxon.worker FOR EACH ROW EXECUTE FUNCTION give()",
        )
        .await
        .unwrap();
    until(&scene.client, "EXISTS (SELECT FROM given)").await;
    // It finds out when it is to hand over what it has not.
    let _second = scene.worker(&[]).await;
    first
        .wait_for_log("that its locks are gone", |line| {
            line.message() == "cannot reach postgres"
                && line.field("error").as_str().is_some_and(|error| error.contains("locks"))
        })
        .await;
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "(SELECT count(*) = 2 FROM klaxon.delivery WHERE status = 'sent')").await;
    until(&scene.client, "(SELECT count(*) = 2 AND min(cardinality(shards)) = 32 FROM klaxon.worker)").await;
}
