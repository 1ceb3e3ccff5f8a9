//! The worker's page, as a browser has it: Chromium, driven by playwright, judged by axe-core. `make setup` installs
//! all three.

use std::path::{Path, PathBuf};

use klaxon_tests::cluster::free_port;
use klaxon_tests::counterpart::{command, folder};
use klaxon_tests::database::Database;
use klaxon_tests::http::{get, request};
use klaxon_tests::limit::within;
use klaxon_tests::receiver::{Answer, Hook};
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

/// The browser; without it nothing is known of the page, and that is no success.
fn chromium() -> PathBuf {
    let found = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let found = found.iter().map(PathBuf::from).find(|path| path.is_file());
    found.expect("Chromium is not there: \"make setup\" installs it, or apt-get install chromium")
}

/// Channels and deliveries such as somebody may find at three in the morning.
async fn night(scene: &Scene<'_>) {
    scene
        .client
        .batch_execute("INSERT INTO klaxon.project (slug, name) VALUES ('billing', 'Billing')")
        .await
        .unwrap();
    // Six hours of a log that goes on: as the worker would have written them, but for the seals.
    scene
        .client
        .batch_execute(
            "INSERT INTO klaxon.event (id, type, project, created_at)
             SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'run.finished', 'billing',
                    now() - interval '350 min' + n * interval '5 s' + 200 * (n % 40 / 39) * interval '1 ms'
             FROM generate_series(1, 4000) AS n WHERE (n / 90) % 7 > n % 4 - 1;
             INSERT INTO klaxon.delivery (seq, delivery_id, attempt, event_id, event_type, project, channel_id, channel_name, channel_kind,
                                          status, attempted_at, chain, key_id, mac, error)
             SELECT h.seq + row_number() OVER (ORDER BY e.id), e.id, 1, e.id, e.type, e.project, 0, 'ops-primary', 'webhook',
                    CASE WHEN e.created_at BETWEEN now() - interval '3 h' AND now() - interval '160 min' AND hashtext(e.id::text) % 3 = 0
                         THEN 'failed' ELSE 'sent' END,
                    e.created_at + interval '8 ms' + (abs(hashtext(e.id::text)) % 50) * interval '1 ms'
                        + CASE WHEN e.created_at > now() - interval '3 h' AND abs(hashtext(e.id::text)) % 37 = 0 THEN interval '14 s' ELSE '0' END,
                    h.chain, 'former', h.mac, NULL
             FROM klaxon.event AS e, klaxon.audit_head AS h;
             UPDATE klaxon.audit_head SET seq = (SELECT max(seq) FROM klaxon.delivery)",
        )
        .await
        .unwrap();
    let gone = Answer::status(404).body("<b>no such hook</b>");
    scene.webhook("ops-primary", Hook::default(), json!({}), &["*"]).await;
    scene.webhook("deploys", Hook::default(), json!({}), &["run.*"]).await;
    scene
        .webhook("legacy", Hook::default().answers([gone]), json!({"retry_schedule": []}), &["task.failed"])
        .await;
    scene
        .webhook(
            "flaky",
            Hook::default().statuses([503]),
            json!({"retry_schedule": [3600]}),
            &["task.failed"],
        )
        .await;
    scene.channel("nowhere", "webhook", json!({"url": "https://10.1.2.3/hook"}), &["agent.offline"]).await;
}

