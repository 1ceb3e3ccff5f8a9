//! Wake-ups through the background worker: a server that has the library preloaded.

use std::collections::HashSet;

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use klaxon_tests::limit::within;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_postgres::{Client, Notification};

/// Something that every run's end is heard by; nothing is sent here.
const LISTENER: &str = r#"
    SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
    INSERT INTO klaxon.channel (name, kind, config) VALUES ('hook', 'webhook', '{"url": "https://receiver.test/"}');
    SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.*'], owner => NULL);"#;

const EMIT: &str = "SELECT klaxon.notify_event('run.failed')";

fn preloaded() -> Cluster {
    Cluster::start(&[
        ("shared_preload_libraries", "pg_klaxon"),
        ("max_prepared_transactions", "10"),
        ("fsync", "off"),
    ])
    .expect("the cluster starts")
}

/// A database that the relay has moved to.
async fn relayed(cluster: &Cluster) -> Database<'_> {
    let database = Database::create(cluster);
    let client = database.connect().await;
    client
        .batch_execute(&format!("ALTER SYSTEM SET klaxon.relay_database = '{}'", database.name))
        .await
        .unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    serving(&client).await;
    database
}

async fn serving(client: &Client) {
    until(
        client,
        "EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'klaxon relay' AND datname = current_database()
                 AND wait_event = 'Extension')",
    )
    .await;
}

async fn woken(notifications: &mut UnboundedReceiver<Notification>) {
    within("a notification", notifications.recv()).await.expect("the session lasts");
}

/// Notifications that came before one that is sent now.
async fn drained(client: &Client, notifications: &mut UnboundedReceiver<Notification>) -> usize {
    client.batch_execute("NOTIFY klaxon_outbox, 'the end'").await.unwrap();
    let mut count = 0;
    while within("a notification", notifications.recv()).await.unwrap().payload() != "the end" {
        count += 1;
    }
    count
}

#[tokio::test]
async fn commits_wake_through_the_relay_and_never_notify_themselves() {
    let cluster = preloaded();
    let database = relayed(&cluster).await;
    let client = database.connect().await;
    let (_listener, mut notifications) = database.listen("klaxon_outbox").await;
    client.batch_execute(LISTENER).await.unwrap();
    let mode: String = client.query_one("SHOW klaxon.wakeup", &[]).await.unwrap().get(0);
    assert_eq!(mode, "relay", "the default of a server that has the library preloaded");

    for _ in 0..20 {
        client.batch_execute(EMIT).await.unwrap();
        woken(&mut notifications).await;
    }

    client.batch_execute(&format!("BEGIN; {EMIT}; ROLLBACK")).await.unwrap();
    assert_eq!(drained(&client, &mut notifications).await, 0, "nothing for what rolled back");

    // A transaction that had executed NOTIFY could not be prepared.
    client.batch_execute(&format!("BEGIN; {EMIT}; PREPARE TRANSACTION 'p'")).await.unwrap();
    client.batch_execute("COMMIT PREPARED 'p'").await.unwrap();

    let ten = format!("BEGIN; {EMIT}; SAVEPOINT s; {EMIT}; ROLLBACK TO s; COMMIT;").repeat(10);
    for _ in 0..50 {
        client.batch_execute(&ten).await.unwrap();
    }
    let count = drained(&client, &mut notifications).await;
    assert!(count < 500, "{count} notifications for 500 commits");
}

#[tokio::test]
async fn a_relay_that_ends_is_stood_in_for_and_comes_back() {
    let cluster = preloaded();
    let database = relayed(&cluster).await;
    let client = database.connect().await;
    let (_listener, mut notifications) = database.listen("klaxon_outbox").await;
    client.batch_execute(LISTENER).await.unwrap();
    client
        .batch_execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'klaxon relay'")
        .await
        .unwrap();
    client.batch_execute(EMIT).await.unwrap();
    woken(&mut notifications).await;
    serving(&client).await;
    client.batch_execute(EMIT).await.unwrap();
    woken(&mut notifications).await;
    cluster.stop(klaxon_tests::cluster::Stop::Fast).unwrap();
}

#[tokio::test]
async fn another_database_notifies_by_itself() {
    let cluster = preloaded();
    let _database = relayed(&cluster).await;
    let other = Database::create(&cluster);
    let client = other.connect().await;
    let (_listener, mut notifications) = other.listen("klaxon_outbox").await;
    client.batch_execute(LISTENER).await.unwrap();
    client.batch_execute(EMIT).await.unwrap();
    assert_eq!(drained(&client, &mut notifications).await, 1);
}

#[tokio::test]
async fn what_is_emitted_arrives() {
    let cluster = preloaded();
    let scene = Scene::set(relayed(&cluster).await).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    // Without a hint it would be a minute.
    let _worker = scene.worker(&["--poll-interval", "60"]).await;
    for n in 0..5 {
        scene.emit("run.failed", json!({"n": n})).await;
        scene.receiver.wait_at("/hook", n + 1).await;
    }
}

/// A transaction that has notified cannot be prepared; one that leaves it to the relay or to the poll can.
#[tokio::test]
async fn what_is_prepared_is_delivered_once_that_is_committed() {
    let cluster = preloaded();
    let scene = Scene::set(relayed(&cluster).await).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    let client = scene.database.connect().await;
    let prepare = |mode: &str, name: &str| {
        format!(
            "BEGIN; SET LOCAL klaxon.wakeup = '{mode}';
             SELECT klaxon.notify_event('run.failed', '{{\"of\": \"{name}\"}}'); PREPARE TRANSACTION '{name}'"
        )
    };
    let refused = client.batch_execute(&prepare("notify", "notified")).await.unwrap_err();
    assert_eq!(refused.code().map(|code| code.code().to_owned()).as_deref(), Some("0A000"));
    let mut arrived = 0;
    for mode in ["relay", "poll"] {
        let (kept, dropped) = (format!("{mode}-kept"), format!("{mode}-dropped"));
        client.batch_execute(&prepare(mode, &kept)).await.unwrap();
        client.batch_execute(&prepare(mode, &dropped)).await.unwrap();
        // Read meanwhile, and settled: what is prepared is in progress.
        scene.emit("run.failed", json!({"of": "another"})).await;
        arrived += 1;
        let request = scene.receiver.wait_at("/hook", arrived).await.remove(arrived - 1);
        assert_eq!(request.json()["data"]["of"], "another");
        until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
        client.batch_execute(&format!("ROLLBACK PREPARED '{dropped}'")).await.unwrap();
        client.batch_execute(&format!("COMMIT PREPARED '{kept}'")).await.unwrap();
        arrived += 1;
        let request = scene.receiver.wait_at("/hook", arrived).await.remove(arrived - 1);
        assert_eq!(request.json()["data"]["of"], kept);
        until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    }
    assert_eq!(scene.receiver.requests().len(), arrived);
}

/// The server forks each session, with the library and whatever it had begun to draw at random already in it.
#[tokio::test]
async fn sessions_draw_ids_that_are_their_own() {
    let cluster = preloaded();
    let database = relayed(&cluster).await;
    let mut ids = HashSet::new();
    for _ in 0..20 {
        let client = database.connect().await;
        let sql = "SELECT substr(klaxon.uuid_v7()::text, 25) FROM generate_series(1, 20)";
        for row in client.query(sql, &[]).await.unwrap() {
            assert!(ids.insert(row.get::<_, String>(0)), "an id whose random part another session had");
        }
    }
}
