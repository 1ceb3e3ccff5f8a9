//! What Prometheus and an orchestrator ask of the worker.

use klaxon_tests::cluster::free_port;
use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Status line and the rest.
async fn get(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

#[tokio::test]
async fn attempts_are_counted_and_readiness_is_told() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("counted", Hook::default(), json!({}), &["run.*"]).await;
    scene.webhook("gone", Hook::default().statuses([500]), json!({"retry_schedule": []}), &["run.*"]).await;
    let port = free_port().unwrap();
    let _worker = scene.worker(&["--metrics-addr", &format!("127.0.0.1:{port}")]).await;
    assert_eq!(get(port, "/healthz").await.0, "HTTP/1.1 200 OK");
    assert_eq!(get(port, "/readyz").await.0, "HTTP/1.1 200 OK");
    assert_eq!(get(port, "/elsewhere").await.0, "HTTP/1.1 404 Not Found");

    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "(SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt') = 2").await;
    let (_, metrics) = get(port, "/metrics").await;
    for line in [
        "klaxon_attempts_total{kind=\"webhook\",outcome=\"sent\"} 1",
        "klaxon_attempts_total{kind=\"webhook\",outcome=\"dead\"} 1",
        "klaxon_attempt_duration_seconds_count{kind=\"webhook\"} 2",
        "klaxon_databases_served 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}
