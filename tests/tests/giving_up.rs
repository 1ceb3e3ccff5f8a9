//! When a channel is given up, when a delivery is, and what neither may hold up.

use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;
use uuid::Uuid;

const SETTLED: &str = "NOT EXISTS (SELECT FROM klaxon.outbox)";

/// As if a channel's failures had begun so long ago, and nobody had touched it since.
async fn fails_since(scene: &Scene<'_>, channel: i64, ago: &str) {
    let moved = scene
        .client
        .execute(
            "UPDATE klaxon.channel_state SET failing_since = now() - $2::text::interval WHERE channel_id = $1 AND failing_since IS NOT NULL",
            &[&channel, &ago],
        )
        .await
        .unwrap();
    assert_eq!(moved, 1, "it fails");
    // updated_at is a trigger's.
    let untouched = format!(
        "SET session_replication_role = replica;
         UPDATE klaxon.channel SET updated_at = now() - interval '{ago}' WHERE id = {channel};
         RESET session_replication_role"
    );
    scene.client.batch_execute(&untouched).await.unwrap();
}

async fn attempt(scene: &Scene<'_>, kind: &str) {
    scene.emit(kind, json!({})).await;
    until(&scene.client, SETTLED).await;
}

async fn enabled(scene: &Scene<'_>) -> Vec<(String, bool)> {
    let sql = "SELECT name, enabled FROM klaxon.channel ORDER BY name";
    let rows = scene.client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn a_channel_that_has_only_failed_for_five_days_is_disabled_and_that_is_told() {
    let scene = Scene::set(Database::new()).await;
    let never = json!({"retry_schedule": []});
    let flaky = scene
        .webhook("flaky", Hook::default().statuses([500, 200, 500]), never.clone(), &["task.failed"])
        .await;
    let down = scene.webhook("down", Hook::default().statuses([500]), never, &["run.failed"]).await;
    scene.webhook("ops", Hook::default(), json!({}), &["channel.disabled"]).await;
    let _worker = scene.worker(&[]).await;
    attempt(&scene, "task.failed").await;
    attempt(&scene, "run.failed").await;
    fails_since(&scene, flaky, "6 days").await;
    fails_since(&scene, down, "5 days - 1 hour").await;
    // One success among the failures of these days; and another failure before they are over.
    attempt(&scene, "task.failed").await;
    attempt(&scene, "task.failed").await;
    attempt(&scene, "run.failed").await;
    fails_since(&scene, down, "5 days 1 second").await;
    attempt(&scene, "run.failed").await;

    // Channels are disabled in the order in which that was found: it is the only one.
    let told = scene.receiver.wait_at("/ops", 1).await.remove(0).json();
    assert_eq!((&told["type"], &told["data"]["channel"]), (&json!("channel.disabled"), &json!("down")));
    assert_eq!(told["data"]["reason"], "has only failed for five days");
    until(&scene.client, SETTLED).await;
    let expected = [("down", false), ("flaky", true), ("ops", true)];
    assert_eq!(enabled(&scene).await, expected.map(|(name, enabled)| (name.to_owned(), enabled)));
    assert_eq!(scene.receiver.requests_at("/ops").len(), 1);
    assert_eq!(scene.receiver.requests_at("/down").len(), 3);
    let reason: String = scene
        .client
        .query_one("SELECT disabled_reason FROM klaxon.channel WHERE id = $1", &[&down])
        .await
        .unwrap()
        .get(0);
    assert_eq!(reason, "has only failed for five days");
}

#[tokio::test]
async fn a_channel_that_was_given_up_and_is_enabled_again_has_five_days_again() {
    let scene = Scene::set(Database::new()).await;
    let never = json!({"retry_schedule": []});
    let down = scene.webhook("down", Hook::default().statuses([500]), never, &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    let state = async || {
        let sql = "SELECT enabled, disabled_reason FROM klaxon.channel";
        let row = scene.client.query_one(sql, &[]).await.unwrap();
        (row.get::<_, bool>(0), row.get::<_, Option<String>>(1))
    };
    attempt(&scene, "run.failed").await;
    fails_since(&scene, down, "6 days").await;
    attempt(&scene, "run.failed").await;
    until(&scene.client, "(SELECT NOT enabled FROM klaxon.channel)").await;
    scene.client.batch_execute("UPDATE klaxon.channel SET enabled = true").await.unwrap();
    assert_eq!(state().await, (true, None));

    // It still fails, and what was held against it before is not.
    attempt(&scene, "run.failed").await;
    attempt(&scene, "run.failed").await;
    assert_eq!(scene.receiver.requests_at("/down").len(), 4);
    assert_eq!(state().await, (true, None));
    fails_since(&scene, down, "6 days").await;
    attempt(&scene, "run.failed").await;
    until(&scene.client, "(SELECT NOT enabled FROM klaxon.channel)").await;
}

#[tokio::test]
async fn what_is_older_than_its_channel_allows_expires_and_nothing_does_of_itself() {
    let scene = Scene::set(Database::new()).await;
    let short = scene.webhook("short", Hook::default(), json!({"max_age": "1 h"}), &["run.failed"]).await;
    scene.webhook("patient", Hook::default(), json!({}), &["run.failed"]).await;
    let old = scene.emit("run.failed", json!({"n": 1})).await;
    for (name, age) in [("short", "61 min"), ("patient", "400 days")] {
        scene
            .client
            .execute(
                "UPDATE klaxon.outbox AS o SET created_at = now() - $2::text::interval FROM klaxon.channel AS c
                 WHERE c.id = o.channel_id AND c.name = $1",
                &[&name, &age],
            )
            .await
            .unwrap();
    }
    scene.emit("run.failed", json!({"n": 2})).await;
    let _worker = scene.worker(&[]).await;
    let requests = scene.receiver.wait_at("/patient", 2).await;
    assert_eq!(requests.iter().filter(|request| request.json()["data"]["n"] == 1).count(), 1);
    until(&scene.client, SETTLED).await;
    let arrived = scene.receiver.requests_at("/short");
    assert_eq!((arrived.len(), &arrived[0].json()["data"]["n"]), (1, &json!(2)));
    let dead = scene
        .client
        .query("SELECT event_id, channel_id, attempts, reason FROM klaxon.dead_letter", &[])
        .await
        .unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].get::<_, Uuid>(0), dead[0].get(1), dead[0].get(2), dead[0].get(3)),
        (old, short, 0, "expired")
    );
    // It was no attempt.
    let logged: i64 = scene
        .client
        .query_one("SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(logged, 3);
}

