//! A copied database pages nobody until somebody adopts it; what is sealed by hand opens.

use std::process::Stdio;

use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use klaxon_tests::worker::{self, Installation};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

/// Ends with success, or shows what it said. Returns that.
async fn adopt(installation: &Installation, url: &str) -> String {
    let output = installation.run(&["adopt", "--database-url", url]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_copy_is_adopted_by_who_has_no_configuration_yet() {
    let scene = Scene::set(Database::new()).await;
    let config = json!({});
    scene.webhook("hook", Hook::default().secret("kept"), config, &["run.failed"]).await;
    scene.emit("run.failed", json!({})).await;

    // Nobody's configuration is there: it is written, with keys that open nothing of the former's.
    let staging = Installation::empty();
    let said = adopt(&staging, &scene.database.url()).await;
    assert!(said.contains("1 pending deliveries were dropped"), "{said}");
    assert!(said.contains("former deployment's key opens: 1"), "{said}");
    assert_eq!(scene.database.psql("SELECT count(*) FROM klaxon.outbox"), "0");
    let again = adopt(&staging, &scene.database.url()).await;
    assert!(again.contains("already"), "{again}");

    let output = scene.installation.run(&["run", "--database-url", &scene.database.worker_url()]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("klaxon adopt"), "{said}");
    let mut worker = staging.start(&["--database-url".into(), scene.database.worker_url()]);
    worker.ready().await;
}

/// What `klaxon audit verify --json` says of a database.
async fn verify(installation: &Installation, url: &str) -> (Option<i32>, serde_json::Value) {
    let output = installation.run(&["audit", "verify", "--json", "--database-url", url]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    let verdict = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), verdict)
}

/// Emits an event and waits until it is settled.
async fn settle(scene: &Scene<'_>) {
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.delivery WHERE kind = 'attempt')").await;
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
}

#[tokio::test]
async fn the_log_of_a_copy_goes_on_and_says_who_wrote_what() {
    let scene = Scene::set(Database::new()).await;
    let url = scene.database.url();
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let mut former = scene.worker(&[]).await;
    settle(&scene).await;
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.config_change)").await;
    former.signal("TERM");
    assert!(former.wait().await.success());
    let theirs: i64 = scene.database.psql("SELECT seq FROM klaxon.audit_head").parse().unwrap();

    let staging = Installation::empty();
    adopt(&staging, &url).await;
    let (code, verdict) = verify(&staging, &url).await;
    assert_eq!((code, &verdict["verdict"]), (Some(0), &json!("unanchored")), "{verdict}");
    assert_eq!(verdict["not_ours"], json!({"first_seq": 1, "last_seq": theirs}), "{verdict}");

    // The adopter's worker writes to it, and signs where it ends.
    let flags = [
        ("--database-url", scene.database.worker_url()),
        ("--egress-allow", "127.0.0.1/32".into()),
        ("--connect-to", scene.receiver.connect_to()),
        ("--ca-file", scene.authority.file().display().to_string()),
    ];
    let flags: Vec<String> = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
    let mut worker = staging.start(&flags);
    worker.ready().await;
    scene.emit("run.failed", json!({})).await;
    let attempts = "(SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt' AND status = 'sent') = 2";
    until(&scene.client, attempts).await;
    worker.signal("TERM");
    assert!(worker.wait().await.success());
    let checkpoint = staging.run(&["audit", "checkpoint", "--json", "--database-url", &url]).await;
    assert!(checkpoint.status.success(), "{}", String::from_utf8_lossy(&checkpoint.stderr));
    let (code, verdict) = verify(&staging, &url).await;
    assert_eq!((code, &verdict["findings"]), (Some(0), &json!([])), "{verdict}");
    let plain = staging.run(&["audit", "verify", "--database-url", &url]).await;
    let plain = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(plain.contains(&format!("rows 1 to {theirs} were sealed by the deployment")), "{plain}");

    // With the former key beside its own it verifies all of it.
    let key = |installation: &Installation| installation.folder().join("audit.key");
    let (own, former) =
        (std::fs::read_to_string(key(&staging)), std::fs::read_to_string(key(&scene.installation)));
    std::fs::write(key(&staging), own.unwrap() + &former.unwrap()).unwrap();
    let (code, verdict) = verify(&staging, &url).await;
    assert_eq!(
        (code, &verdict["findings"], &verdict["not_ours"]),
        (Some(0), &json!([]), &json!(null)),
        "{verdict}"
    );

    // What is changed of either part is found.
    for seq in [2, theirs + 2] {
        scene.client.batch_execute("CREATE TABLE log AS TABLE klaxon.delivery").await.unwrap();
        let edit = "UPDATE klaxon.delivery SET detail = coalesce(detail, '') || ' ' WHERE seq = $1";
        scene.client.execute(edit, &[&seq]).await.unwrap();
        let (code, verdict) = verify(&staging, &url).await;
        let found = &verdict["findings"];
        assert_eq!(
            (code, &found[0]["kind"], &found[0]["seq"]),
            (Some(1), &json!("altered"), &json!(seq)),
            "{verdict}"
        );
        let restore = "TRUNCATE klaxon.delivery; INSERT INTO klaxon.delivery TABLE log; DROP TABLE log";
        scene.client.batch_execute(restore).await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_with_the_same_keys_has_a_chain_of_its_own() {
    let scene = Scene::set(Database::new()).await;
    let url = scene.database.url();
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let mut former = scene.worker(&[]).await;
    settle(&scene).await;
    former.signal("TERM");
    assert!(former.wait().await.success());
    let chain = scene.database.psql("SELECT chain FROM klaxon.audit_head");

    // A copied configuration as well: it is another deployment by its id alone.
    let id = scene.database.psql("SELECT id FROM klaxon.deployment");
    let config = std::fs::read_to_string(scene.installation.config()).unwrap();
    let other = config.replace(&id, "5f0c9d3e-0000-4000-8000-000000000001");
    assert_ne!(other, config);
    std::fs::write(scene.installation.config(), other).unwrap();
    adopt(&scene.installation, &url).await;
    assert_ne!(scene.database.psql("SELECT chain FROM klaxon.audit_head"), chain);
    let mut worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "(SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt') = 2").await;
    worker.signal("TERM");
    assert!(worker.wait().await.success());
    let (code, verdict) = verify(&scene.installation, &url).await;
    assert_eq!(
        (code, &verdict["findings"], &verdict["not_ours"]),
        (Some(0), &json!([]), &json!(null)),
        "{verdict}"
    );

    // What the copy wrote is no continuation of the original.
    let original = format!(
        "DELETE FROM klaxon.delivery WHERE kind = 'adoption'; UPDATE klaxon.audit_head SET chain = '{chain}'"
    );
    scene.client.batch_execute(&original).await.unwrap();
    let (code, verdict) = verify(&scene.installation, &url).await;
    let foreign = verdict["findings"].as_array().unwrap().iter().any(|found| found["kind"] == "foreign");
    assert!(code == Some(1) && foreign, "{verdict}");
}

