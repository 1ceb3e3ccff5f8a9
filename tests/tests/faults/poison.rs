//! Deliveries that would end, or exhaust, a worker that trusted them.

use klaxon_tests::history::plan::Kind;
use klaxon_tests::hostile;
use klaxon_tests::receiver::Hook;
use klaxon_tests::until::until;
use klaxon_tests::worker::Worker;
use serde_json::json;
use tokio_postgres::types::Type;

use crate::ground::Ground;
use crate::times;

const KIND: Kind = Kind { name: "run.failed", project: "stray" };

/// The same worker as at the beginning, and no delivery of its own has panicked.
fn unharmed(worker: &Worker) {
    let panics: Vec<_> =
        worker.log().into_iter().filter(|line| line.0.to_string().contains("panic")).collect();
    assert!(panics.is_empty(), "{panics:#?}");
}

/// Every payload that Postgres takes arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads() {
    let rounds = times(5, 1);
    let mut ground = Ground::set(&[]).await;
    ground.emit(2);
    let worker = ground.scene.worker(&[]).await;
    let mut payloads = [hostile::payloads(), hostile::oddities()].concat();
    payloads.extend([
        "1e400".to_owned(),
        format!("{{\"duration_ms\": 1e400, \"title\": -1e-400, \"priority\": {}}}", "9".repeat(100_000)),
        r#"{"title": "\u202e\u2066\u200f", "exception": "\ud83d\ude00"}"#.to_owned(),
        r#"{"title": "\u0000"}"#.to_owned(),
        format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000)),
        format!("{{\"title\": \"{}\"}}", "x".repeat(250_000)),
    ]);
    let (mut taken, mut refused) = (0, 0);
    for payload in std::iter::repeat_n(&payloads, rounds).flatten() {
        let sql = "SELECT klaxon.notify_event($1, $2::text::jsonb, $3)";
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&KIND.name, Type::TEXT), (payload, Type::TEXT), (&KIND.project, Type::TEXT)];
        match ground.scene.client.query_typed(sql, &values).await {
            Ok(rows) => {
                let event = rows[0].get(0);
                ground.ledger.write(|entries| {
                    entries.committed.insert(event, KIND);
                });
                taken += 1;
            }
            // U+0000 and what is too large.
            Err(error) => {
                assert!(error.as_db_error().is_some(), "{error}");
                refused += 1;
            }
        }
    }
    assert!(taken > 100 * rounds && refused >= rounds, "{taken} taken, {refused} refused");
    ground.recover().await;
    unharmed(&worker);
    ground
        .judge(
            "poison::payloads",
            "payloads that would panic or exhaust a worker",
            taken.to_string(),
            vec![worker],
        )
        .await;
}

/// Rows that no trigger and no constraint has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupted_rows() {
    let rounds = times(20, 1);
    let mut ground = Ground::set(&[]).await;
    let scene = &ground.scene;
    scene.webhook("victim", Hook::default(), json!({"retry_schedule": [1]}), &["cluster.new"]).await;
    let corruptions = [
        "event_id = gen_random_uuid()",
        "attempts = -7",
        "attempts = 2147483647",
        "due_at = '-infinity'",
        "created_at = '-infinity'",
        "created_at = 'infinity'",
        "subscription_id = -1",
        "event_type = ''",
        "event_type = repeat('x', 100000)",
        "project = repeat(E'\\x01', 1000)",
        "last_error = repeat('x', 1000000)",
        "held_back = -2147483648",
    ];
    let mut corrupted = 0;
    for corruption in std::iter::repeat_n(corruptions, rounds).flatten() {
        // In the transaction that commits them, so that no worker has seen them as they were.
        scene.client.batch_execute("BEGIN; SELECT klaxon.notify_event('cluster.new')").await.unwrap();
        let sql = format!(
            "SET LOCAL session_replication_role = replica;
             UPDATE klaxon.outbox SET {corruption} WHERE event_type = 'cluster.new' AND xid = pg_current_xact_id();
             COMMIT"
        );
        match scene.client.batch_execute(&sql).await {
            Ok(()) => corrupted += 1,
            Err(error) => {
                // A constraint that is always looked at.
                assert!(error.as_db_error().is_some(), "{error}");
                scene.client.batch_execute("ROLLBACK").await.unwrap();
            }
        }
    }
    assert!(corrupted >= 6 * rounds, "{corrupted} rows were corrupted");
    ground.emit(4);
    let worker = ground.scene.worker(&[]).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    ground.recover().await;
    // Each is sent or given up; none stays to be stumbled over.
    until(&ground.scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox WHERE due_at < clock_timestamp() AND event_type NOT IN ('run.finished', 'run.failed', 'task.failed', 'task.succeeded'))").await;
    ground.recover().await;
    unharmed(&worker);
    ground
        .judge("poison::corrupted_rows", "corrupted rows in `outbox`", corrupted.to_string(), vec![worker])
        .await;
}

/// What was sealed does not open any more: its channel fails, and says why; the others do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unopened_seal() {
    let mut ground = Ground::set(&[]).await;
    let scene = &ground.scene;
    let sealed = scene
        .webhook(
            "sealed",
            Hook::default().secret("open sesame"),
            json!({"retry_schedule": []}),
            &["cluster.new"],
        )
        .await;
    let sql = "BEGIN; SET LOCAL session_replication_role = replica;
               UPDATE klaxon.channel_secret SET sealed = overlay(sealed PLACING 'AAAAAAAAAAAAAAAA' FROM 40);
               COMMIT";
    scene.client.batch_execute(sql).await.unwrap();
    ground.emit(4);
    let worker = ground.scene.worker(&[]).await;
    let count = times(200, 20);
    for _ in 0..count {
        ground.scene.emit("cluster.new", json!({})).await;
    }
    ground.recover().await;
    let dead = format!("(SELECT count(*) = {count} FROM klaxon.dead_letter WHERE channel_id = {sealed})");
    until(&ground.scene.client, &dead).await;
    let said: String = ground
        .scene
        .client
        .query_one("SELECT string_agg(DISTINCT last_error, ', ') FROM klaxon.dead_letter", &[])
        .await
        .unwrap()
        .get(0);
    assert!(said.contains("secret"), "{said}");
    assert!(ground.scene.receiver.requests().is_empty(), "nothing goes out unsigned");
    unharmed(&worker);
    ground
        .judge(
            "poison::unopened_seal",
            "a channel's sealed secret no longer opens",
            count.to_string(),
            vec![worker],
        )
        .await;
}