#[tokio::test]
async fn a_browser_shows_it_refreshes_it_and_has_nothing_to_object() {
    let scene = Scene::set(Database::new()).await;
    night(&scene).await;
    let port = free_port().unwrap();
    let mut worker = scene.worker(&["--metrics-addr", &format!("127.0.0.1:{port}")]).await;
    for _ in 0..40 {
        scene.emit("run.failed", json!({})).await;
    }
    for _ in 0..3 {
        scene.emit("task.failed", json!({})).await;
    }
    scene.emit("agent.offline", json!({})).await;
    until(
        &scene.client,
        "(SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt' AND worker IS NOT NULL) >= 40 * 2 + 3 * 3 + 2",
    )
    .await;

    let pictures = std::env::var_os("KLAXON_PICTURES")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures"), PathBuf::from);
    std::fs::create_dir_all(&pictures).unwrap();
    let mut browser = command("node")
        .args(["-e", include_str!("../src/browser.js"), "--"])
        .arg(chromium())
        .arg(format!("http://127.0.0.1:{port}/"))
        .arg(&pictures)
        .spawn()
        .expect("node of target/counterparts: make setup installs it");
    let mut tell = browser.stdin.take().unwrap();
    let mut lines = BufReader::new(browser.stdout.take().unwrap()).lines();
    let mut said = async |what: &str| -> Value {
        let line = within(what, lines.next_line()).await.unwrap().expect("the browser says");
        serde_json::from_str(&line).unwrap()
    };

    let seen = said("the browser to look").await;
    let looks = seen["looks"].as_array().unwrap();
    assert_eq!(looks.len(), 4);
    for look in looks {
        assert_eq!(look["violations"], json!([]), "axe-core: {look}");
        assert_eq!(look["complaints"], json!([]), "the console: {look}");
        assert_eq!((&look["wide"], &look["styled"]), (&json!(false), &json!("15px")), "{look}");
        let requests = look["requests"].as_array().unwrap();
        let own = format!("http://127.0.0.1:{port}/");
        assert!(
            requests.iter().all(|asked| asked == "data:" || *asked == own),
            "nothing from elsewhere: {look}"
        );
    }
    assert_ne!(looks[0]["ground"], looks[2]["ground"], "light is not dark");
    let text = seen["text"].as_str().unwrap();
    for shown in [
        "ops-primary",
        "flaky",
        "legacy",
        "egress refused",
        "given up",
        "will retry",
        "dead letters",
        "failing",
    ] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    assert!(!text.contains("10.1.2.3"), "no address: {text}");

    scene
        .channel("newcomer", "webhook", json!({"url": "https://receiver.test/new"}), &["run.finished"])
        .await;
    tell.write_all(b"go on\n").await.unwrap();
    assert_eq!(said("the browser to refresh").await["kept"], true, "without being loaded again");
    worker.signal("TERM");
    worker.wait().await;
    tell.write_all(b"go on\n").await.unwrap();
    assert_eq!(said("the browser to notice").await["away"], "The worker does not answer");
    assert!(within("the browser to close", browser.wait()).await.unwrap().success());
    assert!(folder().is_dir());
}

#[tokio::test]
async fn only_who_has_the_token_sees_anything() {
    let scene = Scene::set(Database::new()).await;
    let port = free_port().unwrap();
    let wide = format!("0.0.0.0:{port}");
    let refused = scene.run(&["run", "--metrics-addr", &wide]).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("set metrics-token"), "{said}");
    let short = scene.run(&["run", "--metrics-addr", &wide, "--metrics-token", "short"]).await;
    assert!(!short.status.success() && String::from_utf8_lossy(&short.stderr).contains("16 characters"));

    let token = "a-token-of-this-test";
    let _worker = scene.worker(&["--metrics-addr", &wide, "--metrics-token", token]).await;
    for path in ["/", "/metrics", "/elsewhere"] {
        let answer = get(port, path, &[]).await;
        assert_eq!((answer.status, answer.head.contains("www-authenticate: basic")), (401, true), "{path}");
        assert_eq!(get(port, path, &["Authorization: Bearer a-token-of-this-tesu"]).await.status, 401);
    }
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(get(port, "/metrics", &[&bearer]).await.status, 200);
    assert_eq!(get(port, "/", &["Host: worker.example", &bearer]).await.status, 200);
    assert_eq!(get(port, "/", &["Authorization: Basic eDphLXRva2VuLW9mLXRoaXMtdGVzdA=="]).await.status, 200);
    assert_eq!(get(port, "/readyz", &[]).await.status, 200, "a probe has no token");
    let shown: Value =
        scene.client.query_one("SELECT settings FROM klaxon.worker", &[]).await.unwrap().get(0);
    assert_eq!(shown["metrics-token"], "••••••••");
}

#[tokio::test]
async fn it_is_read_only_and_for_this_host() {
    let scene = Scene::set(Database::new()).await;
    let port = free_port().unwrap();
    let _worker = scene.worker(&["--metrics-addr", &format!("127.0.0.1:{port}")]).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(request(method, port, "/", &[]).await.status, 405, "{method}");
    }
    // A page elsewhere whose name is made to lead here.
    assert_eq!(get(port, "/", &["Host: evil.example"]).await.status, 403);
    let answer = get(port, "/", &[]).await;
    assert_eq!(answer.status, 200);
    for header in [
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "frame-ancestors 'none'",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(answer.head.contains(header), "{header} is not in {}", answer.head);
    }
    assert!(!answer.head.contains("unsafe"), "{}", answer.head);
    let head = request("HEAD", port, "/", &[]).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}
