//! What an administrator asks on the shell: `klaxon status`, `klaxon doctor`.

use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::{Value, json};

/// Exit status and the objects that were printed, one a line.
async fn told(scene: &Scene<'_>, command: &str) -> (Option<i32>, Vec<Value>) {
    let output = scene.run(&[command, "--json"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let objects: Vec<Value> = lines.collect();
    assert!(!objects.is_empty(), "{command}: {said}");
    (output.status.code(), objects)
}

/// What the doctor says of a check, in the order in which it was said.
fn found<'f>(findings: &'f [Value], check: &str) -> Vec<(&'f str, &'f str)> {
    let of = findings.iter().filter(|finding| finding["check"] == check);
    of.map(|finding| (finding["level"].as_str().unwrap(), finding["detail"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn status_says_at_a_glance_whether_it_works() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("ops", Hook::default(), json!({}), &["*"]).await;
    let broken = json!({"url": "https://receiver.test/gone", "retry_schedule": []});
    scene.channel("gone", "webhook", broken, &["task.failed"]).await;
    let (code, objects) = told(&scene, "status").await;
    assert_eq!((code, &objects[0]["ok"]), (Some(1), &json!(false)));
    assert_eq!(objects[0]["status"]["workers"], 0);
    assert_eq!(objects[0]["warnings"], json!(["no worker is alive: run \"klaxon run\""]));

    let _worker = scene.worker(&[]).await;
    until(
        &scene.client,
        "EXISTS (SELECT FROM klaxon.worker WHERE notified_at IS NOT NULL AND shards <> '{}')",
    )
    .await;
    let (code, objects) = told(&scene, "status").await;
    assert_eq!((code, &objects[0]["warnings"]), (Some(0), &json!([])));
    assert_eq!(objects[0]["workers"][0]["shards"], 64);

    scene.emit("task.failed", json!({})).await;
    until(&scene.client, "(SELECT count(*) FROM klaxon.channel_state WHERE last_success_at IS NOT NULL OR failing_since IS NOT NULL) = 2").await;
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let (code, objects) = told(&scene, "status").await;
    let channels = objects[0]["channels"].as_array().unwrap();
    assert_eq!((code, channels.len(), &channels[0]["name"]), (Some(1), 1, &json!("gone")));
    assert_eq!(objects[0]["status"]["sent_last_hour"], 1);

    let shown = scene.run(&["status"]).await;
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("sent last hour") && text.contains("warning: 1 channel is failing"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours where there is no terminal: {text}");
}

#[tokio::test]
async fn doctor_names_what_is_wrong_and_what_mends_it() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("ops", Hook::default(), json!({}), &["*"]).await;
    scene
        .client
        .batch_execute(
            r#"INSERT INTO klaxon.channel (name, kind, config) VALUES
                   ('inner', 'webhook', '{"url": "https://10.0.0.1/x"}'),
                   ('port', 'webhook', '{"url": "https://receiver.test:8443/x"}'),
                   ('mail', 'email', '{"to_addrs": ["ann@example.com"]}');
               CREATE PUBLICATION everything FOR TABLE klaxon.event;
               SET session_replication_role = replica;
               INSERT INTO klaxon.member (project, principal) VALUES ('nowhere', 'ann'), ('nowhere', 'bob');
               RESET session_replication_role;
               ALTER TABLE klaxon.outbox SET (autovacuum_enabled = false)"#,
        )
        .await
        .unwrap();
    let (code, findings) = told(&scene, "doctor").await;
    assert_eq!(code, Some(1));
    for check in
        ["secret-key-file", "audit-key-file", "postgres", "deployment", "role", "versions", "session"]
    {
        assert_eq!(
            found(&findings, check).iter().map(|(level, _)| *level).collect::<Vec<_>>(),
            ["ok"],
            "{check}"
        );
    }
    let mut egress = found(&findings, "egress");
    egress.sort_unstable();
    assert_eq!(
        egress,
        [
            ("failure", "https://10.0.0.1:443 of channel inner: egress refused: target refused by policy"),
            (
                "failure",
                "https://receiver.test:8443 of channel port: egress refused: port 8443 is not allowed"
            ),
            ("ok", "https://receiver.test:443 of channel ops answers"),
        ]
    );
    assert_eq!(
        found(&findings, "channel"),
        [("failure", "mail has no mail server, and the worker has none either")]
    );
    assert_eq!(found(&findings, "autovacuum"), [("warning", "is off for klaxon.outbox")]);
    assert_eq!(
        found(&findings, "references"),
        [("warning", "rows point nowhere: 2 of klaxon.member by project, which is not in klaxon.project")]
    );
    assert!(found(&findings, "logical replication")[0].1.contains("publication everything"));
    assert_eq!(found(&findings, "workers")[0].0, "warning");
    assert_eq!(found(&findings, "shards"), [("ok", "nobody but workers has their locks")]);
    let mend = findings.iter().find(|finding| finding["check"] == "autovacuum").unwrap();
    assert_eq!(mend["mend"], "ALTER TABLE klaxon.outbox RESET (autovacuum_enabled)");
    assert!(scene.receiver.requests().is_empty(), "the host was asked, and nothing was sent to it");

    let stranger = scene.database.connect().await;
    stranger
        .batch_execute(
            "SELECT pg_advisory_lock(x'6b6c6178'::integer, shard) FROM generate_series(4, 5) AS shard",
        )
        .await
        .unwrap();
    let pid: i32 = stranger.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let (_, findings) = told(&scene, "doctor").await;
    let shards = found(&findings, "shards")[0];
    assert!(shards.0 == "failure" && shards.1.starts_with(&format!("process {pid} of role")), "{shards:?}");
    assert!(shards.1.contains("has the locks of 2: nobody"), "{shards:?}");
    drop(stranger);

    scene.client.batch_execute("UPDATE klaxon.deployment SET id = gen_random_uuid()").await.unwrap();
    let (_, findings) = told(&scene, "doctor").await;
    let deployment = found(&findings, "deployment")[0];
    assert!(deployment.0 == "failure" && deployment.1.contains("not to"), "{deployment:?}");
    let mend = findings.iter().find(|finding| finding["check"] == "deployment").unwrap();
    assert!(mend["mend"].as_str().unwrap().starts_with("\"klaxon adopt\""), "{mend}");

    std::fs::remove_file(scene.installation.folder().join("audit.key")).unwrap();
    let (_, findings) = told(&scene, "doctor").await;
    assert_eq!(found(&findings, "audit-key-file")[0].0, "failure");
}
