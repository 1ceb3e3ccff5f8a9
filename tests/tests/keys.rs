//! New keys under running workers.

use std::process::Stdio;
use std::time::{Duration, Instant};

use klaxon_tests::cluster::free_port;
use klaxon_tests::database::Database;
use klaxon_tests::http::get;
use klaxon_tests::limit::within;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::{Value, json};

async fn run(scene: &Scene<'_>, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = scene.installation.run(arguments).await;
    let said = String::from_utf8_lossy(&output.stdout);
    let value = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), value)
}

fn lines(scene: &Scene<'_>, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(scene.installation.folder().join(file)).expect("the file reads");
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_rotation_loses_nothing_while_two_workers_deliver() {
    let scene = Scene::set(Database::new()).await;
    for name in ["one", "two", "three"] {
        scene
            .webhook(
                name,
                Hook::default().secret("whsec_c2VjcmV0IG9mIGEgaG9vaw=="),
                json!({}),
                &["run.failed"],
            )
            .await;
    }
    let (mut first, mut second) = (scene.worker(&[]).await, scene.worker(&[]).await);
    let emitting = scene.database.connect().await;
    let emitter = tokio::spawn(async move {
        for n in 0..300 {
            emitting
                .execute("SELECT klaxon.notify_event('run.failed', $1)", &[&json!({ "n": n })])
                .await
                .expect("the event is valid");
        }
    });
    until(&scene.client, "EXISTS (SELECT FROM klaxon.delivery WHERE kind = 'attempt')").await;
    for _ in 0..2 {
        let (code, done) = run(&scene, &["keys", "rotate", "--json"]).await;
        assert_eq!((code, &done["databases"][0]["resealed"]), (Some(0), &json!(3)), "{done}");
        assert_eq!(done["databases"][0]["unopened"], json!(0));
    }
    emitter.await.expect("it does not panic");
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    for name in ["/one", "/two", "/three"] {
        let requests = scene.receiver.wait_at(name, 300).await;
        assert_eq!(requests.len(), 300, "each event arrives once");
        assert!(requests.iter().all(|request| request.verified == Some(Ok(()))), "each is signed");
    }
    let (code, verdict) = run(&scene, &["audit", "verify", "--json"]).await;
    assert_eq!((code, &verdict["findings"]), (Some(0), &json!([])), "{verdict}");
    let rotations: i64 = scene
        .client
        .query_one("SELECT count(*) FROM klaxon.delivery WHERE kind = 'rotation'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(rotations, 2);
    for worker in [&mut first, &mut second] {
        worker.signal("TERM");
        assert!(worker.wait().await.success());
    }

    // Everything is sealed to the newest key: it alone opens the channels.
    assert_eq!((lines(&scene, "secret.key").len(), lines(&scene, "audit.key").len()), (3, 3));
    std::fs::write(scene.installation.folder().join("secret.key"), &lines(&scene, "secret.key")[0]).unwrap();
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    let last = scene.receiver.wait_at("/one", 301).await.pop().unwrap();
    assert_eq!(last.verified, Some(Ok(())));
}

#[tokio::test]
async fn an_interrupted_rotation_is_gone_on_with() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("hook", Hook::default().secret("sesame"), json!({}), &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.delivery WHERE kind = 'attempt')").await;

    // It had come as far as the files.
    for file in ["secret.key", "audit.key"] {
        let path = scene.installation.folder().join(file);
        let former = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{}\n{former}", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="))
            .unwrap();
    }
    // Until it goes on, what is in use stays in use.
    scene.emit("run.failed", json!({})).await;
    scene.receiver.wait_at("/hook", 2).await;
    let (code, done) = run(&scene, &["keys", "rotate", "--json"]).await;
    assert_eq!((code, &done["databases"][0]["resealed"]), (Some(0), &json!(1)));
    assert_eq!(lines(&scene, "secret.key").len(), 2, "no further keys were made");
    scene.emit("run.failed", json!({})).await;
    scene.receiver.wait_at("/hook", 3).await;
    until(&scene.client, "(SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt') = 3").await;
    let (code, verdict) = run(&scene, &["audit", "verify", "--json"]).await;
    assert_eq!((code, &verdict["findings"]), (Some(0), &json!([])), "{verdict}");
}

