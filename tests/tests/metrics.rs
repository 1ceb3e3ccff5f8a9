//! What Prometheus and an orchestrator ask of the worker, and what `ops/` makes of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use klaxon_tests::cluster::free_port;
use klaxon_tests::database::Database;
use klaxon_tests::http::get;
use klaxon_tests::process;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::{Value, json};
use std::io::Write as _;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn promtool() -> Command {
    let program = root().join("target/prometheus/usr/bin/promtool");
    assert!(program.is_file(), "{} is not there: \"make setup\" unpacks it", program.display());
    Command::new(program)
}

/// What promtool has to say of an exposition.
fn objections(metrics: &str) -> String {
    let mut child = promtool()
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
}

/// The metrics that an expression of PromQL names.
fn named(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("klaxon_")).map(str::to_owned).collect()
}

/// The series of an exposition, by name.
fn exposed(metrics: &str) -> BTreeSet<String> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples.map(|line| line.split(['{', ' ']).next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn attempts_are_measured_and_readiness_is_told() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("counted", Hook::default(), json!({}), &["run.*"]).await;
    scene.webhook("gone", Hook::default().statuses([500]), json!({"retry_schedule": []}), &["run.*"]).await;
    let port = free_port().unwrap();
    let mut worker = scene.worker(&["--metrics-addr", &format!("127.0.0.1:{port}")]).await;
    assert_eq!(get(port, "/healthz", &[]).await.status, 200);
    assert_eq!(get(port, "/readyz", &[]).await.status, 200);
    assert_eq!(get(port, "/elsewhere", &[]).await.status, 404);

    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "(SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt') = 2").await;
    until(
        &scene.client,
        "NOT EXISTS (SELECT FROM klaxon.outbox) AND NOT EXISTS (SELECT FROM klaxon.config_change)",
    )
    .await;
    let head: i64 = scene.client.query_one("SELECT seq FROM klaxon.audit_head", &[]).await.unwrap().get(0);
    let metrics = get(port, "/metrics", &[]).await.body;
    let name = scene.database.worker_url();
    let database = metrics
        .split("klaxon_database_up{database=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap();
    assert!(database.ends_with(&scene.database.name) && !database.contains('@'), "{database} of {name}");
    let of = format!("{{database=\"{database}\"}}");
    for line in [
        "klaxon_attempts_total{kind=\"webhook\",type=\"run.failed\",outcome=\"sent\"} 1".to_owned(),
        "klaxon_attempts_total{kind=\"webhook\",type=\"run.failed\",outcome=\"dead\"} 1".to_owned(),
        "klaxon_attempt_duration_seconds_count{kind=\"webhook\"} 2".to_owned(),
        "klaxon_commit_to_delivery_seconds_count{kind=\"webhook\"} 1".to_owned(),
        "klaxon_databases_served 1".to_owned(),
        "klaxon_in_flight 0".to_owned(),
        format!("klaxon_database_up{of} 1"),
        format!("klaxon_owned_shards{of} 64"),
        format!("klaxon_open_circuits{of} 0"),
        format!("klaxon_workers_alive{of} 1"),
        format!("klaxon_pending_deliveries{of} 0"),
        format!("klaxon_oldest_pending_seconds{of} 0"),
        format!("klaxon_overdue_seconds{of} 0"),
        format!("klaxon_dead_letters{of} 1"),
        format!("klaxon_failing_channels{of} 1"),
        format!("klaxon_disabled_channels{of} 0"),
        format!("klaxon_audit_head{of} {head}"),
        format!("klaxon_audit_unsealed{of} 0"),
        format!("klaxon_notify_queue_usage{of} 0"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert_eq!(objections(&metrics), "", "promtool has nothing to object");

    let board: Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("ops/dashboard.json")).unwrap()).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut wanted: BTreeSet<String> =
        queries.flat_map(|target| named(target["expr"].as_str().unwrap())).collect();
    wanted.extend(named(board["templating"].to_string().as_str()).into_iter());
    let alerts = std::fs::read_to_string(root().join("ops/alerts.yaml")).unwrap();
    let expressions = alerts.lines().filter(|line| line.trim_start().starts_with("expr:"));
    wanted.extend(expressions.flat_map(named));
    let exposed = exposed(&metrics);
    assert!(wanted.len() > 15, "{wanted:?}");
    assert_eq!(
        wanted.difference(&exposed).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "named and not exposed"
    );
    worker.signal("TERM");
    worker.wait().await;
}

