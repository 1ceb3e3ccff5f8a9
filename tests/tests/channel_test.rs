//! `CALL klaxon.test_channel()`: through the real worker, and what it says where that fails.

use klaxon_tests::database::Database;
use klaxon_tests::limit::within;
use klaxon_tests::receiver::{Answer, Hook};
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use klaxon_tests::worker::binary;
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

type Told = (bool, Option<i32>, Option<String>, Option<String>);

async fn test(client: &Client, channel: &str) -> Told {
    let row = within("the answer", client.query_one(&format!("CALL klaxon.test_channel('{channel}')"), &[]))
        .await
        .unwrap();
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

#[tokio::test]
async fn a_test_goes_the_way_of_every_delivery_and_is_logged() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("good", Hook::default().secret("sesame"), json!({}), &["*"]).await;
    let answers = [Answer::status(500).body("on fire")];
    scene
        .webhook("bad", Hook::default().answers(answers), json!({"retry_schedule": [0, 0]}), &["run.failed"])
        .await;
    let _worker = scene.worker(&[]).await;

    assert_eq!(test(&scene.client, "good").await, (true, Some(200), None, None));
    let arrived = scene.receiver.wait_at("/good", 1).await.remove(0);
    assert_eq!(arrived.verified, Some(Ok(())));
    assert_eq!(
        (&arrived.json()["type"], &arrived.json()["data"]["channel"]),
        (&json!("test.dispatch"), &json!("good"))
    );

    let (success, code, error, body) = test(&scene.client, "bad").await;
    assert_eq!((success, code, body.as_deref()), (false, Some(500), Some("on fire")));
    assert!(error.is_some());

    until(&scene.client, "(SELECT count(*) FROM klaxon.delivery WHERE event_type = 'test.dispatch') = 2")
        .await;
    let left: i64 = scene
        .client
        .query_one(
            "SELECT (SELECT count(*) FROM klaxon.outbox) + (SELECT count(*) FROM klaxon.dead_letter)",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0, "a test is tried once, and nobody else hears of it");

    let unknown = scene.client.batch_execute("CALL klaxon.test_channel('nowhere')").await.unwrap_err();
    assert_eq!(unknown.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    for _ in 0..8 {
        test(&scene.client, "good").await;
    }
    let eleventh = scene.client.batch_execute("CALL klaxon.test_channel('good')").await.unwrap_err();
    assert_eq!(eleventh.code(), Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED));
}

#[tokio::test]
async fn without_a_worker_a_test_fails_within_fifteen_seconds() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let begun = std::time::Instant::now();
    let (success, code, error, _) = test(&scene.client, "hook").await;
    assert_eq!((success, code, error.as_deref()), (false, None, Some("no worker has answered within 15 s")));
    assert!((15..25).contains(&begun.elapsed().as_secs()));
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    let arrived = scene.receiver.wait_at("/hook", 1).await.remove(0);
    assert_eq!(
        arrived.json()["type"],
        json!("run.failed"),
        "nobody waits for the test any more, and it is not sent"
    );
}