/// Rotations that are killed wherever they are, as often as `KLAXON_KILLS` says, while events flow.
#[tokio::test]
async fn a_rotation_that_is_killed_anywhere_costs_nothing() {
    let kills = std::env::var("KLAXON_KILLS").map_or(12, |kills| kills.parse().expect("a number"));
    let scene = Scene::set(Database::new()).await;
    let names: Vec<String> = (0..8).map(|n| format!("hook{n}")).collect();
    for name in &names {
        scene.webhook(name, Hook::default().secret("sesame"), json!({}), &["run.failed"]).await;
    }
    let (mut first, mut second) = (scene.worker(&[]).await, scene.worker(&[]).await);
    let emitting = scene.database.connect().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let emitter = tokio::spawn(async move {
        let mut stopped = stopped;
        let mut emitted = 0;
        while stopped.try_recv().is_err() {
            emitting.execute("SELECT klaxon.notify_event('run.failed')", &[]).await.expect("it is valid");
            emitted += 1;
            // Few enough that the slowest machine keeps up.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        emitted
    });

    // How long one takes that nobody disturbs, says where there is something to disturb.
    let begin = Instant::now();
    let (code, _) = run(&scene, &["keys", "rotate", "--json"]).await;
    assert_eq!(code, Some(0));
    let whole = begin.elapsed();
    let mut random = fastrand::Rng::new();
    let (mut killed, mut begun) = (0, 0);
    while killed < kills {
        begun += 1;
        assert!(begun <= 20 * kills, "{killed} of {begun} were killed before they had ended");
        let mut rotation = scene.installation.command(&["keys", "rotate"]);
        let mut rotation =
            rotation.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("klaxon starts");
        tokio::time::sleep(whole.mul_f64(random.f64())).await;
        rotation.start_kill().expect("it is our child");
        killed += usize::from(!within("its end", rotation.wait()).await.expect("it is our child").success());
    }

    let (code, done) = run(&scene, &["keys", "rotate", "--json"]).await;
    assert_eq!((code, &done["databases"][0]["unopened"]), (Some(0), &json!(0)), "{done}");
    // What went on with an interrupted one has renewed nothing: this one has, and everything with it.
    let (code, done) = run(&scene, &["keys", "rotate", "--json"]).await;
    assert_eq!((code, &done["databases"][0]["resealed"]), (Some(0), &json!(names.len())), "{done}");
    stop.send(()).expect("it emits");
    let emitted: usize = emitter.await.expect("it does not panic");
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    for name in &names {
        let requests = scene.receiver.wait_at(&format!("/{name}"), emitted).await;
        assert_eq!(requests.len(), emitted, "each event arrives once at {name}");
        assert!(requests.iter().all(|request| request.verified == Some(Ok(()))), "each is signed");
    }
    for worker in [&mut first, &mut second] {
        worker.signal("TERM");
        assert!(worker.wait().await.success());
    }
    let (code, verdict) = run(&scene, &["audit", "verify", "--json"]).await;
    assert_eq!((code, &verdict["findings"]), (Some(0), &json!([])), "{verdict}");
    for file in ["secret.key", "audit.key"] {
        let mut keys = lines(&scene, file);
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert!(count >= 3 && keys.len() == count, "{file} has each key once");
    }

    // The newest key alone opens everything.
    std::fs::write(scene.installation.folder().join("secret.key"), &lines(&scene, "secret.key")[0]).unwrap();
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    for name in &names {
        let last = scene.receiver.wait_at(&format!("/{name}"), emitted + 1).await.pop().unwrap();
        assert_eq!(last.verified, Some(Ok(())));
    }
}

#[tokio::test]
async fn only_a_superuser_rotates() {
    let scene = Scene::set(Database::new()).await;
    let url = scene.database.worker_url();
    let output = scene.installation.run(&["keys", "rotate", "--database-url", &url]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is a superuser's to set"));
    assert_eq!(lines(&scene, "secret.key").len(), 1, "nothing was written");
}

const OTHERS: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";

#[tokio::test]
async fn a_worker_without_the_logs_key_refuses_to_start() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let mut worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.delivery WHERE kind = 'attempt')").await;
    worker.signal("TERM");
    assert!(worker.wait().await.success());

    let path = scene.installation.folder().join("audit.key");
    let own = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{OTHERS}\n")).unwrap();
    scene.emit("run.failed", json!({})).await;
    let mut worker = scene.start(&["--log-format", "json"]);
    assert_eq!(worker.wait().await.code(), Some(2));
    let key: String =
        scene.client.query_one("SELECT key_id FROM klaxon.audit_head", &[]).await.unwrap().get(0);
    let output = scene.run(&["run"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in [&format!("under key {key}"), "audit-key-file", "restore"] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    assert_eq!(scene.receiver.wait_at("/hook", 1).await.len(), 1, "it sent nothing");

    // Beside its own it harms nothing: the log goes on under the key that it is under.
    std::fs::write(&path, format!("{OTHERS}\n{own}")).unwrap();
    let _worker = scene.worker(&[]).await;
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    assert_eq!(scene.receiver.wait_at("/hook", 2).await.len(), 2);
}

#[tokio::test]
async fn a_worker_that_has_not_got_the_new_keys_leaves_and_waits_for_them() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let port = free_port().unwrap();
    let mut worker = scene.worker(&["--metrics-addr", &format!("127.0.0.1:{port}")]).await;
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.delivery WHERE kind = 'attempt')").await;

    // As another host sees it that the new files have not reached.
    let files = ["secret.key", "audit.key"].map(|file| scene.installation.folder().join(file));
    let former = files.each_ref().map(|path| std::fs::read_to_string(path).unwrap());
    let (code, _) = run(&scene, &["keys", "rotate", "--json"]).await;
    assert_eq!(code, Some(0));
    let new = files.each_ref().map(|path| std::fs::read_to_string(path).unwrap());
    let write = |texts: &[String; 2]| {
        files.iter().zip(texts).for_each(|(path, text)| std::fs::write(path, text).unwrap());
    };
    write(&former);
    scene.emit("run.failed", json!({})).await;
    worker
        .wait_for_log("that it waits for the keys", |line| {
            line.message() == "waiting for the deployment's keys"
        })
        .await;
    until(
        &scene.client,
        "NOT EXISTS (SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
                     WHERE l.locktype = 'advisory' AND d.datname = current_database())",
    )
    .await;
    assert_eq!(get(port, "/readyz", &[]).await.status, 503);
    scene.emit("run.failed", json!({})).await;

    write(&new);
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    assert_eq!(scene.receiver.wait_at("/hook", 3).await.len(), 3, "each event arrives once");
    worker.signal("TERM");
    assert!(worker.wait().await.success());
    let (code, verdict) = run(&scene, &["audit", "verify", "--json"]).await;
    assert_eq!((code, &verdict["findings"]), (Some(0), &json!([])), "{verdict}");
}
