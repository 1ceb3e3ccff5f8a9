//! Cooldowns: of a flood one is sent a window, and the others are counted.

use klaxon_tests::cluster::{Cluster, Stop};
use klaxon_tests::database::Database;
use klaxon_tests::receiver::{Hook, Request};
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::Client;

const WINDOW: &str = "1 hour";

/// A subscription to failed tasks with a cooldown, to a webhook of this name.
async fn subscribe(scene: &Scene<'_>, name: &str, hook: Hook, config: Value) -> i64 {
    let channel = scene.webhook(name, hook, config, &["task.failed"]).await;
    scene
        .client
        .query_one(
            "UPDATE klaxon.subscription AS s SET cooldown = $1::text::interval FROM klaxon.subscription_channel AS u
             WHERE u.subscription_id = s.id AND u.channel_id = $2 RETURNING s.id",
            &[&WINDOW, &channel],
        )
        .await
        .unwrap()
        .get(0)
}

/// Another channel of a subscription.
async fn also(scene: &Scene<'_>, subscription: i64, name: &str) {
    let url = scene.receiver.serve(&format!("/{name}"), Hook::default());
    scene
        .client
        .execute(
            "WITH c AS (INSERT INTO klaxon.channel (name, kind, config) VALUES ($1, 'webhook', jsonb_build_object('url', $2::text)) RETURNING id)
             INSERT INTO klaxon.subscription_channel (subscription_id, channel_id) SELECT $3, id FROM c",
            &[&name, &url, &subscription],
        )
        .await
        .unwrap();
}

async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// How many events are counted as held back and not yet told.
async fn held(client: &Client) -> i64 {
    number(client, "SELECT coalesce(sum(events), 0)::bigint FROM klaxon.held_back").await
}

/// As if the window had passed: no test waits an hour.
async fn pass(client: &Client) {
    client
        .batch_execute("UPDATE klaxon.cooldown SET notified_at = notified_at - interval '1 hour'")
        .await
        .unwrap();
}

fn told(request: &Request) -> i64 {
    request.json()["held_back"].as_i64().unwrap_or_default()
}

const SETTLED: &str = "NOT EXISTS (SELECT FROM klaxon.outbox)";
/// A worker has asked whose turn it is.
const ASKED: &str = "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'klaxon%'
                             AND (query LIKE '-- Whose turn it is%' OR query LIKE '-- What was decided of%'))";

#[tokio::test]
async fn a_flood_in_one_statement_notifies_once_a_window() {
    let scene = Scene::set(Database::new()).await;
    subscribe(&scene, "flood", Hook::default(), json!({})).await;
    let _worker = scene.worker(&[]).await;
    let flood = "INSERT INTO klaxon.event (type, payload) SELECT 'task.failed', '{\"task_name\": \"mail\"}' FROM generate_series(1, 100000)";
    scene.client.batch_execute(flood).await.unwrap();
    until(&scene.client, SETTLED).await;
    let first = scene.receiver.wait_at("/flood", 1).await.remove(0);
    assert_eq!(told(&first) + held(&scene.client).await, 99_999);

    // Within the window none passes; after it one does, and tells of all the others.
    let before = held(&scene.client).await;
    scene.client.batch_execute(flood).await.unwrap();
    assert_eq!(held(&scene.client).await - before, 100_000);
    pass(&scene.client).await;
    scene.emit("task.failed", json!({"task_name": "mail"})).await;
    let second = scene.receiver.wait_at("/flood", 2).await.remove(1);
    assert_eq!(told(&second), before + 100_000);
    until(&scene.client, SETTLED).await;
    assert_eq!((held(&scene.client).await, scene.receiver.requests().len()), (0, 2));
}

#[tokio::test]
async fn a_flood_of_statements_in_one_transaction_notifies_once() {
    let scene = Scene::set(Database::new()).await;
    subscribe(&scene, "many", Hook::default(), json!({})).await;
    let _worker = scene.worker(&[]).await;
    scene
        .client
        .batch_execute(
            "DO $$ BEGIN FOR i IN 1..20000 LOOP PERFORM klaxon.notify_event('task.failed', '{\"task_name\": \"mail\"}'); END LOOP; END $$",
        )
        .await
        .unwrap();
    until(&scene.client, SETTLED).await;
    assert_eq!(held(&scene.client).await, 19_999);
    assert_eq!(
        number(&scene.client, "SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt'").await,
        1,
        "the others are no attempts"
    );
    let requests = scene.receiver.requests();
    assert_eq!((requests.len(), told(&requests[0])), (1, 0));
    // One row a decision, not one an event.
    let rows = number(&scene.client, "SELECT count(*) FROM klaxon.held_back").await;
    assert!(rows < 200, "{rows}");
}

