//! `klaxon preview`: what would be sent, and no secret.

use klaxon_tests::database::Database;
use klaxon_tests::scene::Scene;
use serde_json::{Value, json};

/// Exit status, and what was printed.
async fn preview(scene: &Scene<'_>, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments: Vec<_> = ["preview"].iter().chain(arguments).copied().collect();
    let told = scene.installation.run(&arguments).await;
    (told.status.code(), String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned())
}

#[tokio::test]
async fn a_preview_is_the_message_by_its_template_and_shows_no_secret() {
    let scene = Scene::set(Database::new()).await;
    scene
        .client
        .batch_execute(
            r#"INSERT INTO klaxon.project (slug, name, url) VALUES ('billing', 'Billing', 'https://ci.example.com/b'), ('fleet', 'Fleet', NULL);
               INSERT INTO klaxon.channel (name, kind, config, project) VALUES
                   ('ops', 'slack', '{"webhook_url": "https://hooks.slack.com/services/T1/B1/t0psecret"}', NULL),
                   ('ops', 'pagerduty', '{"integration_key": "0123456789abcdef0123456789abcdef"}', 'billing'),
                   ('own', 'ntfy', '{"url": "https://ntfy.example.com", "topic": "ops", "token": "tk_t0psecret",
                                     "template": {"title": "{{ data.task_name }} broke"}}', NULL),
                   ('mail', 'email', '{"smtp_host": "mail.example.com", "smtp_user": "k@example.com", "smtp_pass": "t0psecret",
                                       "to_addrs": ["ann@example.com"]}', NULL)"#,
        )
        .await
        .unwrap();

    let (code, shown) = preview(&scene, &["--channel", "ops", "--event", "run.failed"]).await;
    assert!(
        code == Some(0) && shown.starts_with("POST [secret]\ncontent-type: application/json\n"),
        "{shown}"
    );
    assert!(shown.contains("Test run failed") && !shown.contains("t0psecret"), "{shown}");

    // Of a project its own channel comes first, and where it has none a global one.
    let arguments = ["--channel", "ops", "--event", "task.failed", "--project", "billing", "--json"];
    let (code, shown) = preview(&scene, &arguments).await;
    let said: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &said["url"]), (Some(0), &json!("https://events.pagerduty.com/v2/enqueue")));
    assert_eq!(said["body"]["routing_key"], "[secret]");
    assert_eq!(said["body"]["payload"]["source"], "billing");
    let (_, shown) =
        preview(&scene, &["--channel", "ops", "--event", "task.failed", "--project", "fleet"]).await;
    assert!(shown.contains("Fleet") && shown.contains("\"blocks\""), "{shown}");

    let file = scene.installation.folder().join("payload.json");
    std::fs::write(&file, r#"{"task_name": "report"}"#).unwrap();
    let file = file.display().to_string();
    let (_, shown) =
        preview(&scene, &["--channel", "own", "--event", "task.failed", "--payload", &file]).await;
    assert!(shown.contains("\"title\": \"report broke\"") && shown.contains("Bearer [secret]"), "{shown}");

    let (code, shown) = preview(&scene, &["--channel", "mail", "--event", "digest"]).await;
    assert!(code == Some(0) && shown.starts_with("MAIL mail.example.com:587\n"), "{shown}");
    assert!(shown.contains("Subject: Digest: 25 events") && !shown.contains("t0psecret"), "{shown}");

    std::fs::write(&file, "no json").unwrap();
    for (arguments, says) in [
        (vec!["--channel", "nowhere", "--event", "run.failed"], "there is no channel \"nowhere\""),
        (vec!["--channel", "ops", "--event", "run.faild"], "there is no event type \"run.faild\""),
        (vec!["--channel", "ops", "--event", "a b"], "\"a b\" is no event type"),
        (vec!["--channel", "ops", "--event", "run.failed", "--project", "x"], "there is no project \"x\""),
        (vec!["--channel", "ops", "--event", "run.failed", "--payload", &file], "the payload is no JSON"),
    ] {
        let (code, said) = preview(&scene, &arguments).await;
        assert!(code == Some(2) && said.contains(says), "{said}");
    }
    let sent: i64 = scene
        .client
        .query_one("SELECT count(*) FROM klaxon.delivery WHERE attempt > 0", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(sent, 0, "a preview sends nothing");
}