/// Has one event's attempts be refused by the log, in the way of somebody's own trigger.
async fn refuse(scene: &Scene<'_>) {
    scene
        .client
        .batch_execute(
            "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.event_type = 'run.finished' THEN RAISE EXCEPTION 'not this one'; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON klaxon.delivery FOR EACH ROW EXECUTE FUNCTION public.refuse()",
        )
        .await
        .unwrap();
}

/// What cannot be settled stays pending. The others of its batch are settled; and its shard can be
/// handed over, with what else is in it.
#[tokio::test]
async fn one_that_cannot_be_settled_holds_up_no_other() {
    let scene = Scene::set(Database::new()).await;
    // Of two shards, one of which will be another worker's.
    for name in ["odd", "even"] {
        scene.webhook(name, Hook::default(), json!({}), &["run.*"]).await;
    }
    refuse(&scene).await;
    scene
        .client
        .batch_execute("INSERT INTO klaxon.event (type) SELECT CASE WHEN n = 77 THEN 'run.finished' ELSE 'run.failed' END FROM generate_series(1, 200) AS n")
        .await
        .unwrap();
    let mut first = scene.worker(&[]).await;
    let left = "(SELECT count(*) = 2 AND bool_and(event_type = 'run.finished') FROM klaxon.outbox)";
    until(&scene.client, left).await;
    first
        .wait_for_log("that it cannot be settled", |line| line.message() == "an outcome cannot be settled")
        .await;
    scene.emit("run.failed", json!({"n": "after"})).await;
    until(&scene.client, left).await;

    let _second = scene.worker(&[]).await;
    until(&scene.client, "(SELECT count(DISTINCT owner) = 2 AND min(cardinality(shards)) = 32 FROM klaxon.shard, klaxon.worker)").await;
    let event = scene.emit("run.failed", json!({"n": "handed over"})).await;
    until(
        &scene.client,
        &format!("(SELECT count(*) = 2 FROM klaxon.delivery WHERE event_id = '{event}' AND status = 'sent')"),
    )
    .await;
    until(&scene.client, left).await;
    let verified = scene.run(&["audit", "verify"]).await;
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

/// Whose channel it is may have it locked for as long as a transaction of theirs lasts.
#[tokio::test]
async fn a_channel_that_its_owner_has_locked_is_disabled_later_and_holds_up_nobody() {
    let mut scene = Scene::set(Database::new()).await;
    scene.environment("RUST_LOG", "debug");
    let never = json!({"retry_schedule": []});
    let gone = scene.webhook("gone", Hook::default().statuses([410]), never, &["task.failed"]).await;
    scene.webhook("well", Hook::default(), json!({}), &["run.failed"]).await;
    let mut worker = scene.worker(&[]).await;
    let holder = scene.database.connect().await;
    holder
        .batch_execute(&format!("BEGIN; UPDATE klaxon.channel SET name = name WHERE id = {gone}"))
        .await
        .unwrap();
    attempt(&scene, "task.failed").await;
    worker
        .wait_for_log("that it waits", |line| {
            line.message() == "a channel is locked, so it is disabled later"
                && line.field("channel_id") == gone
        })
        .await;
    attempt(&scene, "run.failed").await;
    assert_eq!(enabled(&scene).await, [("gone".into(), true), ("well".into(), true)]);
    holder.batch_execute("COMMIT").await.unwrap();
    until(&scene.client, "(SELECT NOT enabled FROM klaxon.channel WHERE name = 'gone')").await;
    assert!(!worker.log().iter().any(|line| line.message() == "cannot reach postgres"));
}
