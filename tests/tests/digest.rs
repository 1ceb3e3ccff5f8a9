//! Digests: collected as it happens, sent once a day and channel.

use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::{Value, json};
use tokio_postgres::Client;

/// A shared subscription to these events, in digest mode, to a webhook of this name. Returns the
/// subscription's id.
async fn subscribe(scene: &Scene<'_>, name: &str, hook: Hook, config: Value) -> i64 {
    let channel = scene.webhook(name, hook, config, &["run.*", "task.*"]).await;
    scene
        .client
        .query_one(
            "UPDATE klaxon.subscription AS s SET mode = 'digest', digest_at = '08:00' FROM klaxon.subscription_channel AS u
             WHERE u.subscription_id = s.id AND u.channel_id = $1 RETURNING s.id",
            &[&channel],
        )
        .await
        .unwrap()
        .get(0)
}

/// As if it were the time of day: no test waits for eight o'clock.
async fn fall_due(client: &Client) {
    client
        .batch_execute("UPDATE klaxon.digest_item SET due_at = now() WHERE delivery_id IS NULL")
        .await
        .unwrap();
}

async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

const NO_ITEM: &str = "NOT EXISTS (SELECT FROM klaxon.digest_item)";
const SETTLED: &str = "NOT EXISTS (SELECT FROM klaxon.outbox)";

#[tokio::test]
async fn a_digest_arrives_once_and_lists_the_newest_twenty() {
    let scene = Scene::set(Database::new()).await;
    scene
        .client
        .batch_execute(
            "INSERT INTO klaxon.project (slug, url) VALUES ('billing', 'https://ci.example.com/b')",
        )
        .await
        .unwrap();
    let subscription = subscribe(&scene, "daily", Hook::default().secret("swordfish"), json!({})).await;
    let _worker = scene.worker(&[]).await;
    scene
        .client
        .batch_execute(
            "INSERT INTO klaxon.event (type, project, payload, occurred_at)
             SELECT CASE WHEN n % 5 = 0 THEN 'run.finished' ELSE 'run.failed' END, 'billing',
                    jsonb_build_object('n', n, 'url', 'https://ci.example.com/r/' || n), timestamptz '2026-11-01 00:00:00.5Z' + n * interval '1 min'
             FROM generate_series(1, 25) AS n",
        )
        .await
        .unwrap();
    scene
        .client
        .execute(
            "INSERT INTO klaxon.held_back (subscription_id, events) VALUES ($1, 2), ($1, 5)",
            &[&subscription],
        )
        .await
        .unwrap();
    assert_eq!(number(&scene.client, "SELECT count(*) FROM klaxon.outbox").await, 0);
    fall_due(&scene.client).await;

    let request = scene.receiver.wait_at("/daily", 1).await.remove(0);
    assert_eq!(request.verified, Some(Ok(())));
    let body = request.json();
    assert_eq!(
        (&body["type"], &body["project"], &body["attempt"]),
        (&json!("digest"), &json!("billing"), &json!(1))
    );
    assert_eq!(
        (&body["id"], &body["url"]),
        (&json!(request.header("webhook-id")), &json!("https://ci.example.com/b"))
    );
    let data = body["data"].as_object().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["count", "events", "held_back"]);
    assert_eq!((&data["count"], &data["held_back"]), (&json!(25), &json!(7)));
    let events = data["events"].as_array().unwrap();
    let listed: Vec<i64> = events.iter().map(|event| event["data"]["n"].as_i64().unwrap()).collect();
    assert_eq!(listed, (6..=25).rev().collect::<Vec<_>>());
    assert_eq!(
        (&events[1]["timestamp"], &events[1]["url"], &events[1]["type"], &events[1]["project"]),
        (
            &json!("2026-11-01T00:24:00.5Z"),
            &json!("https://ci.example.com/r/24"),
            &json!("run.failed"),
            &json!("billing")
        )
    );

    until(&scene.client, &format!("{NO_ITEM} AND {SETTLED} AND NOT EXISTS (SELECT FROM klaxon.held_back)"))
        .await;
    let row = scene
        .client
        .query_one("SELECT event_id, event_type, status, subscription_id FROM klaxon.delivery WHERE kind = 'attempt'", &[])
        .await
        .unwrap();
    assert_eq!(
        (row.get::<_, Option<uuid::Uuid>>(0), row.get(1), row.get(2), row.get(3)),
        (None, "digest", "sent", subscription)
    );
    scene.client.batch_execute("SELECT klaxon.tick()").await.unwrap();
    assert_eq!(
        (scene.receiver.requests().len(), number(&scene.client, "SELECT count(*) FROM klaxon.outbox").await),
        (1, 0)
    );
}

