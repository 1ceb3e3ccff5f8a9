//! When a digest is due where what its subscription says of it changed, or means nothing any more: an event is emitted
//! whatever that is.

use klaxon_tests::database::Database;
use klaxon_tests::limit::within;
use klaxon_tests::until::until;
use tokio_postgres::Client;

const DAILY: &str = r#"
    SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
    INSERT INTO klaxon.channel (name, kind, config) VALUES ('hook', 'webhook', '{"url": "https://receiver.test/"}');
    SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.*'], mode => 'digest', digest_at => '08:00', owner => NULL)"#;

async fn is(client: &Client, condition: &str) -> bool {
    client.query_one(&format!("SELECT {condition}"), &[]).await.unwrap().get(0)
}

/// What was compiled says that it is a digest; the snapshot that its time is read under, that it is none any more.
#[tokio::test]
async fn a_digest_that_is_ended_while_events_are_emitted_is_due_at_once() {
    let database = Database::new();
    let (client, editor) = (database.connect().await, database.connect().await);
    client.batch_execute(DAILY).await.unwrap();
    editor.batch_execute("BEGIN; LOCK TABLE klaxon.digest_item IN SHARE MODE").await.unwrap();
    let emitter = database.connect().await;
    let emitting = tokio::spawn(async move {
        emitter
            .batch_execute("INSERT INTO klaxon.event (type) SELECT 'run.failed' FROM generate_series(1, 20)")
            .await
    });
    until(
        &client,
        "EXISTS (SELECT FROM pg_locks WHERE relation = 'klaxon.digest_item'::regclass AND NOT granted)",
    )
    .await;
    editor
        .batch_execute("UPDATE klaxon.subscription SET mode = 'realtime', digest_at = NULL; COMMIT")
        .await
        .unwrap();
    within("the events", emitting).await.unwrap().unwrap();
    assert!(is(&client, "count(*) = 20 FROM klaxon.event").await);
    assert!(is(&client, "count(*) = 20 AND bool_and(due_at <= now()) FROM klaxon.digest_item").await);
}

/// Distributions drop names of time zones, and a dump is restored where there are others.
#[tokio::test]
async fn where_the_server_does_not_know_a_time_zone_any_more_a_digest_is_due_by_utc() {
    let database = Database::new();
    let client = database.connect().await;
    client.batch_execute(DAILY).await.unwrap();
    client
        .batch_execute(
            "INSERT INTO klaxon.project (slug) VALUES ('billing');
             INSERT INTO klaxon.default_subscription (project, events, mode, digest_at, digest_timezone, created_at)
             VALUES ('billing', ARRAY['run.*'], 'digest', '08:00', 'Nowhere/Gone', '2020-01-01');
             INSERT INTO klaxon.subscription (owner, events, mode, digest_at, digest_timezone, created_at)
             VALUES ('alice', ARRAY['run.*'], 'digest', '08:00', 'Nowhere/Gone', '2020-01-01');
             INSERT INTO klaxon.subscription_channel (subscription_id, channel_id)
             SELECT s.id, c.id FROM klaxon.subscription AS s, klaxon.channel AS c WHERE s.owner = 'alice'",
        )
        .await
        .unwrap();
    let refused =
        client.batch_execute("UPDATE klaxon.subscription SET digest_timezone = 'Nowhere/Else'").await;
    assert!(refused.unwrap_err().as_db_error().unwrap().message().contains("unknown digest_timezone"));

    client.batch_execute("SELECT klaxon.notify_event('run.failed')").await.unwrap();
    assert!(is(&client, "count(*) = 2 AND min(due_at) = max(due_at) FROM klaxon.digest_item").await);
    client
        .batch_execute("INSERT INTO klaxon.member (project, principal) VALUES ('billing', 'bob')")
        .await
        .unwrap();
    assert!(
        is(&client, "digest_timezone = 'Nowhere/Gone' FROM klaxon.subscription WHERE owner = 'bob'").await
    );
    client.batch_execute("UPDATE klaxon.project SET slug = 'invoices' WHERE slug = 'billing'").await.unwrap();
}