#[tokio::test]
async fn sixteen_emitters_and_two_workers_notify_each_channel_once_a_window() {
    const EMITTERS: usize = 16;
    const EACH: i64 = 150;
    let scene = Scene::set(Database::new()).await;
    let subscription = subscribe(&scene, "one", Hook::default(), json!({})).await;
    for name in ["two", "three", "four"] {
        also(&scene, subscription, name).await;
    }
    let _workers = [
        scene.worker(&["--metrics-addr", "127.0.0.1:0"]).await,
        scene.worker(&["--metrics-addr", "127.0.0.1:0"]).await,
    ];
    let emit = async |client: Client| {
        for _ in 0..EACH {
            client
                .batch_execute("SELECT klaxon.notify_event('task.failed', '{\"task_name\": \"mail\"}')")
                .await
                .unwrap();
        }
    };
    let mut total = 0;
    for window in 1..=2 {
        let mut emitters = JoinSet::new();
        for _ in 0..EMITTERS {
            emitters.spawn(emit(scene.database.connect().await));
        }
        emitters.join_all().await;
        total += i64::try_from(EMITTERS).unwrap() * EACH;
        until(&scene.client, SETTLED).await;
        let mut told_here = Vec::new();
        for name in ["/one", "/two", "/three", "/four"] {
            let requests = scene.receiver.requests_at(name);
            assert_eq!(requests.len(), window, "{name}");
            told_here.push((requests[window - 1].json()["id"].clone(), told(&requests[window - 1])));
        }
        assert!(told_here.windows(2).all(|pair| pair[0] == pair[1]), "one notification: {told_here:?}");
        let told_so_far: i64 = scene.receiver.requests_at("/one").iter().map(told).sum();
        let notified = i64::try_from(window).unwrap();
        assert_eq!(told_so_far + held(&scene.client).await, total - notified);
        pass(&scene.client).await;
    }
}

#[tokio::test]
async fn each_task_has_a_window_of_its_own_however_long_its_name() {
    let scene = Scene::set(Database::new()).await;
    subscribe(&scene, "tasks", Hook::default(), json!({})).await;
    let _worker = scene.worker(&[]).await;
    let long = "x".repeat(100_000);
    for payload in [
        json!({"task_name": "a"}),
        json!({"task_name": "b"}),
        json!({}),
        json!([1]),
        json!({"task_name": long}),
        json!({"task_name": format!("{long}y")}),
        json!({"task_name": "a"}),
        json!({"task_name": long}),
        json!({"other": 1}),
    ] {
        scene.emit("task.failed", payload).await;
    }
    until(&scene.client, SETTLED).await;
    // a, b, without one, and the two long ones.
    assert_eq!((scene.receiver.requests().len(), held(&scene.client).await), (5, 4));
    let reason: String = scene
        .client
        .query_one(
            "SELECT reason FROM klaxon.explain_event('task.failed', $1)",
            &[&json!({ "task_name": long })],
        )
        .await
        .unwrap()
        .get(0);
    assert!(reason.starts_with("cooldown: "), "{reason}");
}

#[tokio::test]
async fn the_window_outlives_the_worker_and_the_database() {
    let cluster = Cluster::start(&[]).unwrap();
    let mut scene = Scene::set(Database::create(&cluster)).await;
    subscribe(&scene, "hook", Hook::default(), json!({})).await;
    let mut worker = scene.worker(&[]).await;
    scene.emit("task.failed", json!({"count": 1})).await;
    scene.receiver.wait_at("/hook", 1).await;
    until(&scene.client, SETTLED).await;
    worker.signal("KILL");
    worker.wait().await;
    scene.emit("task.failed", json!({"count": 2})).await;
    cluster.stop(Stop::Immediate).unwrap();
    cluster.restart().unwrap();
    scene.client = scene.database.connect().await;
    let _worker = scene.worker(&[]).await;
    scene.emit("task.failed", json!({"count": 3})).await;
    pass(&scene.client).await;
    scene.emit("task.failed", json!({"count": 4})).await;
    let request = scene.receiver.wait_at("/hook", 2).await.remove(1);
    assert_eq!((request.json()["data"]["count"].as_i64(), told(&request)), (Some(4), 2));
}

