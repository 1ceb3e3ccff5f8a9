//! What emitting does and what a rollback leaves: seen from other sessions, without a worker.

use klaxon_tests::database::Database;
use klaxon_tests::limit::within;
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Notification};

/// A channel that nothing is sent to here, and a subscription of every run's end.
const LISTENER: &str = r#"
    INSERT INTO klaxon.project (slug) VALUES ('billing');
    SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
    INSERT INTO klaxon.channel (name, kind, config) VALUES ('hook', 'webhook', '{"url": "https://receiver.test/"}');
    SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.*'], owner => NULL);"#;

async fn counts(client: &Client) -> (i64, i64) {
    let row = client
        .query_one("SELECT (SELECT count(*) FROM klaxon.event), (SELECT count(*) FROM klaxon.outbox)", &[])
        .await
        .unwrap();
    (row.get(0), row.get(1))
}

/// How many notifications had been sent when this was called. One more, sent now, comes after all
/// of them: Postgres delivers in the order of commits.
async fn drained(client: &Client, notifications: &mut UnboundedReceiver<Notification>) -> usize {
    client.batch_execute("NOTIFY klaxon_outbox, 'the end'").await.unwrap();
    let mut count = 0;
    while within("a notification", notifications.recv()).await.unwrap().payload() != "the end" {
        count += 1;
    }
    count
}

#[tokio::test]
async fn a_commit_shows_the_event_and_its_delivery() {
    let database = Database::new();
    let (mut client, other) = (database.connect().await, database.connect().await);
    client.batch_execute(LISTENER).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let id: uuid::Uuid = transaction
        .query_one("SELECT klaxon.notify_event('run.finished', $1, 'billing')", &[&json!({"run_id": "r1"})])
        .await
        .unwrap()
        .get(0);
    assert_eq!(counts(&other).await, (0, 0), "not before the commit");
    transaction.commit().await.unwrap();
    assert_eq!(counts(&other).await, (1, 1));
    let row = other
        .query_one("SELECT event_id, event_type, project, attempts FROM klaxon.outbox", &[])
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2), row.get(3)), (id, "run.finished", Some("billing"), 0));
    assert_eq!(id.get_version_num(), 7);
}

#[tokio::test]
async fn a_rollback_leaves_nothing_and_a_savepoint_only_the_rest() {
    let database = Database::new();
    let (mut client, notifier) = (database.connect().await, database.connect().await);
    let (_listener, mut notifications) = database.listen("klaxon_outbox").await;
    client.batch_execute(LISTENER).await.unwrap();

    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("SELECT klaxon.notify_event('run.finished')").await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(counts(&client).await, (0, 0));
    assert_eq!(drained(&notifier, &mut notifications).await, 0);

    client
        .batch_execute(
            "BEGIN;
             SELECT klaxon.notify_event('run.finished', '{\"n\": 1}');
             SAVEPOINT s;
             SELECT klaxon.notify_event('run.failed', '{\"n\": 2}');
             SELECT klaxon.notify_event('run.failed', '{\"n\": 3}');
             ROLLBACK TO s;
             COMMIT",
        )
        .await
        .unwrap();
    assert_eq!(counts(&client).await, (1, 1));
    assert_eq!(drained(&notifier, &mut notifications).await, 1);

    client
        .batch_execute("BEGIN; SAVEPOINT s; SELECT klaxon.notify_event('run.failed'); ROLLBACK TO s; COMMIT")
        .await
        .unwrap();
    assert_eq!(counts(&client).await, (1, 1));
    assert_eq!(drained(&notifier, &mut notifications).await, 0, "the wake-up went with the savepoint");
}

#[tokio::test]
async fn a_transaction_wakes_the_worker_once() {
    let database = Database::new();
    let (client, notifier) = (database.connect().await, database.connect().await);
    let (_listener, mut notifications) = database.listen("klaxon_outbox").await;
    client.batch_execute(LISTENER).await.unwrap();
    client
        .batch_execute(
            "BEGIN;
             SELECT klaxon.notify_event('run.finished') FROM generate_series(1, 50);
             INSERT INTO klaxon.event (type) SELECT 'run.failed' FROM generate_series(1, 500);
             COMMIT",
        )
        .await
        .unwrap();
    assert_eq!(counts(&client).await, (550, 550));
    assert_eq!(drained(&notifier, &mut notifications).await, 1);
    client.batch_execute("SELECT klaxon.notify_event('task.slow')").await.unwrap();
    assert_eq!(drained(&notifier, &mut notifications).await, 0, "what nobody hears of wakes nobody");
}