#[tokio::test]
async fn the_command_tests_what_is_saved_and_what_is_not() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("good", Hook::default(), json!({}), &["run.failed"]).await;
    let worker = scene.worker(&[]).await;
    let told = scene.installation.run(&["test", "--channel", "good", "--json"]).await;
    let said: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(
        (told.status.code(), &said["success"], &said["status_code"]),
        (Some(0), &json!(true), &json!(200))
    );
    let told = scene.installation.run(&["test", "--channel", "nowhere"]).await;
    assert_eq!(told.status.code(), Some(2), "{}", String::from_utf8_lossy(&told.stderr));
    drop(worker);

    let unsaved = async |config: serde_json::Value, flags: &[String]| {
        let file = scene.installation.folder().join("channel.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let output = tokio::process::Command::new(binary())
            .current_dir(scene.installation.folder())
            .args(["test", "--json", "--kind", "webhook", "--config"])
            .arg(file)
            .args(flags)
            .output()
            .await
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let url = scene.receiver.serve("/unsaved", Hook::default().secret("sesame"));
    let config = json!({"url": url, "hmac_secret": "sesame"});
    let flags: Vec<String> = [
        "--egress-allow",
        "127.0.0.1/32",
        "--ca-file",
        &scene.authority.file().display().to_string(),
        "--connect-to",
        &scene.receiver.connect_to(),
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(unsaved(config.clone(), &flags).await.0, Some(0));
    assert_eq!(scene.receiver.wait_at("/unsaved", 1).await.remove(0).verified, Some(Ok(())));
    // The same guard: what the operator has not allowed is not dialled.
    let (code, said) = unsaved(config, &flags[2..]).await;
    assert!(code == Some(1) && said.contains("egress refused"), "{said}");
    let (code, said) = unsaved(json!({"url": url, "colour": "red"}), &flags).await;
    assert!(code == Some(2) && said.contains("colour"), "{said}");
    let logged = "SELECT count(*) FROM klaxon.delivery WHERE event_type = 'test.dispatch'";
    let logged: i64 = scene.client.query_one(logged, &[]).await.unwrap().get(0);
    assert_eq!(logged, 1, "a test of what is not saved is not logged");
}

#[tokio::test]
async fn a_configuration_is_tested_without_being_saved_or_logged() {
    let scene = Scene::set(Database::new()).await;
    let _worker = scene.worker(&[]).await;
    let url = scene.receiver.serve("/hook", Hook::default().secret("sesame"));
    let gone = scene.receiver.serve("/gone", Hook::default().answers([Answer::status(410).body("no more")]));
    let call = async |config: serde_json::Value| {
        let call = format!("CALL klaxon.test_config('webhook', '{config}')");
        let row = within("the answer", scene.client.query_one(&call, &[])).await.unwrap();
        (row.get::<_, bool>(0), row.get::<_, Option<i32>>(1), row.get::<_, Option<String>>(3))
    };
    assert_eq!(call(json!({"url": url, "hmac_secret": "sesame"})).await, (true, Some(200), None));
    assert_eq!(scene.receiver.wait_at("/hook", 1).await.remove(0).verified, Some(Ok(())));
    assert_eq!(call(json!({"url": gone})).await, (false, Some(410), Some("no more".into())));
    let row = scene
        .client
        .query_one("CALL klaxon.test_config('webhook', '{\"url\": \"https://10.0.0.1/\"}')", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, Option<&str>>(2), Some("egress refused: target refused by policy"));

    let left: i64 = scene
        .client
        .query_one(
            "SELECT (SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt') + (SELECT count(*) FROM klaxon.config_test)
                  + (SELECT count(*) FROM klaxon.channel) + (SELECT count(*) FROM klaxon.event)",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0, "nothing is kept of it");
    let invalid = scene
        .client
        .batch_execute("CALL klaxon.test_config('webhook', '{\"colour\": 1}')")
        .await
        .unwrap_err();
    assert_eq!(invalid.code(), Some(&SqlState::INVALID_PARAMETER_VALUE));
}

#[tokio::test]
async fn a_test_that_cannot_be_made_says_why_at_once() {
    let scene = Scene::set(Database::new()).await;
    for name in ["one", "two", "off"] {
        scene.webhook(name, Hook::default().secret("sesame"), json!({}), &["run.failed"]).await;
    }
    // Sealed for another channel.
    scene
        .client
        .batch_execute(
            "UPDATE klaxon.channel_secret AS s SET sealed = o.sealed
             FROM klaxon.channel_secret AS o, klaxon.channel AS c, klaxon.channel AS d
             WHERE c.id = s.channel_id AND c.name = 'two' AND d.id = o.channel_id AND d.name = 'one' AND o.field = s.field;
             UPDATE klaxon.channel SET enabled = false WHERE name = 'off'",
        )
        .await
        .unwrap();
    let _worker = scene.worker(&[]).await;
    assert!(test(&scene.client, "one").await.0);

    let (success, code, error, _) = test(&scene.client, "two").await;
    assert_eq!((success, code), (false, None));
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.dead_letter)").await;
    let dead = scene.client.query_one("SELECT last_error FROM klaxon.dead_letter", &[]).await.unwrap();
    assert_eq!(error, dead.get(0), "as the dead letter of a delivery there says");
    assert!(error.is_some_and(|error| !error.contains("no worker")));

    let disabled = test(&scene.client, "off").await;
    assert_eq!(disabled, (false, None, Some("channel is disabled".into()), None));
    let left = "SELECT (SELECT count(*) FROM klaxon.outbox WHERE event_type = 'test.dispatch')
                     + (SELECT count(*) FROM klaxon.dead_letter WHERE event_type = 'test.dispatch')";
    assert_eq!(scene.client.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}