#[tokio::test]
async fn a_retry_says_what_the_first_attempt_said_and_is_not_settled_again() {
    let scene = Scene::set(Database::new()).await;
    let hook = Hook::default().statuses([500, 500, 200]);
    subscribe(&scene, "flaky", hook, json!({"retry_schedule": [0]})).await;
    let _worker = scene.worker(&[]).await;
    scene
        .client
        .batch_execute("INSERT INTO klaxon.event (type) SELECT 'task.failed' FROM generate_series(1, 42)")
        .await
        .unwrap();
    until(&scene.client, "EXISTS (SELECT FROM klaxon.dead_letter)").await;
    // Others are held back meanwhile: they are the next one's to tell.
    scene.emit("task.failed", json!({})).await;
    scene.client.batch_execute("SELECT klaxon.retry_dead('flaky')").await.unwrap();
    let requests = scene.receiver.wait_at("/flaky", 3).await;
    assert_eq!(requests.iter().map(told).collect::<Vec<_>>(), [41, 41, 41]);
    until(&scene.client, SETTLED).await;
    assert_eq!(held(&scene.client).await, 1);
}

#[tokio::test]
async fn a_subscription_that_has_changed_its_mind_is_not_held_to_its_cooldown() {
    let scene = Scene::set(Database::new()).await;
    let deleted = subscribe(&scene, "deleted", Hook::default(), json!({})).await;
    let lifted = subscribe(&scene, "lifted", Hook::default(), json!({})).await;
    let kept = subscribe(&scene, "kept", Hook::default(), json!({})).await;
    for _ in 0..3 {
        scene.emit("task.failed", json!({})).await;
    }
    scene.client.execute("DELETE FROM klaxon.subscription WHERE id = $1", &[&deleted]).await.unwrap();
    scene
        .client
        .execute("UPDATE klaxon.subscription SET cooldown = '0' WHERE id = $1", &[&lifted])
        .await
        .unwrap();
    let _worker = scene.worker(&[]).await;
    until(&scene.client, SETTLED).await;
    let counts = ["/deleted", "/lifted", "/kept"].map(|path| scene.receiver.requests_at(path).len());
    assert_eq!(counts, [3, 3, 1]);
    assert_eq!(held(&scene.client).await, 2);
    scene.client.execute("DELETE FROM klaxon.subscription WHERE id = $1", &[&kept]).await.unwrap();
    scene.client.batch_execute("SELECT klaxon.tidy_cooldowns()").await.unwrap();
    let left = "SELECT (SELECT count(*) FROM klaxon.held_back) + (SELECT count(*) FROM klaxon.cooldown)";
    assert_eq!(number(&scene.client, left).await, 0, "what is kept of a subscription goes after it");
}

/// A superuser may do so, and the worker looks for what it knows where it was.
#[tokio::test]
async fn what_is_moved_while_it_is_decided_on_is_sent_when_it_is_due() {
    let scene = Scene::set(Database::new()).await;
    let subscription = subscribe(&scene, "moved", Hook::default(), json!({})).await;
    let holder = scene.database.connect().await;
    let known = "INSERT INTO klaxon.cooldown (subscription_id, notified_at) VALUES ($1, 'epoch')";
    holder.execute(known, &[&subscription]).await.unwrap();
    holder.batch_execute("BEGIN; SELECT FROM klaxon.cooldown FOR UPDATE").await.unwrap();
    let _worker = scene.worker(&[]).await;
    scene.emit("task.failed", json!({})).await;
    until(&scene.client, ASKED).await;
    scene
        .client
        .batch_execute("UPDATE klaxon.outbox SET due_at = due_at - interval '1 minute'")
        .await
        .unwrap();
    holder.batch_execute("COMMIT").await.unwrap();
    scene.receiver.wait_at("/moved", 1).await;
    until(&scene.client, SETTLED).await;
}

