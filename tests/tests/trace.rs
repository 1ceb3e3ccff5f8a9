//! A trace goes from the event to its attempts, and on to a webhook's receiver; and whoever collects it can be away
//! without anybody noticing.

use std::net::Ipv4Addr;

use klaxon_tests::cluster::free_port;
use klaxon_tests::collector::{Collector, ENDPOINT, HEADERS};
use klaxon_tests::database::{Database, EMITTER_ROLE};
use klaxon_tests::http::get;
use klaxon_tests::limit::within;
use klaxon_tests::receiver::{Hook, Request};
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use klaxon_tests::worker::Worker;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c803100-b7ad6b7169203331-00";
/// In a channel's URL and in what its receiver answers: nothing of it is anybody else's.
const SECRET: &str = "hunter2hunter2";

/// A worker that exports its spans to a collector.
async fn traced(scene: &mut Scene<'_>, answers: &[u16], flags: &[&str]) -> (Collector, Worker) {
    let collector = Collector::start(&scene.authority, answers).await;
    scene.connect(collector.connect_to());
    // One by a flag, one by the name that all programs know it by.
    scene.environment("OTEL_EXPORTER_OTLP_HEADERS", HEADERS);
    let flags: Vec<_> = ["--otlp-endpoint", ENDPOINT].iter().chain(flags).copied().collect();
    let worker = scene.worker(&flags).await;
    (collector, worker)
}

/// Emits in a session whose setting is this.
async fn emit_in(scene: &Scene<'_>, traceparent: &str, payload: Value) -> Uuid {
    scene
        .client
        .batch_execute(&format!("SET klaxon.traceparent = '{traceparent}'"))
        .await
        .expect("whatever it is, it is no error");
    let id = scene.emit("run.failed", payload).await;
    scene.client.batch_execute("RESET klaxon.traceparent").await.unwrap();
    id
}

async fn sent(scene: &Scene<'_>, count: usize) {
    until(&scene.client, &format!("(SELECT count(*) >= {count} FROM klaxon.delivery WHERE status = 'sent')"))
        .await;
}

/// The header's trace and span.
fn told(request: &Request) -> (&str, &str) {
    let header = request.header("traceparent");
    let fields: Vec<&str> = header.split('-').collect();
    assert!(fields.len() == 4 && fields[0] == "00", "{header}");
    (fields[1], fields[2])
}

fn attribute<'a>(span: &'a Value, name: &str) -> &'a Value {
    &span["attributes"][name]
}