#[tokio::test]
async fn a_digest_says_how_many_of_what_and_how_bad_it_is() {
    let scene = Scene::set(Database::new()).await;
    subscribe(&scene, "daily", Hook::default(), json!({})).await;
    scene.client.batch_execute("SELECT klaxon.subscribe('{daily}', '{run.failed}', mode => 'digest', digest_at => '09:00', owner => NULL)").await.unwrap();
    scene
        .client
        .batch_execute(
            "SELECT klaxon.notify_event(t, p::jsonb, s) FROM (VALUES
                 ('run.failed', 'null', 'a'), ('run.failed', '[]', 'a'), ('run.finished', '{\"url\": 7}', 'a'), ('run.failed', '{}', NULL)) AS e (t, p, s)",
        )
        .await
        .unwrap();
    fall_due(&scene.client).await;
    scene.client.batch_execute("SELECT klaxon.tick()").await.unwrap();
    let row = scene
        .client
        .query_one(
            "SELECT klaxon.digest_payload(id, held_back), project, shard::bigint = channel_id % 64, subscription_id = (SELECT min(id) FROM klaxon.subscription)
             FROM klaxon.outbox",
            &[],
        )
        .await
        .unwrap();
    let payload: Value = row.get(0);
    // Collected by two subscriptions, listed once.
    assert_eq!((&payload["count"], &payload["severity"]), (&json!(4), &json!("error")));
    assert_eq!(
        payload["groups"],
        json!([
            {"type": "run.failed", "project": "a", "count": 2},
            {"type": "run.failed", "project": null, "count": 1},
            {"type": "run.finished", "project": "a", "count": 1},
        ])
    );
    assert!(payload["events"].as_array().unwrap().iter().all(|event| event["url"].is_null()));
    assert_eq!((row.get(1), row.get(2), row.get(3)), (None::<String>, true, true));
}

#[tokio::test]
async fn an_event_of_a_digest_links_to_where_its_own_message_would() {
    let scene = Scene::set(Database::new()).await;
    scene
        .client
        .batch_execute("INSERT INTO klaxon.project (slug, url) VALUES ('p', 'https://ci.example.com/p')")
        .await
        .unwrap();
    subscribe(&scene, "daily", Hook::default(), json!({})).await;
    let mut expected = Vec::new();
    for (url, links_to) in [
        (json!("https://ci.example.com/runs/1?a=b"), "https://ci.example.com/runs/1?a=b"),
        (json!("javascript:alert(1)"), "https://ci.example.com/p"),
        (json!("https://bank.example.com@evil.example.com/"), "https://ci.example.com/p"),
        (json!("/runs/1"), "https://ci.example.com/p"),
        (json!(7), "https://ci.example.com/p"),
    ] {
        let payload = json!({ "url": url });
        scene.client.execute("SELECT klaxon.notify_event('run.failed', $1, 'p')", &[&payload]).await.unwrap();
        expected.insert(0, json!(links_to));
    }
    fall_due(&scene.client).await;
    let _worker = scene.worker(&[]).await;
    let request = scene.receiver.wait_at("/daily", 1).await.remove(0);
    let events = request.json()["data"]["events"].as_array().unwrap().clone();
    let links: Vec<_> = events.iter().map(|event| event["url"].clone()).collect();
    assert_eq!(links, expected);
}

#[tokio::test]
async fn twenty_great_payloads_do_not_make_a_great_message() {
    let scene = Scene::set(Database::new()).await;
    subscribe(&scene, "daily", Hook::default(), json!({})).await;
    let _worker = scene.worker(&[]).await;
    let noise = "ü\u{1F6A8}".repeat(12_000);
    for n in 0..30 {
        let payload =
            json!({"run_id": n, "title": noise, "top_failures": [noise], "other": noise, "status": "failed"});
        scene.emit("run.failed", payload).await;
    }
    fall_due(&scene.client).await;
    let request = scene.receiver.wait_at("/daily", 1).await.remove(0);
    assert!(request.body.len() < 30_000, "{}", request.body.len());
    let data = request.json()["data"]["events"][0]["data"].clone();
    assert_eq!(
        data,
        json!({"truncated": true, "run_id": 29, "status": "failed", "title": noise.chars().take(150).collect::<String>()})
    );
}