#[tokio::test]
async fn other_deliveries_of_the_channel_and_a_replay_do_not_wait() {
    let scene = Scene::set(Database::new()).await;
    subscribe(&scene, "both", Hook::default(), json!({})).await;
    scene
        .client
        .batch_execute("SELECT klaxon.subscribe('{both}', '{run.failed}', owner => NULL)")
        .await
        .unwrap();
    let _worker = scene.worker(&[]).await;
    for _ in 0..3 {
        scene.emit("task.failed", json!({})).await;
        scene.emit("run.failed", json!({})).await;
    }
    until(&scene.client, SETTLED).await;
    assert_eq!((scene.receiver.requests().len(), held(&scene.client).await), (4, 2));
    scene
        .client
        .batch_execute(
            "SELECT klaxon.replay('both', '-infinity', 'infinity', '{task.failed}', dry_run => false)",
        )
        .await
        .unwrap();
    scene.receiver.wait_at("/both", 7).await;
    assert_eq!(held(&scene.client).await, 2);
}

#[tokio::test]
async fn what_is_held_back_one_by_one_is_folded_and_old_windows_are_forgotten() {
    let scene = Scene::set(Database::new()).await;
    let subscription = subscribe(&scene, "quiet", Hook::default(), json!({})).await;
    scene
        .client
        .execute(
            "INSERT INTO klaxon.held_back (subscription_id, task_name, events, held_at)
             SELECT s, t, 1, timestamptz '2026-01-01' + n * interval '1 s'
             FROM generate_series(1, 200) AS n, (VALUES ($1::bigint, 'a'), ($1::bigint, 'b'), (-7, 'a')) AS k (s, t) WHERE n <= 20 OR t = 'a'",
            &[&subscription],
        )
        .await
        .unwrap();
    scene
        .client
        .execute(
            "INSERT INTO klaxon.cooldown (subscription_id, task_name, notified_at)
             SELECT s, a::text, now() - a FROM (VALUES ($1::bigint, interval '1 min'), ($1, '1 day'), ($1, '2 days'), (-7, '1 min')) AS k (s, a)",
            &[&subscription],
        )
        .await
        .unwrap();
    scene.client.batch_execute("SELECT klaxon.tidy_cooldowns()").await.unwrap();
    let left: Value = scene
        .client
        .query_one(
            "SELECT jsonb_agg(to_jsonb(h) - 'subscription_id') FROM (
                 SELECT subscription_id, task_name, count(*), sum(events) AS events, (min(held_at) AT TIME ZONE 'UTC')::text AS first
                 FROM klaxon.held_back GROUP BY 1, 2 ORDER BY 2) AS h",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(
        left,
        json!([
            {"task_name": "a", "count": 1, "events": 200, "first": "2026-01-01 00:00:01"},
            {"task_name": "b", "count": 20, "events": 20, "first": "2026-01-01 00:00:01"},
        ])
    );
    let windows: String = scene
        .client
        .query_one("SELECT string_agg(task_name, ', ' ORDER BY notified_at) FROM klaxon.cooldown", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(windows, "1 day, 00:01:00");
}

#[tokio::test]
async fn a_kill_repeats_the_notification_and_lets_no_other_pass() {
    let scene = Scene::set(Database::new()).await;
    let (hook, release) = Hook::default().held();
    let subscription = subscribe(&scene, "slow", hook, json!({})).await;
    also(&scene, subscription, "quick").await;
    let mut worker = scene.worker(&[]).await;
    scene
        .client
        .batch_execute("INSERT INTO klaxon.event (type) SELECT 'task.failed' FROM generate_series(1, 10)")
        .await
        .unwrap();
    scene.receiver.wait_at("/slow", 1).await;
    until(&scene.client, "(SELECT count(*) = 1 FROM klaxon.outbox)").await;
    scene.emit("task.failed", json!({})).await;
    worker.signal("KILL");
    worker.wait().await;
    scene.emit("task.failed", json!({})).await;
    release.send(true).unwrap();
    let _next = scene.worker(&[]).await;
    let requests = scene.receiver.wait_at("/slow", 2).await;
    until(&scene.client, SETTLED).await;
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    assert_eq!((requests[0].json(), told(&requests[0])), (requests[1].json(), 9));
    let quick = scene.receiver.requests_at("/quick");
    assert_eq!((quick.len(), &quick[0].json()["id"]), (1, &requests[0].json()["id"]));
    assert_eq!((scene.receiver.requests_at("/slow").len(), held(&scene.client).await), (2, 2));
}
