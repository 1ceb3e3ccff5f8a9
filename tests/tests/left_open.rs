//! Transactions that somebody with few rights leaves open: what they hold keeps nobody from their work.

use std::time::Duration;

use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::{until, until_within};
use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

/// Less than the 5 s that a statement of a worker's waits for a lock.
const SOON: Duration = Duration::from_secs(4);
const SETTLED: &str = "NOT EXISTS (SELECT FROM klaxon.outbox)";

/// A session of a role with these rights, and no others.
async fn stranger(scene: &Scene<'_>, role: &str) -> Client {
    let client = scene.database.connect().await;
    client.batch_execute(&format!("SET ROLE {role}")).await.unwrap();
    client
}

/// Ten deliveries to another channel are sent and settled, all of them soon.
async fn others_go_on(scene: &Scene<'_>, path: &str, kind: &str) {
    for n in 0..10 {
        scene.emit(kind, json!({"n": n})).await;
    }
    scene.receiver.wait_at(path, 10).await;
    until_within(SOON, &scene.client, SETTLED).await;
}

#[tokio::test]
async fn a_test_that_is_taken_back_and_not_committed_holds_up_no_delivery() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("ops", Hook::default(), json!({}), &["run.failed"]).await;
    let (held, release) = Hook::default().held();
    let url = scene.receiver.serve("/mine", held);
    let _worker = scene.worker(&[]).await;
    let mallory = stranger(&scene, "klaxon_user").await;
    let owner = "INSERT INTO klaxon.channel (name, kind, owner, config) VALUES ('mine', 'webhook', current_user, jsonb_build_object('url', $1::text))";
    mallory.execute(owner, &[&url]).await.unwrap();
    let test: Uuid =
        mallory.query_one("SELECT klaxon.request_channel_test('mine')", &[]).await.unwrap().get(0);
    scene.receiver.wait_at("/mine", 1).await;
    mallory.batch_execute("BEGIN").await.unwrap();
    mallory.execute("SELECT klaxon.end_channel_test($1)", &[&test]).await.unwrap();
    // Its answer is settled in one batch with others'.
    release.send(true).unwrap();
    others_go_on(&scene, "/ops", "run.failed").await;
    mallory.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn a_test_that_nobody_waits_for_is_given_up_and_forgotten() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("ops", Hook::default(), json!({}), &["run.failed"]).await;
    let sql = "SELECT klaxon.request_channel_test('ops')";
    scene.client.batch_execute(sql).await.unwrap();
    scene
        .client
        .batch_execute(
            "SELECT klaxon.request_config_test('webhook', '{\"url\": \"https://receiver.test/x\"}');
             UPDATE klaxon.outbox SET created_at = created_at - interval '16 s';
             UPDATE klaxon.config_test SET requested_at = requested_at - interval '16 s'",
        )
        .await
        .unwrap();
    let _worker = scene.worker(&[]).await;
    until(&scene.client, SETTLED).await;
    let rest = async |sql: &str| -> i64 { scene.client.query_one(sql, &[]).await.unwrap().get(0) };
    assert_eq!(rest("SELECT count(*) FROM klaxon.dead_letter WHERE reason = 'expired'").await, 1);
    assert_eq!(rest("SELECT count(*) FROM klaxon.config_test WHERE taken_at IS NULL").await, 1);
    assert!(scene.receiver.requests().is_empty());
    // A minute later. Nobody waits for a dead letter that somebody is putting back.
    let other = scene.database.connect().await;
    other.batch_execute("UPDATE klaxon.dead_letter SET dead_at = dead_at - interval '2 min'").await.unwrap();
    other.batch_execute("BEGIN; SELECT FROM klaxon.dead_letter FOR UPDATE").await.unwrap();
    let tidy = "UPDATE klaxon.channel_test SET requested_at = requested_at - interval '1 min';
                UPDATE klaxon.config_test SET requested_at = requested_at - interval '1 min';
                SELECT klaxon.tidy_tests()";
    scene.client.batch_execute(tidy).await.unwrap();
    let tests =
        "SELECT (SELECT count(*) FROM klaxon.channel_test) + (SELECT count(*) FROM klaxon.config_test)";
    let dead = "SELECT count(*) FROM klaxon.dead_letter";
    assert_eq!((rest(tests).await, rest(dead).await), (0, 1));
    other.batch_execute("COMMIT").await.unwrap();
    scene.client.batch_execute("SELECT klaxon.tidy_tests()").await.unwrap();
    assert_eq!(rest(dead).await, 0);
}