#[tokio::test]
async fn a_bulk_insert_matches_every_row() {
    let database = Database::new();
    let client = database.connect().await;
    client.batch_execute(LISTENER).await.unwrap();
    client
        .batch_execute(
            "SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.failed'], filters => '{\"branches\": [\"main\"]}', owner => NULL);
             INSERT INTO klaxon.event (type, payload)
             SELECT CASE n % 3 WHEN 0 THEN 'run.failed' WHEN 1 THEN 'run.finished' ELSE 'task.slow' END,
                    jsonb_build_object('branch', CASE n % 2 WHEN 0 THEN 'main' ELSE 'dev' END)
             FROM generate_series(1, 6000) AS n",
        )
        .await
        .unwrap();
    // 4,000 runs for the first subscription; of the 2,000 failed ones, half on main for the second.
    assert_eq!(counts(&client).await, (6000, 5000));
}

#[tokio::test]
async fn a_typo_is_an_error_that_lists_the_types() {
    let database = Database::new();
    let client = database.connect().await;
    let error = client.execute("SELECT klaxon.notify_event('run.finnished')", &[]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code(), &SqlState::INVALID_PARAMETER_VALUE);
    assert!(error.message().contains("run.finnished"), "{error:?}");
    let said = format!("{:?} {:?}", error.detail(), error.hint());
    assert!(said.contains("run.finished") && said.contains("agent.offline"), "{said}");
    assert_eq!(counts(&client).await, (0, 0));
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused() {
    let database = Database::new();
    let client = database.connect().await;
    let emit = "SELECT klaxon.notify_event('run.finished', jsonb_build_object('title', repeat('x', $1)))";
    client.execute(emit, &[&200_000]).await.unwrap();
    let error = client.execute(emit, &[&300_000]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED);
    assert!(error.hint().is_some_and(|hint| hint.contains("klaxon.max_payload_bytes")), "{error:?}");
    assert_eq!(counts(&client).await.0, 1);
}

#[tokio::test]
async fn a_known_dedup_key_returns_the_first_id_and_does_nothing() {
    let database = Database::new();
    let client = database.connect().await;
    client.batch_execute(LISTENER).await.unwrap();
    let emit = "SELECT klaxon.notify_event('run.failed', '{}', 'billing', 'run-7')";
    let first: uuid::Uuid = client.query_one(emit, &[]).await.unwrap().get(0);
    let second: uuid::Uuid = client.query_one(emit, &[]).await.unwrap().get(0);
    assert_eq!(first, second);
    let inserted = client
        .execute(
            "INSERT INTO klaxon.event (type, project, dedup_key) VALUES ('run.failed', 'billing', 'run-7')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((inserted, counts(&client).await), (0, (1, 1)));
}

#[tokio::test]
async fn what_an_old_snapshot_shows_is_not_kept() {
    let database = Database::new();
    let (client, other) = (database.connect().await, database.connect().await);
    other.batch_execute(LISTENER).await.unwrap();
    // A cursor sees the database as it was when it was declared.
    client
        .batch_execute(
            "BEGIN; DECLARE old CURSOR FOR SELECT count(*) FROM klaxon.explain_event('run.failed')",
        )
        .await
        .unwrap();
    other
        .batch_execute("SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.failed'], owner => NULL)")
        .await
        .unwrap();
    client.batch_execute("FETCH old; COMMIT").await.unwrap();
    client.batch_execute("SELECT klaxon.notify_event('run.failed')").await.unwrap();
    assert_eq!(counts(&other).await, (1, 2), "the new subscription is heard too");
}

#[tokio::test]
async fn emitters_wait_for_one_another_over_one_key_alone() {
    let database = Database::new();
    let (mut client, other) = (database.connect().await, database.connect().await);
    other.batch_execute(LISTENER).await.unwrap();
    let first = client.transaction().await.unwrap();
    // More keys than a lock table holds.
    first
        .batch_execute("INSERT INTO klaxon.event (type, dedup_key) SELECT 'run.failed', 'k' || n FROM generate_series(1, 30000) AS n")
        .await
        .unwrap();
    other.batch_execute("SET lock_timeout = '5 s'").await.unwrap();
    within(
        "an emitter of other keys",
        other.batch_execute("SELECT klaxon.notify_event('run.failed', dedup_key => 'other')"),
    )
    .await
    .unwrap();
    other.batch_execute("SET lock_timeout = '100 ms'").await.unwrap();
    let waits =
        other.batch_execute("SELECT klaxon.notify_event('run.failed', dedup_key => 'k7')").await.unwrap_err();
    assert_eq!(waits.code(), Some(&SqlState::LOCK_NOT_AVAILABLE));
    first.rollback().await.unwrap();
    other.batch_execute("SELECT klaxon.notify_event('run.failed', dedup_key => 'k7')").await.unwrap();
    assert_eq!(counts(&other).await, (2, 2));
}

#[tokio::test]
async fn an_inbox_is_written_with_the_event_and_hinted_at() {
    let database = Database::new();
    let (mut client, notifier) = (database.connect().await, database.connect().await);
    let (_listener, mut hints) = database.listen("klaxon_inbox").await;
    client
        .batch_execute("SELECT klaxon.subscribe('{}', ARRAY['run.*'], in_app => true, owner => 'alice')")
        .await
        .unwrap();
    let unread = "SELECT count(*) FROM klaxon.inbox WHERE principal = 'alice' AND read_at IS NULL";
    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("SELECT klaxon.notify_event('run.failed')").await.unwrap();
    let own: i64 = transaction.query_one(unread, &[]).await.unwrap().get(0);
    assert_eq!(own, 1, "in the emitting transaction");
    transaction.rollback().await.unwrap();
    client
        .batch_execute("SELECT klaxon.notify_event('run.failed'), klaxon.notify_event('run.finished')")
        .await
        .unwrap();
    let kept: i64 = notifier.query_one(unread, &[]).await.unwrap().get(0);
    assert_eq!(kept, 2, "nothing of what rolled back");
    notifier.batch_execute("NOTIFY klaxon_inbox, 'the end'").await.unwrap();
    let mut count = 0;
    while within("a hint", hints.recv()).await.unwrap().payload() != "the end" {
        count += 1;
    }
    assert_eq!(count, 1, "one hint a transaction, and none for the one that rolled back");
}

/// One place in a query, which writes some of its events itself and has a statement do the others.
#[tokio::test]
async fn a_query_emits_some_by_a_statement_and_some_without() {
    let database = Database::new();
    let client = database.connect().await;
    client.batch_execute(LISTENER).await.unwrap();
    let emit =
        "SELECT count(DISTINCT klaxon.notify_event('run.failed', CASE WHEN n % 3 > 0 THEN '{}'::jsonb END,
                    dedup_key => CASE WHEN n % 2 = 0 THEN (n % 100)::text END,
                    occurred_at => CASE WHEN n % 5 > 0 THEN now() END))
                FROM generate_series(1, 1000) AS n";
    // The even ones are 50 events, told of ten times.
    for _ in 0..2 {
        assert_eq!(client.query_one(emit, &[]).await.unwrap().get::<_, i64>(0), 550);
    }
    assert_eq!(counts(&client).await, (1_050, 1_050));
}

/// What a session knew was of a table, and of functions, that are no more.
#[tokio::test]
async fn a_session_goes_on_where_the_extension_is_made_again() {
    let database = Database::new();
    let client = database.connect().await;
    for _ in 0..2 {
        client.batch_execute(LISTENER).await.unwrap();
        for key in ["NULL", "NULL", "'a'", "'b'"] {
            let emit = format!("SELECT klaxon.notify_event('run.failed', dedup_key => {key})");
            client.batch_execute(&emit).await.unwrap();
        }
        assert_eq!(counts(&client).await, (4, 4));
        client.batch_execute("DROP EXTENSION pg_klaxon CASCADE; CREATE EXTENSION pg_klaxon").await.unwrap();
    }
}
