//! What logical replication of our tables gives a subscriber, and what it does not: `docs/operations.md` says so, and
//! `klaxon doctor`.

use klaxon_tests::cluster::{Cluster, SUPERUSER};
use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::{Value, json};

fn cluster() -> Cluster {
    Cluster::start(&[("wal_level", "logical"), ("fsync", "off"), ("full_page_writes", "off")]).unwrap()
}

/// What the doctor says of replication: level and words.
async fn diagnosis(scene: &Scene<'_>, database: &Database<'_>) -> Vec<(String, String)> {
    let url = ["doctor", "--json", "--database-url", &database.worker_url()];
    let output = scene.installation.run(&url).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let findings = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_replication = findings.filter(|finding| finding["check"] == "logical replication");
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    of_replication.map(|finding| (word(&finding["level"]), word(&finding["detail"]))).collect()
}

/// Transaction ids that the publisher is ahead by.
const AHEAD: &str = "
    CREATE TEMPORARY TABLE burnt (n integer);
    DO $$ BEGIN
        FOR n IN 1..5000 LOOP
            BEGIN INSERT INTO burnt VALUES (n); EXCEPTION WHEN OTHERS THEN RAISE; END;
        END LOOP;
    END $$";

#[tokio::test]
async fn a_subscriber_gets_rows_and_nothing_that_follows_from_them() {
    let (here, there) = (cluster(), cluster());
    let (published, subscribed) = (Database::create(&here), Database::create(&there));
    published.psql(AHEAD);
    published.psql("CREATE PUBLICATION everything FOR ALL TABLES");
    subscribed.psql(&format!(
        "CREATE SUBSCRIPTION copy CONNECTION 'host=127.0.0.1 port={} user={SUPERUSER} dbname={}'
         PUBLICATION everything WITH (copy_data = false)",
        here.port(),
        published.name
    ));
    let scene = Scene::set(published).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let event = scene.emit("run.failed", json!({})).await;

    let client = subscribed.connect().await;
    until(&client, "EXISTS (SELECT FROM klaxon.event) AND EXISTS (SELECT FROM klaxon.outbox)").await;
    // The row that was matched there, and none that was matched here.
    let row = client
        .query_one("SELECT event_id, xid > pg_current_xact_id(), (SELECT count(*) FROM klaxon.outbox) FROM klaxon.outbox", &[])
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (event, true, 1_i64));
    // Ids that came are given again.
    let error = client
        .execute(r#"INSERT INTO klaxon.channel (name, kind, config) VALUES ('mine', 'webhook', '{"url": "https://a.test/"}')"#, &[])
        .await
        .unwrap_err();
    assert_eq!(error.as_db_error().and_then(|said| said.constraint()), Some("channel_pkey"), "{error}");

    let of_publisher = diagnosis(&scene, &scene.database).await;
    assert!(
        matches!(&of_publisher[..], [(level, words)] if level == "warning" && words.contains("publication everything has")),
        "{of_publisher:?}"
    );
    let of_subscriber = diagnosis(&scene, &subscribed).await;
    assert!(
        matches!(&of_subscriber[..], [(level, words)] if level == "failure" && words.contains("subscription copy writes")),
        "{of_subscriber:?}"
    );

    // The deployment's row came along: a worker takes the copy for its own, and both send.
    let flags = [
        "--database-url".to_owned(),
        subscribed.worker_url(),
        "--egress-allow".into(),
        "127.0.0.1/32".into(),
        "--ca-file".into(),
        scene.authority.file().display().to_string(),
        "--connect-to".into(),
        scene.receiver.connect_to(),
    ];
    let _second = scene.installation.start(&flags);
    scene.receiver.wait_at("/hook", 1).await;
    let _first = scene.worker(&[]).await;
    let requests = scene.receiver.wait_at("/hook", 2).await;
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    // Two wrote: what the publisher's worker writes is a duplicate.
    until(&client, "(SELECT apply_error_count > 0 FROM pg_stat_subscription_stats)").await;
    assert!(there.log().contains("processing remote data"), "{}", there.log());
}

/// A publication for all tables, as many tools make it, is in nobody's way: what has no primary key can still be
/// changed and deleted.
#[tokio::test]
async fn a_publisher_works_as_ever() {
    let here = cluster();
    let scene = Scene::set(Database::create(&here)).await;
    scene.database.psql("CREATE PUBLICATION everything FOR ALL TABLES");
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    scene
        .client
        .batch_execute(
            "UPDATE klaxon.subscription SET events = '{run.failed,run.finished}', cooldown = '1 h';
             SELECT klaxon.heartbeat('a');
             SELECT klaxon.heartbeat('a');
             DELETE FROM klaxon.agent;
             SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['task.failed'], filters => '{\"where\": \"$.a.double() > 1\"}', owner => NULL)",
        )
        .await
        .unwrap();
    scene.emit("run.failed", json!({"n": 1})).await;
    scene.receiver.wait_at("/hook", 1).await;
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    scene.emit("run.failed", json!({"n": 2})).await;
    scene.emit("task.failed", json!({"a": "none"})).await;
    scene
        .client
        .batch_execute(
            "INSERT INTO klaxon.watcher_error (watcher_id, sqlstate, message) VALUES (1, '22012', 'zero');
             UPDATE klaxon.watcher_error SET message = 'none';
             DELETE FROM klaxon.watcher_error;
             UPDATE klaxon.subscription SET events = '{run.failed}' WHERE cooldown > '0'",
        )
        .await
        .unwrap();
    // What was held back and what raised goes after the subscriptions.
    assert_eq!(scene.database.psql("SELECT (SELECT count(*) FROM klaxon.held_back) || ' ' || (SELECT count(*) FROM klaxon.filter_error)"), "1 1");
    scene
        .client
        .batch_execute("DELETE FROM klaxon.subscription; SELECT klaxon.tidy_cooldowns()")
        .await
        .unwrap();
    assert_eq!(scene.database.psql("SELECT (SELECT count(*) FROM klaxon.held_back) || ' ' || (SELECT count(*) FROM klaxon.filter_error)"), "0 0");
}