#[tokio::test]
async fn a_subscription_that_is_deleted_and_not_committed_holds_up_no_digest_and_no_cooldown() {
    let scene = Scene::set(Database::new()).await;
    for name in ["quiet", "other"] {
        scene.webhook(name, Hook::default(), json!({}), &["task.failed"]).await;
    }
    for name in ["daily", "weekly"] {
        scene.webhook(name, Hook::default(), json!({}), &["run.failed"]).await;
    }
    scene
        .client
        .batch_execute(
            "UPDATE klaxon.subscription SET cooldown = '1 ms' WHERE events = '{task.failed}';
             UPDATE klaxon.subscription SET mode = 'digest', digest_at = '08:00' WHERE events = '{run.failed}'",
        )
        .await
        .unwrap();
    let _worker = scene.worker(&[]).await;
    scene.emit("task.failed", json!({})).await;
    scene.receiver.wait_at("/quiet", 1).await;
    scene.receiver.wait_at("/other", 1).await;
    until(&scene.client, SETTLED).await;
    scene.emit("run.failed", json!({})).await;

    let mallory = scene.database.connect().await;
    mallory
        .batch_execute(
            "BEGIN; DELETE FROM klaxon.subscription AS s USING klaxon.subscription_channel AS u, klaxon.channel AS c
                    WHERE u.subscription_id = s.id AND c.id = u.channel_id AND c.name IN ('quiet', 'daily')",
        )
        .await
        .unwrap();
    scene.client.batch_execute("UPDATE klaxon.digest_item SET due_at = now()").await.unwrap();
    until_within(
        SOON,
        &scene.client,
        "NOT EXISTS (SELECT FROM klaxon.digest_item WHERE delivery_id IS NULL)",
    )
    .await;
    scene.receiver.wait_at("/weekly", 1).await;
    for n in 2..=4 {
        scene.emit("task.failed", json!({})).await;
        scene.receiver.wait_at("/other", n).await;
        until_within(SOON, &scene.client, SETTLED).await;
    }
    mallory.batch_execute("ROLLBACK").await.unwrap();
}

/// Anybody who may connect can take one.
#[tokio::test]
async fn advisory_locks_that_somebody_has_hold_up_no_digest_and_no_cooldown() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("daily", Hook::default(), json!({}), &["run.failed"]).await;
    let held = scene.webhook("held", Hook::default(), json!({}), &["task.failed"]).await;
    scene.webhook("free", Hook::default(), json!({}), &["task.failed"]).await;
    scene.webhook("plain", Hook::default(), json!({}), &["task.slow"]).await;
    scene
        .client
        .batch_execute(
            "UPDATE klaxon.subscription SET mode = 'digest', digest_at = '08:00' WHERE events = '{run.failed}';
             UPDATE klaxon.subscription SET cooldown = '1 hour' WHERE events = '{task.failed}'",
        )
        .await
        .unwrap();
    let mallory = stranger(&scene, "klaxon_user").await;
    mallory
        .batch_execute("SELECT pg_advisory_lock(hashtextextended('klaxon.gather_digests', 7306))")
        .await
        .unwrap();
    let lock = "SELECT pg_advisory_lock(hashtextextended('', subscription_id)) FROM klaxon.subscription_channel WHERE channel_id = $1";
    scene.client.execute(lock, &[&held]).await.unwrap();
    let _worker = scene.worker(&[]).await;
    scene.emit("task.failed", json!({})).await;
    scene.emit("run.failed", json!({})).await;
    scene.client.batch_execute("UPDATE klaxon.digest_item SET due_at = now()").await.unwrap();
    scene.receiver.wait_at("/free", 1).await;
    scene.receiver.wait_at("/daily", 1).await;
    scene.receiver.wait_at("/held", 1).await;
    others_go_on(&scene, "/plain", "task.slow").await;
}

/// Who emits with the key of another's event has whoever emits that wait.
#[tokio::test]
async fn an_emitter_cannot_know_the_key_of_an_agents_silence() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("agents", Hook::default(), json!({}), &["agent.offline"]).await;
    let mallory = stranger(&scene, "klaxon_emitter").await;
    mallory.batch_execute("BEGIN").await.unwrap();
    for key in ["m 1767225600.000000", "m", ""] {
        let digest = "SELECT klaxon.notify_event('agent.offline', dedup_key => nullif(encode(sha256(convert_to($1, 'UTF8')), 'hex'), '')),
                             klaxon.notify_event('agent.offline', dedup_key => nullif($1, ''))";
        mallory.execute(digest, &[&key]).await.unwrap();
    }
    scene
        .client
        .batch_execute(
            "INSERT INTO klaxon.agent (agent_id, last_seen_at) VALUES ('m', '2026-01-01 00:00:00+00')",
        )
        .await
        .unwrap();
    let _worker = scene.worker(&[]).await;
    assert_eq!(scene.receiver.wait_at("/agents", 1).await[0].json()["data"]["agent_id"], "m");
    // A table that is written anew brings no news.
    scene
        .client
        .batch_execute(
            "DELETE FROM klaxon.agent;
             INSERT INTO klaxon.agent (agent_id, last_seen_at) VALUES ('m', '2026-01-01 00:00:00+00')",
        )
        .await
        .unwrap();
    until(&scene.client, "(SELECT NOT online FROM klaxon.agent)").await;
    until(&scene.client, SETTLED).await;
    assert_eq!(scene.receiver.requests_at("/agents").len(), 1);
    mallory.batch_execute("ROLLBACK").await.unwrap();
}
