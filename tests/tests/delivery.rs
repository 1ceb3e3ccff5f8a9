//! From a committed row to a delivered message, and what happens when a part fails on the way.

use klaxon_tests::cluster::{Cluster, Stop};
use klaxon_tests::database::Database;
use klaxon_tests::receiver::{Answer, Hook};
use klaxon_tests::scene::Scene;
use klaxon_tests::smtp::{self, Report};
use klaxon_tests::until::until;
use serde_json::{Value, json};

/// 24 bytes in base64, as the standard's reference tools make them.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The audit rows of the only channel: attempt, status, response code.
async fn attempts(scene: &Scene<'_>) -> Vec<(i32, String, Option<i32>)> {
    scene
        .client
        .query(
            "SELECT attempt, status, response_code FROM klaxon.delivery WHERE kind = 'attempt' ORDER BY seq",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

#[tokio::test]
async fn a_webhook_arrives_signed() {
    let scene = Scene::set(Database::new()).await;
    scene
        .client
        .batch_execute("INSERT INTO klaxon.project (slug, name, url) VALUES ('billing', 'Billing', 'https://ci.example.com/billing')")
        .await
        .unwrap();
    let config = json!({"headers": {"Authorization": "Bearer token"}});
    scene.webhook("signed", Hook::default().secret(SECRET), config, &["run.*"]).await;
    let _worker = scene.worker(&[]).await;
    let payload = json!({"run_id": "r1", "branch": "main", "failed_tests": 3, "total_tests": 412, "note": "ü \u{1F6A8}"});
    let id: uuid::Uuid = scene
        .client
        .query_one("SELECT klaxon.notify_event('run.failed', $1, 'billing')", &[&payload])
        .await
        .unwrap()
        .get(0);

    let request = scene.receiver.wait_at("/signed", 1).await.remove(0);
    assert_eq!(request.verified, Some(Ok(())));
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("authorization"), "Bearer token");
    assert!(
        request.header("content-type").starts_with("application/json"),
        "{}",
        request.header("content-type")
    );
    let body = request.json();
    assert_eq!(body["id"], id.to_string());
    assert_eq!((&body["type"], &body["attempt"], &body["data"]), (&json!("run.failed"), &json!(1), &payload));
    assert_eq!(body["project"], "billing");
    assert!(
        body["url"].as_str().is_some_and(|url| url.starts_with("https://ci.example.com/billing")),
        "{body}"
    );
    assert!(body.get("held_back").is_none());

    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let row = scene.client.query_one("SELECT delivery_id, event_id, status, response_code, channel_name, channel_kind FROM klaxon.delivery WHERE kind = 'attempt'", &[]).await.unwrap();
    assert_eq!(row.get::<_, uuid::Uuid>(0).to_string(), request.header("webhook-id"));
    assert_eq!((row.get(1), row.get(2), row.get(3)), (id, "sent", Some(200)));
    assert_eq!((row.get(4), row.get(5)), ("signed", "webhook"));
}

#[tokio::test]
async fn a_project_that_nobody_registered_is_still_named() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("stray", Hook::default(), json!({}), &["run.*"]).await;
    let _worker = scene.worker(&[]).await;
    scene
        .client
        .batch_execute("SELECT klaxon.notify_event('run.failed', project => 'unheard-of')")
        .await
        .unwrap();
    let request = scene.receiver.wait_at("/stray", 1).await.remove(0);
    assert_eq!(request.json()["project"], "unheard-of");
}

