//! What is kept, and for how long.

use klaxon_tests::database::Database;
use klaxon_tests::limit::within;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;

/// A prune that waits for a message in an inbox: whoever settles does not wait for it.
#[tokio::test]
async fn while_an_inbox_is_pruned_the_end_of_the_log_is_free() {
    let scene = Scene::set(Database::new()).await;
    scene
        .client
        .batch_execute(
            "INSERT INTO klaxon.inbox (principal, event_id, event_type, reason, title, created_at)
             VALUES ('alice', klaxon.uuid_v7(), 'run.failed', 'subscribed', 'Old', now() - interval '1 year')",
        )
        .await
        .unwrap();
    let (reader, pruning) = (scene.database.connect().await, scene.database.connect().await);
    reader.batch_execute("BEGIN; SELECT FROM klaxon.inbox FOR UPDATE").await.unwrap();
    let pruned = tokio::spawn(async move {
        pruning.query("SELECT * FROM klaxon.prune(deliveries => '30 days', inbox => '30 days')", &[]).await
    });
    until(
        &scene.client,
        "EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%klaxon.prune(deliveries%' AND pid <> pg_backend_pid() AND wait_event_type = 'Lock')",
    )
    .await;
    let free = scene.client.query("SELECT FROM klaxon.audit_head FOR UPDATE NOWAIT", &[]).await;
    assert_eq!(free.expect("nobody holds the end of the log").len(), 1);
    reader.batch_execute("COMMIT").await.unwrap();
    within("the prune", pruned).await.unwrap().unwrap();
    until(
        &scene.client,
        "NOT EXISTS (SELECT FROM klaxon.inbox) AND (SELECT prune_before IS NOT NULL FROM klaxon.audit_head)",
    )
    .await;
}

#[tokio::test]
async fn how_a_channel_fared_is_forgotten_with_it() {
    let scene = Scene::set(Database::new()).await;
    let mut ids = Vec::new();
    for name in ["kept", "deleted"] {
        ids.push(scene.webhook(name, Hook::default(), json!({}), &["run.failed"]).await);
    }
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "(SELECT count(*) = 2 FROM klaxon.channel_state)").await;
    scene.client.batch_execute("DELETE FROM klaxon.channel WHERE name = 'deleted'").await.unwrap();
    scene.client.batch_execute("SELECT klaxon.tidy_cooldowns()").await.unwrap();
    let left = scene.client.query("SELECT channel_id FROM klaxon.channel_state", &[]).await.unwrap();
    assert_eq!(left.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), ids[..1]);
}

/// Retention is asked for by age, and nobody can ask for a checkpoint.
#[tokio::test]
async fn a_log_that_is_old_as_a_whole_goes_as_a_whole() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    for n in 0..3 {
        scene.emit("run.failed", json!({ "n": n })).await;
    }
    until(
        &scene.client,
        "(SELECT count(*) = 3 FROM klaxon.delivery WHERE status = 'sent') AND NOT EXISTS (SELECT FROM klaxon.config_change)",
    )
    .await;
    let young = "SELECT rows FROM klaxon.prune(deliveries => '1 day') WHERE what = 'delivery'";
    scene.client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(scene.client.query_one(young, &[]).await.unwrap().get::<_, i64>(0), 0);
    scene.client.batch_execute("ROLLBACK").await.unwrap();
    scene.client.query("SELECT * FROM klaxon.prune(deliveries => '0')", &[]).await.unwrap();
    until(&scene.client, "(SELECT prune_before IS NULL FROM klaxon.audit_head)").await;
    let kinds = "SELECT array_agg(kind ORDER BY seq) FROM klaxon.delivery";
    assert_eq!(scene.client.query_one(kinds, &[]).await.unwrap().get::<_, Vec<String>>(0), ["prune"]);
    let verified =
        scene.installation.run(&["audit", "verify", "--database-url", &scene.database.url()]).await;
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
}