#[tokio::test]
async fn a_worker_of_the_former_deployment_is_ended() {
    let scene = Scene::set(Database::new()).await;
    let mut former = scene.worker(&[]).await;
    adopt(&Installation::empty(), &scene.database.url()).await;
    assert_eq!(former.wait().await.code(), Some(2));
    assert_eq!(scene.database.psql("SELECT count(*) FROM klaxon.worker"), "0");
}

#[tokio::test]
async fn what_was_nobodys_keeps_what_it_has_pending() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    scene.emit("run.failed", json!({})).await;
    scene.client.batch_execute("UPDATE klaxon.deployment SET id = NULL").await.unwrap();
    adopt(&scene.installation, &scene.database.url()).await;
    assert_eq!(scene.database.psql("SELECT count(*) FROM klaxon.outbox"), "1");
}

#[tokio::test]
async fn init_claims_all_databases_or_none() {
    let (first, second) = (Database::new(), Database::new());
    let installation = Installation::empty();
    // The second may not be claimed by the worker's role.
    let (good, bad) = (first.url(), second.worker_url());
    let output = installation.run(&["init", "--database-url", &good, "--database-url", &bad]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(first.psql("SELECT count(*) FROM klaxon.deployment"), "0");
    assert_eq!(std::fs::read_dir(installation.folder()).unwrap().count(), 0, "nothing was written");

    let both = ["init", "--json", "--database-url", &good, "--database-url", &second.url()];
    let output = installation.run(&both).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for database in [first, second] {
        assert_eq!(database.psql("SELECT id FROM klaxon.deployment"), made["deployment_id"]);
    }
}

#[tokio::test]
async fn a_secret_sealed_by_hand_signs_what_is_sent() {
    let scene = Scene::set(Database::new()).await;
    let mut seal = worker::command();
    seal.arg("seal").arg("--config").arg(scene.installation.config());
    let mut seal = seal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    seal.stdin.take().unwrap().write_all(b"by hand\n").await.unwrap();
    let sealed = String::from_utf8(seal.wait_with_output().await.unwrap().stdout).unwrap();
    assert!(sealed.starts_with("sealed:v1:"), "{sealed}");

    let url = scene.receiver.serve("/hand", Hook::default().secret("by hand"));
    let config = json!({"url": url, "hmac_secret": sealed.trim_end()});
    scene.channel("hand", "webhook", config, &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "(SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt') > 0").await;
    assert_eq!(
        scene.database.psql("SELECT status, error FROM klaxon.delivery WHERE kind = 'attempt' LIMIT 1"),
        "sent|"
    );
    assert_eq!(scene.receiver.wait_at("/hand", 1).await.remove(0).verified, Some(Ok(())));
}