#[tokio::test]
async fn what_nobody_wants_or_may_have_when_it_is_due_is_not_sent() {
    let scene = Scene::set(Database::new()).await;
    let mut expected = Vec::new();
    for (name, change) in [
        ("muted", "UPDATE klaxon.subscription SET muted_until = now() + interval '1 h' WHERE id = $1"),
        ("unmuted", "UPDATE klaxon.subscription SET muted_until = now() - interval '1 h' WHERE id = $1"),
        ("deleted", "DELETE FROM klaxon.subscription WHERE id = $1"),
        ("disabled", "UPDATE klaxon.subscription SET enabled = false WHERE id = $1"),
        ("unlinked", "DELETE FROM klaxon.subscription_channel WHERE subscription_id = $1"),
        (
            "off",
            "UPDATE klaxon.channel SET enabled = false WHERE id IN (SELECT channel_id FROM klaxon.subscription_channel WHERE subscription_id = $1)",
        ),
        ("stranger", "UPDATE klaxon.subscription SET owner = 'mallory' WHERE id = $1"),
        ("member", "UPDATE klaxon.subscription SET owner = 'alice' WHERE id = $1"),
    ] {
        let subscription = subscribe(&scene, name, Hook::default(), json!({})).await;
        expected.push((subscription, name, change));
    }
    scene
        .client
        .batch_execute(
            "INSERT INTO klaxon.project (slug) VALUES ('billing');
             INSERT INTO klaxon.member (project, principal) VALUES ('billing', 'alice');
             SELECT klaxon.notify_event('run.failed', project => 'billing')",
        )
        .await
        .unwrap();
    assert_eq!(number(&scene.client, "SELECT count(*) FROM klaxon.digest_item").await, 8);
    for (subscription, _, change) in &expected {
        scene.client.execute(*change, &[subscription]).await.unwrap();
    }
    let _worker = scene.worker(&[]).await;
    fall_due(&scene.client).await;
    until(&scene.client, &format!("{NO_ITEM} AND {SETTLED}")).await;
    let mut sent: Vec<_> = scene.receiver.requests().into_iter().map(|request| request.path).collect();
    sent.sort();
    assert_eq!(sent, ["/member", "/unmuted"]);
}

#[tokio::test]
async fn what_arrives_while_a_digest_is_on_its_way_is_in_the_next_and_a_kill_repeats_it_as_it_was() {
    let scene = Scene::set(Database::new()).await;
    let (hook, release) = Hook::default().held();
    subscribe(&scene, "daily", hook, json!({})).await;
    let mut worker = scene.worker(&[]).await;
    let first = scene.emit("run.failed", json!({"n": 1})).await;
    fall_due(&scene.client).await;
    scene.receiver.wait_at("/daily", 1).await;
    let second = scene.emit("run.failed", json!({"n": 2})).await;
    worker.signal("KILL");
    worker.wait().await;
    let third = scene.emit("run.failed", json!({"n": 3})).await;
    release.send(true).unwrap();
    let _next = scene.worker(&[]).await;
    let requests = scene.receiver.wait_at("/daily", 2).await;
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    assert_eq!(requests[0].json(), requests[1].json());
    assert_eq!(requests[0].json()["data"]["events"][0]["id"], first.to_string());
    until(&scene.client, &format!("{SETTLED} AND (SELECT count(*) = 2 FROM klaxon.digest_item)")).await;

    fall_due(&scene.client).await;
    let last = scene.receiver.wait_at("/daily", 3).await.remove(2).json();
    let mut listed: Vec<_> =
        last["data"]["events"].as_array().unwrap().iter().map(|event| event["id"].clone()).collect();
    listed.sort_by_key(Value::to_string);
    assert_eq!(listed, [json!(second.to_string()), json!(third.to_string())]);
    until(&scene.client, &format!("{NO_ITEM} AND {SETTLED}")).await;
    assert_eq!(scene.receiver.requests().len(), 3);
}

#[tokio::test]
async fn a_dead_digest_can_be_retried_as_long_as_it_is_listed() {
    let scene = Scene::set(Database::new()).await;
    let hook = Hook::default().statuses([500, 200, 500]);
    let subscription = subscribe(&scene, "down", hook, json!({"retry_schedule": []})).await;
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({"n": 1})).await;
    scene
        .client
        .execute("INSERT INTO klaxon.held_back (subscription_id, events) VALUES ($1, 3)", &[&subscription])
        .await
        .unwrap();
    fall_due(&scene.client).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.dead_letter)").await;
    assert_eq!(
        number(&scene.client, "SELECT count(*) FROM klaxon.digest_item WHERE delivery_id IS NOT NULL").await,
        1
    );
    scene
        .client
        .batch_execute("SELECT klaxon.prune(events => '0'); SELECT klaxon.retry_dead('down')")
        .await
        .unwrap();
    let requests = scene.receiver.wait_at("/down", 2).await;
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    assert_eq!(requests[0].json()["data"], requests[1].json()["data"]);
    assert_eq!(requests[1].json()["data"]["held_back"], 3);
    until(&scene.client, &format!("{NO_ITEM} AND {SETTLED} AND NOT EXISTS (SELECT FROM klaxon.dead_letter)"))
        .await;

    scene.emit("run.failed", json!({"n": 2})).await;
    fall_due(&scene.client).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.dead_letter)").await;
    scene.client.batch_execute("DELETE FROM klaxon.dead_letter").await.unwrap();
    assert_eq!(number(&scene.client, "SELECT count(*) FROM klaxon.digest_item").await, 0);
}

