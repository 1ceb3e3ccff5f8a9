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