#[tokio::test]
async fn a_database_that_is_away_is_said_to_be() {
    let mut scene = Scene::set(Database::new()).await;
    let proxy = scene.proxy().await;
    let port = free_port().unwrap();
    let mut worker = scene.worker(&["--metrics-addr", &format!("127.0.0.1:{port}")]).await;
    drop(proxy);
    worker.wait_for_log("that it is away", |line| line.message() == "cannot reach postgres").await;
    let metrics = get(port, "/metrics", &[]).await.body;
    let up = metrics.lines().find(|line| line.starts_with("klaxon_database_up")).unwrap();
    let pending = metrics.lines().find(|line| line.starts_with("klaxon_pending_deliveries")).unwrap();
    let shards = metrics.lines().find(|line| line.starts_with("klaxon_owned_shards")).unwrap();
    assert!(up.ends_with("} 0") && pending.ends_with("} NaN") && shards.ends_with("} 0"), "{metrics}");
    assert_eq!(get(port, "/readyz", &[]).await.status, 503);
    let page = get(port, "/", &[]).await;
    assert!(page.status == 200 && page.body.contains("no answer from Postgres"), "{page:?}");
}

#[test]
fn alerts_fire_when_they_should() {
    let check = |arguments: &[&str]| {
        process::run(promtool().current_dir(root().join("ops")).args(arguments))
            .unwrap_or_else(|error| panic!("{error:#}"))
    };
    let rules = check(&["check", "rules", "--lint-fatal", "alerts.yaml"]);
    assert!(rules.contains("SUCCESS"), "{rules}");
    let tested = check(&["test", "rules", "alerts_test.yaml"]);
    assert!(tested.contains("SUCCESS"), "{tested}");
    let names = |file: &str, key: &str| -> BTreeSet<String> {
        let text = std::fs::read_to_string(root().join("ops").join(file)).unwrap();
        let found = text.lines().filter_map(|line| line.split(key).nth(1));
        found.map(|rest| rest.trim_end_matches('}').trim().to_owned()).collect()
    };
    assert_eq!(names("alerts.yaml", "alert: "), names("alerts_test.yaml", "alertname: "), "each is tested");
}

/// Processor time that a process has used, in hundredths of a second (proc(5)).
fn processor_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_worker_without_descriptors_for_whoever_asks_waits_for_some() {
    let scene = Scene::set(Database::new()).await;
    let port = free_port().unwrap();
    let worker = scene.worker(&["--metrics-addr", &format!("127.0.0.1:{port}")]).await;
    let limit = |descriptors: &str| {
        let nofile = format!("--nofile={descriptors}:");
        process::run(Command::new("prlimit").args(["--pid", &worker.pid().to_string(), &nofile])).unwrap();
    };
    limit("4");
    let asked = tokio::spawn(async move { get(port, "/healthz", &[]).await });
    let before = processor_time(worker.pid());
    let now = "SELECT (clock_timestamp() + '4 s')::text";
    let later: String = scene.client.query_one(now, &[]).await.unwrap().get(0);
    until(&scene.client, &format!("(SELECT heartbeat_at > '{later}' FROM klaxon.worker)")).await;
    let used = processor_time(worker.pid()) - before;
    assert!(used < 200, "{used} hundredths of a second of some 400");
    assert!(!asked.is_finished());
    limit("1024");
    assert_eq!(asked.await.unwrap().status, 200);
}