#[tokio::test]
async fn events_that_a_digest_needs_are_kept() {
    let scene = Scene::set(Database::new()).await;
    subscribe(&scene, "daily", Hook::default(), json!({})).await;
    scene.emit("run.failed", json!({})).await;
    scene.emit("agent.offline", json!({})).await;
    scene.client.batch_execute("SELECT pg_sleep(0.01); SELECT klaxon.prune(events => '0')").await.unwrap();
    let kept: String =
        scene.client.query_one("SELECT string_agg(type, ' ') FROM klaxon.event", &[]).await.unwrap().get(0);
    assert_eq!(kept, "run.failed");
}

#[tokio::test]
async fn one_part_of_the_clock_that_fails_does_not_stop_the_others() {
    let scene = Scene::set(Database::new()).await;
    subscribe(&scene, "daily", Hook::default(), json!({})).await;
    scene.client.batch_execute("ALTER FUNCTION klaxon.expire_agents() RENAME TO broken").await.unwrap();
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    fall_due(&scene.client).await;
    scene.receiver.wait_at("/daily", 1).await;
}

#[tokio::test]
async fn a_digest_is_due_once_a_day_whatever_the_clocks_do() {
    let scene = Scene::set(Database::new()).await;
    for (at, zone, now, expected) in [
        ("08:00", "UTC", "2026-11-23 07:59:59Z", "2026-11-23 08:00"),
        ("08:00", "UTC", "2026-11-23 08:00:00Z", "2026-11-24 08:00"),
        ("08:00", "Europe/Berlin", "2026-03-28 20:00Z", "2026-03-29 06:00"),
        ("08:00", "America/New_York", "2026-11-01 03:00Z", "2026-11-01 13:00"),
        // 02:00 to 03:00 does not exist: due when the clocks have jumped, and not again that day.
        ("02:30", "Europe/Berlin", "2026-03-28 23:00Z", "2026-03-29 01:00"),
        ("02:30", "Europe/Berlin", "2026-03-29 00:59:59Z", "2026-03-29 01:00"),
        ("02:30", "Europe/Berlin", "2026-03-29 01:00Z", "2026-03-30 00:30"),
        ("02:30", "Europe/Berlin", "2026-03-29 01:30Z", "2026-03-30 00:30"),
        ("02:00", "Europe/Berlin", "2026-03-28 23:00Z", "2026-03-29 01:00"),
        ("02:59:59", "Europe/Berlin", "2026-03-28 23:00Z", "2026-03-29 01:00"),
        ("03:00", "Europe/Berlin", "2026-03-28 23:00Z", "2026-03-29 01:00"),
        ("01:59", "Europe/Berlin", "2026-03-28 23:00Z", "2026-03-29 00:59"),
        ("02:30", "America/New_York", "2026-03-08 05:00Z", "2026-03-08 07:00"),
        ("02:30", "America/New_York", "2026-03-08 07:00Z", "2026-03-09 06:30"),
        // 02:00 to 03:00 exists twice: due the second time, and only then.
        ("02:30", "Europe/Berlin", "2026-10-24 22:00Z", "2026-10-25 01:30"),
        ("02:30", "Europe/Berlin", "2026-10-25 00:30Z", "2026-10-25 01:30"),
        ("02:30", "Europe/Berlin", "2026-10-25 01:30Z", "2026-10-26 01:30"),
        ("01:30", "America/New_York", "2026-11-01 04:00Z", "2026-11-01 06:30"),
        ("01:30", "America/New_York", "2026-11-01 05:35Z", "2026-11-01 06:30"),
        ("01:30", "America/New_York", "2026-11-01 06:30Z", "2026-11-02 06:30"),
        // Half an hour; and a day that a country did without.
        ("02:15", "Australia/Lord_Howe", "2026-10-03 12:00Z", "2026-10-03 15:30"),
        ("08:00", "Pacific/Apia", "2011-12-30 09:00Z", "2011-12-30 10:00"),
        ("08:00", "Pacific/Apia", "2011-12-30 10:00Z", "2011-12-30 18:00"),
    ] {
        let due: String = scene
            .client
            .query_one(
                "SELECT to_char(klaxon.digest_due($1::text::time, $2, $3::text::timestamptz) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')",
                &[&at, &zone, &now],
            )
            .await
            .unwrap()
            .get(0);
        assert_eq!(due, expected, "{at} {zone} after {now}");
    }
}