fn count_of(metrics: &str, outcome: &str) -> u64 {
    let series = format!("klaxon_spans_total{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&series)).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn an_event_and_its_attempts_are_one_trace() {
    let mut scene = Scene::set(Database::new()).await;
    let hook = Hook::default().answers([
        klaxon_tests::receiver::Answer::status(503).body(SECRET),
        klaxon_tests::receiver::Answer::status(200),
    ]);
    let config = json!({"retry_schedule": [1], "headers": {"x-key": SECRET}});
    scene.webhook(SECRET, hook, config, &["run.failed"]).await;
    scene
        .client
        .batch_execute(&format!("UPDATE klaxon.channel SET name = 'ops' WHERE name = '{SECRET}'"))
        .await
        .unwrap();
    let (mut collector, mut worker) = traced(&mut scene, &[], &[]).await;
    let event = scene.emit("run.failed", json!({"traceparent": GIVEN, "secret": SECRET})).await;
    sent(&scene, 1).await;

    let requests = scene.receiver.wait_at(&format!("/{SECRET}"), 2).await;
    let spans = collector.spans(2).await;
    let (failed, delivered) = (&spans[0], &spans[1]);
    for (span, request) in spans.iter().zip(&requests) {
        assert_eq!(
            (span["trace_id"].as_str(), span["parent"].as_str()),
            (Some(TRACE), Some("b7ad6b7169203331"))
        );
        assert_eq!(
            told(request),
            (TRACE, span["span_id"].as_str().unwrap()),
            "the receiver is told of this attempt"
        );
        assert!(request.header("traceparent").ends_with("-01"));
        assert_eq!((&span["name"], &span["kind"]), (&json!("deliver ops"), &json!("SPAN_KIND_CLIENT")));
        assert_eq!(attribute(span, "messaging.message.id"), request.header("webhook-id"));
        assert_eq!(attribute(span, "klaxon.event.id"), &json!(event));
        assert_eq!(attribute(span, "klaxon.event.type"), "run.failed");
        assert_eq!(attribute(span, "messaging.destination.name"), "ops");
        assert_eq!(attribute(span, "http.request.method"), "POST");
        assert_eq!((&span["resource"]["service.name"], &span["scope"]), (&json!("klaxon"), &json!("klaxon")));
        assert_eq!((&span["flags"], &span["links"]), (&json!(0x301), &json!([])));
        assert!(span["start"].as_u64() < span["end"].as_u64(), "{span}");
        let said = span.to_string();
        for secret in [SECRET, "receiver.test", "127.0.0.1", "opensesame"] {
            assert!(!said.contains(secret), "{secret}: {said}");
        }
    }
    assert_ne!(failed["span_id"], delivered["span_id"]);
    assert!(failed["end"].as_u64() < delivered["start"].as_u64());
    assert_eq!(failed["status"], json!({"code": "STATUS_CODE_ERROR", "message": "HTTP 503"}));
    assert_eq!(attribute(failed, "http.response.status_code"), 503);
    assert_eq!(
        (attribute(failed, "error.type"), attribute(failed, "klaxon.outcome")),
        (&json!("503"), &json!("failed"))
    );
    assert_eq!(delivered["status"], json!({"code": "STATUS_CODE_UNSET", "message": ""}));
    assert_eq!(attribute(delivered, "http.response.status_code"), 200);
    assert_eq!(attribute(delivered, "http.request.resend_count"), 1);
    assert_eq!(
        (attribute(delivered, "klaxon.attempt"), attribute(delivered, "klaxon.outcome")),
        (&json!(2), &json!("sent"))
    );
    // By the database's clock, between the transaction and what the log says of the attempt.
    let in_time =
        "SELECT bool_and(extract(epoch FROM e.created_at) * 1e9 <= $1::text::numeric) FROM klaxon.event AS e";
    let start = failed["start"].to_string();
    assert!(scene.client.query_one(in_time, &[&start]).await.unwrap().get::<_, bool>(0), "{start}");

    let line = worker.wait_for_log("the failure", |line| line.message() == "delivery failed").await;
    assert_eq!(line.field("trace_id"), TRACE);
    let shown: String =
        scene.client.query_one("SELECT settings::text FROM klaxon.worker", &[]).await.unwrap().get(0);
    assert!(shown.contains("https://collector.test") && !shown.contains("opensesame"), "{shown}");
}

#[tokio::test]
async fn a_session_says_where_it_is_and_what_is_no_traceparent_is_not_there() {
    let mut scene = Scene::set(Database::new()).await;
    scene.webhook("told", Hook::default(), json!({}), &["run.failed"]).await;
    let (mut collector, _worker) = traced(&mut scene, &[], &[]).await;
    let by_session = emit_in(&scene, GIVEN, json!({"traceparent": "soon"})).await;
    let unsampled = emit_in(&scene, UNSAMPLED, json!({})).await;
    let invalid = emit_in(&scene, &GIVEN.to_uppercase(), json!({"traceparent": {"a": GIVEN}})).await;
    let neither = scene.emit("run.failed", json!({})).await;
    sent(&scene, 4).await;
    let stored = scene
        .client
        .query("SELECT id, traceparent FROM klaxon.event ORDER BY id", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect::<Vec<(Uuid, Option<String>)>>();
    assert_eq!(
        stored,
        [
            (by_session, Some(GIVEN.to_owned())),
            (unsampled, Some(UNSAMPLED.to_owned())),
            (invalid, None),
            (neither, None)
        ]
    );

    let requests = scene.receiver.wait_at("/told", 4).await;
    let of = |event: Uuid| requests.iter().find(|request| request.json()["id"] == json!(event)).unwrap();
    let spans = collector.spans(3).await;
    let span = |event: Uuid| spans.iter().find(|span| attribute(span, "klaxon.event.id") == &json!(event));
    assert_eq!(told(of(by_session)), (TRACE, span(by_session).unwrap()["span_id"].as_str().unwrap()));
    assert_eq!(span(by_session).unwrap()["parent"], "b7ad6b7169203331");
    // Whoever did not want it recorded has it passed on as such, and nothing exported.
    let (trace, parent) = told(of(unsampled));
    assert_eq!(trace, &UNSAMPLED[3..35]);
    assert_ne!(parent, "b7ad6b7169203331");
    assert!(of(unsampled).header("traceparent").ends_with("-00") && span(unsampled).is_none(), "{spans:?}");
    // Others are in a trace of their own, which is called as the event is.
    for event in [invalid, neither] {
        let own = event.simple().to_string();
        assert_eq!(told(of(event)), (own.as_str(), span(event).unwrap()["span_id"].as_str().unwrap()));
        assert_eq!(
            (&span(event).unwrap()["parent"], &span(event).unwrap()["flags"]),
            (&json!(""), &json!(0x101))
        );
    }
}

#[tokio::test]
async fn a_replay_is_a_trace_of_its_own_and_a_dead_letter_goes_on_in_its_event_s() {
    let mut scene = Scene::set(Database::new()).await;
    let hook = Hook::default().statuses([500, 200]);
    scene.webhook("again", hook, json!({"retry_schedule": []}), &["run.failed"]).await;
    let (mut collector, _worker) = traced(&mut scene, &[], &[]).await;
    emit_in(&scene, GIVEN, json!({})).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.dead_letter)").await;
    scene.client.execute("SELECT klaxon.retry_dead()", &[]).await.unwrap();
    sent(&scene, 1).await;
    scene
        .client
        .execute("SELECT klaxon.replay('again', now() - interval '1 hour', dry_run => false)", &[])
        .await
        .unwrap();
    sent(&scene, 2).await;
    let spans = collector.spans(3).await;
    let requests = scene.receiver.wait_at("/again", 3).await;
    for span in &spans[..2] {
        assert_eq!(
            (&span["trace_id"], &span["parent"], &span["links"]),
            (&json!(TRACE), &json!("b7ad6b7169203331"), &json!([]))
        );
    }
    assert_eq!(
        (attribute(&spans[0], "klaxon.outcome"), attribute(&spans[1], "klaxon.attempt")),
        (&json!("dead"), &json!(2))
    );
    let replayed = requests[2].header("webhook-id").replace('-', "");
    assert_eq!((&spans[2]["trace_id"], &spans[2]["parent"]), (&json!(replayed), &json!("")));
    assert_eq!(spans[2]["links"], json!([{"trace_id": TRACE, "span_id": "b7ad6b7169203331"}]));
    assert_eq!(told(&requests[2]), (replayed.as_str(), spans[2]["span_id"].as_str().unwrap()));
}

#[tokio::test]
async fn a_worker_that_exports_nothing_passes_on_what_it_was_given() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("told", Hook::default(), json!({}), &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    // By who may emit and nothing else.
    let emitter = scene.database.connect().await;
    let setting = format!("SET klaxon.traceparent = '{GIVEN}'; SET ROLE {EMITTER_ROLE}");
    emitter.batch_execute(&setting).await.unwrap();
    emitter
        .batch_execute("INSERT INTO klaxon.event (type) SELECT 'run.failed' FROM generate_series(1, 2)")
        .await
        .unwrap();
    sent(&scene, 2).await;
    scene.emit("run.failed", json!({})).await;
    sent(&scene, 3).await;
    let requests = scene.receiver.wait_at("/told", 3).await;
    let headers: Vec<_> = requests.iter().map(|request| request.header("traceparent")).collect();
    assert_eq!(headers, [GIVEN, GIVEN, ""]);
    scene
        .client
        .execute("SELECT klaxon.replay('told', now() - interval '1 hour', dry_run => false)", &[])
        .await
        .unwrap();
    sent(&scene, 6).await;
    let requests = scene.receiver.wait_at("/told", 6).await;
    assert!(
        requests[3..].iter().all(|request| request.header("traceparent").is_empty()),
        "a replay is another trace"
    );
}

#[tokio::test]
async fn what_is_refused_is_tried_again_or_counted() {
    let mut scene = Scene::set(Database::new()).await;
    scene.webhook("busy", Hook::default(), json!({}), &["run.failed"]).await;
    let port = free_port().unwrap();
    let flags = ["--metrics-addr", &format!("127.0.0.1:{port}")];
    let (mut collector, mut worker) = traced(&mut scene, &[503, 200, 400, 200], &flags).await;
    scene.emit("run.failed", json!({})).await;
    let spans = collector.spans_of(2).await;
    assert_eq!(spans.len(), 1, "it comes the second time");
    worker.wait_for_log("that they go on", |line| line.message() == "spans are exported again").await;
    scene.emit("run.failed", json!({})).await;
    let spans = collector.spans_of(3).await;
    assert_eq!(spans.len(), 1, "a request that is wrong is not repeated");
    scene.emit("run.failed", json!({})).await;
    collector.spans(2).await;
    worker.wait_for_log("that they go on", |line| line.message() == "spans are exported again").await;
    // At its end it exports what it has.
    scene.emit("run.failed", json!({})).await;
    sent(&scene, 4).await;
    let metrics = get(port, "/metrics", &[]).await.body;
    assert_eq!(count_of(&metrics, "dropped"), 1, "{metrics}");
    worker.signal("TERM");
    collector.spans(3).await;
    assert!(worker.wait().await.success());
    let warned = worker.log().iter().filter(|line| line.message() == "spans are not exported").count();
    assert_eq!(warned, 2, "once each time that it stops");
}

#[tokio::test]
async fn a_collector_that_does_not_answer_delays_nothing() {
    let scene = Scene::set(Database::new()).await;
    let hook = Hook::default().counting();
    scene.webhook("fast", hook, json!({}), &["run.failed"]).await;
    // It takes connections, and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let port = free_port().unwrap();
    let flags = ["--otlp-endpoint", &endpoint, "--metrics-addr", &format!("127.0.0.1:{port}")];
    let mut worker = scene.worker(&flags).await;
    let (_held, _) = tokio::join!(
        async { within("its connection", silent.accept()).await.unwrap() },
        scene.emit("run.failed", json!({})),
    );
    // More than wait in the queue and in a request together.
    scene
        .client
        .batch_execute("INSERT INTO klaxon.event (type) SELECT 'run.failed' FROM generate_series(1, 6000)")
        .await
        .unwrap();
    sent(&scene, 6001).await;
    let metrics = get(port, "/metrics", &[]).await.body;
    let dropped = count_of(&metrics, "dropped");
    // No more than these wait, in the queue and in a request.
    assert!(dropped >= 6001 - 4096 - 512 && count_of(&metrics, "exported") == 0, "{dropped}");
    let began = std::time::Instant::now();
    worker.signal("TERM");
    assert!(worker.wait().await.success());
    assert!(began.elapsed() < std::time::Duration::from_secs(15), "{:?}", began.elapsed());
}
