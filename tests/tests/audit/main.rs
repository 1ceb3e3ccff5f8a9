//! The audit log: what is done to it by somebody with every right in the database is found, and what is done with it
//! every day raises no alarm.

mod attack;
mod everyday;

use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::{Value, json};

/// A scene whose log holds ten attempts, five of them failed with a body, and no running worker.
async fn ten_attempts() -> Scene<'static> {
    let scene = Scene::set(Database::new()).await;
    let answers = [500, 200].repeat(5).into_iter().map(|status| {
        klaxon_tests::receiver::Answer::status(status).body(if status == 500 { "on fire" } else { "" })
    });
    scene
        .webhook("hook", Hook::default().answers(answers), json!({"retry_schedule": [0]}), &["run.failed"])
        .await;
    let mut worker = scene.worker(&["--per-channel", "1"]).await;
    // The scene's own making comes first.
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.config_change)").await;
    for count in 1..=5 {
        scene.emit("run.failed", json!({ "count": count })).await;
        let settled =
            format!("(SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt') = {}", 2 * count);
        until(&scene.client, &settled).await;
    }
    worker.signal("TERM");
    assert!(worker.wait().await.success());
    scene
}

/// The exit status and what `klaxon audit verify --json` says.
async fn verify(scene: &Scene<'_>, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = scene.installation.run(&[&["audit", "verify", "--json"], arguments].concat()).await;
    let said = String::from_utf8_lossy(&output.stdout);
    let verdict = serde_json::from_str(&said).unwrap_or_else(|error| {
        panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code(), verdict)
}

/// Prints a checkpoint to a file. Returns its path and what it says.
async fn checkpoint(scene: &Scene<'_>) -> (String, Value) {
    let output = scene.installation.run(&["audit", "checkpoint", "--json"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = scene.installation.folder().join("checkpoint.json");
    std::fs::write(&file, &output.stdout).unwrap();
    (file.display().to_string(), serde_json::from_slice(&output.stdout).unwrap())
}

/// Has a worker write so many more attempts.
async fn attempts(scene: &Scene<'_>, more: i64) {
    let before: i64 = scene.database.psql("SELECT count(*) FROM klaxon.delivery").parse().unwrap();
    let mut worker = scene.worker(&[]).await;
    for count in 0..more {
        scene.emit("task.failed", json!({ "count": count })).await;
    }
    let settled = format!("(SELECT count(*) FROM klaxon.delivery) >= {}", before + more);
    until(&scene.client, &settled).await;
    worker.signal("TERM");
    assert!(worker.wait().await.success());
}