#[tokio::test]
async fn an_email_arrives_over_starttls_with_a_login() {
    let mut scene = Scene::set(Database::new()).await;
    let mut mail = scene.mail().await;
    let mut config = mail.channel("ops@example.com");
    config["retry_schedule"] = json!([0]);
    scene.channel("ops", "email", config, &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    mail.refuse_next("451 4.3.0 try again").await;
    scene.emit("run.failed", json!({"run_id": "r9", "failed_tests": 2, "title": "Two tests <broke>"})).await;

    assert!(matches!(mail.next().await, Report::Refused { .. }));
    let message = mail.next_message().await;
    assert!(message.tls);
    assert_eq!(message.user.as_deref(), Some(smtp::USER));
    assert_eq!(
        (message.mail_from.as_str(), &message.rcpt_tos[..]),
        (smtp::USER, &["ops@example.com".to_owned()][..])
    );
    assert_eq!(message.headers["auto-submitted"], "auto-generated");
    assert!(message.headers.contains_key("message-id") && message.headers.contains_key("date"));
    assert!(message.headers["subject"].contains("Two tests <broke>"), "{:?}", message.headers);
    assert!(message.text.is_some_and(|text| text.contains("r9")));
    assert!(
        message
            .html
            .is_some_and(|html| html.contains("Two tests &lt;broke&gt;") && !html.contains("<broke>"))
    );
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    assert_eq!(attempts(&scene).await, [(1, "failed".into(), Some(451)), (2, "sent".into(), Some(250))]);
}

#[tokio::test]
async fn what_fails_twice_succeeds_the_third_time_under_the_same_id() {
    let scene = Scene::set(Database::new()).await;
    let answers = [
        Answer::status(500).body("database\u{7} on fire"),
        Answer::status(503).header("retry-after", "0"),
        Answer::status(204),
    ];
    let hook = Hook::default().secret("plain secret").answers(answers);
    scene.webhook("flaky", hook, json!({"retry_schedule": [0, 0]}), &["task.failed"]).await;
    let _worker = scene.worker(&[]).await;
    scene.emit("task.failed", json!({"task_id": "t1"})).await;

    let requests = scene.receiver.wait_at("/flaky", 3).await;
    assert!(requests.iter().all(|request| request.verified == Some(Ok(()))));
    assert!(requests.iter().all(|request| request.header("webhook-id") == requests[0].header("webhook-id")));
    assert_eq!(
        requests.iter().map(|request| request.json()["attempt"].clone()).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    assert_eq!(
        attempts(&scene).await,
        [(1, "failed".into(), Some(500)), (2, "failed".into(), Some(503)), (3, "sent".into(), Some(204)),]
    );
    let body: String = scene
        .client
        .query_one("SELECT response_body FROM klaxon.delivery WHERE attempt = 1", &[])
        .await
        .unwrap()
        .get(0);
    assert!(body.contains("on fire") && !body.contains('\u{7}'), "{body:?}");
    assert!(scene.client.query("SELECT FROM klaxon.dead_letter", &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_always_fails_is_listed_as_dead_and_can_be_retried() {
    let scene = Scene::set(Database::new()).await;
    let hook = Hook::default().statuses([500, 500, 200]);
    let channel = scene.webhook("down", hook, json!({"retry_schedule": [0]}), &["run.failed"]).await;
    let mut worker = scene.worker(&[]).await;
    let event = scene.emit("run.failed", json!({})).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.dead_letter)").await;
    let row = scene
        .client
        .query_one(
            "SELECT event_id, channel_id, attempts, last_error, event_type FROM klaxon.dead_letter",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (event, channel, 2));
    assert!(row.get::<_, Option<String>>(3).is_some_and(|error| error.contains("500")));
    assert_eq!(attempts(&scene).await, [(1, "failed".into(), Some(500)), (2, "dead".into(), Some(500))]);
    worker.wait_for_log("the dead delivery", |line| *line.field("dead") == json!(true)).await;

    scene.client.batch_execute("SELECT klaxon.retry_dead('down')").await.unwrap();
    until(&scene.client, "EXISTS (SELECT FROM klaxon.delivery WHERE status = 'sent')").await;
    let requests = scene.receiver.wait_at("/down", 3).await;
    assert_eq!(requests[0].header("webhook-id"), requests[2].header("webhook-id"));
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.dead_letter)").await;
}

#[tokio::test]
async fn one_delivery_a_channel_one_row_an_attempt() {
    let scene = Scene::set(Database::new()).await;
    for (name, statuses) in [("a", vec![200]), ("b", vec![500, 200]), ("c", vec![500, 500, 500])] {
        let config = json!({"retry_schedule": [0]});
        scene.webhook(name, Hook::default().statuses(statuses), config, &["task.*"]).await;
    }
    let _worker = scene.worker(&[]).await;
    scene.emit("task.failed", json!({"task_name": "mail"})).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.delivery WHERE kind = 'attempt') AND NOT EXISTS (SELECT FROM klaxon.outbox)")
        .await;
    let shown: String = scene
        .client
        .query_one(
            "SELECT string_agg(channel_name || attempt || status, ' ' ORDER BY channel_name, attempt) FROM klaxon.delivery WHERE kind = 'attempt'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(shown, "a1sent b1failed b2sent c1failed c2dead");
    assert_eq!(scene.receiver.requests().len(), 5);
}

#[tokio::test]
async fn a_malformed_row_is_given_up_and_the_rest_goes_on() {
    let scene = Scene::set(Database::new()).await;
    let channel = scene.webhook("well", Hook::default(), json!({}), &["run.failed"]).await;
    let mut worker = scene.worker(&[]).await;
    scene
        .client
        .execute(
            "INSERT INTO klaxon.outbox (id, event_id, subscription_id, channel_id, shard, event_type, attempts, due_at) VALUES
                 (gen_random_uuid(), gen_random_uuid(), 1, $1, 0, 'run.failed', 0, now()),
                 (gen_random_uuid(), NULL, NULL, $1, 63, 'digest', 0, now()),
                 (gen_random_uuid(), gen_random_uuid(), 1, -7, 5, 'no such type', 0, now()),
                 (gen_random_uuid(), gen_random_uuid(), 1, $1, 9, '', 2147483647, '-infinity')",
            &[&channel],
        )
        .await
        .unwrap();
    until(&scene.client, "(SELECT count(*) FROM klaxon.dead_letter) = 4").await;
    scene.emit("run.failed", json!({"run_id": "after"})).await;
    let request = scene.receiver.wait_at("/well", 1).await.remove(0);
    assert_eq!(request.json()["data"]["run_id"], "after");
    let reasons: i64 = scene
        .client
        .query_one("SELECT count(*) FROM klaxon.dead_letter WHERE reason <> ''", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(reasons, 4);
    worker.signal("TERM");
    assert!(worker.wait().await.success(), "one worker did all of this");
}

#[tokio::test]
async fn sigterm_lets_what_is_on_its_way_arrive_and_exits_0() {
    let scene = Scene::set(Database::new()).await;
    let (hook, release) = Hook::default().held();
    scene.webhook("slow", hook, json!({}), &["run.failed"]).await;
    let mut worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    scene.receiver.wait_at("/slow", 1).await;
    worker.signal("TERM");
    worker.wait_for_log("that it drains", |line| line.message() == "draining").await;
    // What is committed now is the next worker's.
    scene.emit("run.failed", json!({"late": true})).await;
    release.send(true).unwrap();
    assert_eq!(worker.wait().await.code(), Some(0));
    assert_eq!(attempts(&scene).await, [(1, "sent".into(), Some(200))]);
    let pending: i64 =
        scene.client.query_one("SELECT count(*) FROM klaxon.outbox", &[]).await.unwrap().get(0);
    assert_eq!((pending, scene.receiver.requests().len()), (1, 1));
    let workers: i64 =
        scene.client.query_one("SELECT count(*) FROM klaxon.worker", &[]).await.unwrap().get(0);
    assert_eq!(workers, 0, "it took its leave");

    let _next = scene.worker(&[]).await;
    let requests = scene.receiver.wait_at("/slow", 2).await;
    assert_eq!(requests[1].json()["data"], json!({"late": true}));
}

#[tokio::test]
async fn the_worker_outlives_postgres() {
    let cluster = Cluster::start(&[]).unwrap();
    let mut scene = Scene::set(Database::create(&cluster)).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let mut worker = scene.worker(&[]).await;
    for (count, how) in [Stop::Fast, Stop::Immediate].into_iter().enumerate() {
        let served = |worker: &klaxon_tests::worker::Worker| {
            worker.log().iter().filter(|line| line.message() == "owns shards").count()
        };
        let before = served(&worker);
        cluster.stop(how).unwrap();
        worker
            .wait_for_log("that Postgres is gone", |line| {
                line.message() == "cannot reach postgres" && line.field("attempt").as_u64() >= Some(1)
            })
            .await;
        cluster.restart().unwrap();
        scene.client = scene.database.connect().await;
        scene.emit("run.failed", json!({ "count": count })).await;
        let requests = scene.receiver.wait_at("/hook", count + 1).await;
        assert_eq!(requests[count].json()["data"], json!({ "count": count }));
        assert!(served(&worker) > before, "it took its shards anew");
    }
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    assert_eq!(attempts(&scene).await.len(), 2);
    worker.signal("TERM");
    assert_eq!(worker.wait().await.code(), Some(0));
}

#[tokio::test]
async fn the_log_holds_no_secret_and_no_payload() {
    let scene = Scene::set(Database::new()).await;
    let config = json!({"headers": {"Authorization": "Bearer hunter2"}, "retry_schedule": [0]});
    scene
        .webhook("quiet", Hook::default().secret("swordfish").statuses([500]), config, &["run.failed"])
        .await;
    let mut worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({"note": "confidential"})).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.dead_letter)").await;
    worker.signal("TERM");
    worker.wait().await;
    let log = worker.log().iter().map(|line| line.0.to_string()).collect::<String>();
    for secret in ["hunter2", "swordfish", "confidential", "receiver.test/quiet"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    let told: Value = scene
        .client
        .query_one("SELECT to_jsonb(array_agg(d)) FROM klaxon.delivery AS d", &[])
        .await
        .unwrap()
        .get(0);
    assert!(!told.to_string().contains("hunter2") && !told.to_string().contains("swordfish"));
}

#[tokio::test]
async fn a_channel_that_is_gone_is_disabled_and_that_is_an_event() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("gone", Hook::default().answers([Answer::status(410)]), json!({}), &["run.failed"]).await;
    scene.webhook("ops", Hook::default(), json!({}), &["channel.disabled"]).await;
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    let told = scene.receiver.wait_at("/ops", 1).await.remove(0).json();
    assert_eq!((&told["type"], &told["data"]["channel"]), (&json!("channel.disabled"), &json!("gone")));
    until(
        &scene.client,
        "(SELECT NOT enabled AND disabled_reason IS NOT NULL FROM klaxon.channel WHERE name = 'gone')",
    )
    .await;
    scene.emit("run.failed", json!({})).await;
    let pending = "SELECT count(*) FROM klaxon.outbox AS o JOIN klaxon.channel AS c ON c.id = o.channel_id WHERE c.name = 'gone'";
    let pending: i64 = scene.client.query_one(pending, &[]).await.unwrap().get(0);
    assert_eq!(pending, 0, "nothing is matched to it any more");
}
