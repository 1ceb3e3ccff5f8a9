//! Postgres out of reach: silent, cut off at the worst moment, failed over, behind a pooler.

use std::net::SocketAddr;

use klaxon_tests::cluster::{Cluster, Stop};
use klaxon_tests::database::{Database, WORKER_ROLE};
use klaxon_tests::pooler::Pooler;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use klaxon_tests::worker::LogLine;
use serde_json::json;
use tokio::net::TcpListener;

/// The log has said all that it has to say of the configuration.
const JOURNAL_KEPT: &str = "NOT EXISTS (SELECT FROM klaxon.config_change)";

#[tokio::test]
async fn a_connection_that_goes_nowhere_is_given_up_and_deliveries_resume() {
    let mut scene = Scene::set(Database::new()).await;
    let proxy = scene.proxy().await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let mut worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({"n": 1})).await;
    scene.receiver.wait_at("/hook", 1).await;
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    proxy.silence(true);
    scene.emit("run.failed", json!({"n": 2})).await;
    worker
        .wait_for_log("that nothing is answered", |line| {
            line.message() == "cannot reach postgres"
                && line.field("error").as_str().is_some_and(|error| error.contains("no answer"))
        })
        .await;
    assert_eq!(scene.receiver.requests_at("/hook").len(), 1);
    proxy.silence(false);
    scene.receiver.wait_at("/hook", 2).await;
    scene.emit("run.failed", json!({"n": 3})).await;
    let requests = scene.receiver.wait_at("/hook", 3).await;
    let told: Vec<_> = requests.iter().map(|request| request.json()["data"]["n"].clone()).collect();
    assert_eq!(told, [1, 2, 3], "nothing was on its way, so nothing comes twice");
    // It listens again: a notification of this session has arrived.
    until(&scene.client, "(SELECT notified_at IS NOT NULL FROM klaxon.worker)").await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_neither_logged_nor_sent_again() {
    let mut scene = Scene::set(Database::new()).await;
    let proxy = scene.proxy().await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let mut worker = scene.worker(&[]).await;
    until(&scene.client, JOURNAL_KEPT).await;
    proxy.cut_at_commit();
    scene.emit("run.failed", json!({"n": 1})).await;
    proxy.has_cut().await;
    let attempts = "SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt'";
    let logged: i64 = scene.client.query_one(attempts, &[]).await.unwrap().get(0);
    assert_eq!(logged, 1, "it was the batch's COMMIT that was cut");
    worker.wait_for_log("that its session is lost", |line| line.message() == "cannot reach postgres").await;
    scene.emit("run.failed", json!({"n": 2})).await;
    let requests = scene.receiver.wait_at("/hook", 2).await;
    assert_eq!(requests[1].json()["data"], json!({"n": 2}));
    until(&scene.client, "(SELECT count(*) = 2 FROM klaxon.delivery WHERE kind = 'attempt')").await;
    worker.signal("TERM");
    assert_eq!(worker.wait().await.code(), Some(0));
    assert_eq!(scene.receiver.requests_at("/hook").len(), 2);
    let logged: i64 = scene.client.query_one(attempts, &[]).await.unwrap().get(0);
    assert_eq!(logged, 2, "what was written is not written again");
    let verified =
        scene.installation.run(&["audit", "verify", "--database-url", &scene.database.url()]).await;
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[tokio::test]
async fn a_promoted_standby_is_found_and_its_deliveries_sent() {
    let primary = Cluster::start(&[]).unwrap();
    let mut scene = Scene::set(Database::create(&primary)).await;
    let (held, release) = Hook::default().held();
    scene.webhook("hook", held, json!({}), &["run.failed"]).await;
    let standby = primary.standby().unwrap();
    let name = scene.database.name.clone();
    scene.reach(&format!(
        "postgresql://{WORKER_ROLE}@127.0.0.1:{},127.0.0.1:{}/{name}?target_session_attrs=read-write",
        primary.port(),
        standby.port(),
    ));
    let mut worker = scene.worker(&[]).await;
    // Some are on their way when the primary dies, others wait.
    for n in 0..=20 {
        scene.emit("run.failed", json!({"n": n})).await;
    }
    scene.receiver.wait_at("/hook", 1).await;
    until(&scene.client, "(SELECT bool_and(replay_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication)")
        .await;
    primary.stop(Stop::Immediate).unwrap();
    worker.wait_for_log("that the primary is gone", |line| line.message() == "cannot reach postgres").await;
    let promoted = Database { cluster: &standby, name };
    promoted.psql("SELECT pg_promote()");
    release.send(true).unwrap();
    let client = promoted.connect().await;
    until(&client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let requests = scene.receiver.requests_at("/hook");
    let mut told: Vec<_> = requests.iter().map(|request| request.json()["data"]["n"].as_i64()).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told, (0..=20).map(Some).collect::<Vec<_>>());
    worker.signal("TERM");
    assert_eq!(worker.wait().await.code(), Some(0));
}

/// Its port takes connections, and nobody answers: as of a host that hangs.
#[tokio::test]
async fn a_host_that_says_nothing_does_not_keep_the_worker_from_the_next() {
    let mut scene = Scene::set(Database::new()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there: SocketAddr = ([127, 0, 0, 1], scene.database.cluster.port()).into();
    let both = format!("{},{there}", silent.local_addr().unwrap());
    let url = scene.database.worker_url().replace(&there.to_string(), &both);
    scene.reach(&format!("{url}?connect_timeout=1"));
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    scene.receiver.wait_at("/hook", 1).await;
}

/// With a standby and nothing said of writing, the worker waits for the promotion.
#[tokio::test]
async fn a_server_that_only_reads_is_waited_for() {
    let primary = Cluster::start(&[]).unwrap();
    let mut scene = Scene::set(Database::create(&primary)).await;
    let standby = primary.standby().unwrap();
    let promoted = Database { cluster: &standby, name: scene.database.name.clone() };
    scene.reach(&promoted.worker_url());
    let mut worker = scene.start(&[]);
    worker
        .wait_for_log("that it may not write", |line| {
            line.field("error").as_str().is_some_and(|error| error.contains("read-only transaction"))
        })
        .await;
    promoted.psql("SELECT pg_promote()");
    worker.ready().await;
}

#[tokio::test]
async fn a_worker_that_no_notification_reaches_says_so_and_polls() {
    let mut scene = Scene::set(Database::new()).await;
    let proxy = scene.proxy().await;
    proxy.deafen();
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let mut worker = scene.worker(&[]).await;
    worker
        .wait_for_log("that it hears nothing", |line| line.message().starts_with("no notification arrives"))
        .await;
    scene.emit("run.failed", json!({})).await;
    scene.receiver.wait_at("/hook", 1).await;
    let wakeup =
        "(SELECT value LIKE '%no notification has arrived' FROM klaxon.status() WHERE item = 'wakeup')";
    until(&scene.client, wakeup).await;
    assert!(!worker.log().iter().any(|line| line.message() == "notifications arrive"));
}

/// Two workers behind it would be lent the same session, and both have every lock of it.
#[tokio::test]
async fn a_pooler_that_does_not_keep_the_session_is_refused() {
    let mut scene = Scene::set(Database::new()).await;
    for sessions in [1, 5] {
        let pooler = Pooler::start(scene.database.cluster, "transaction", sessions).await;
        scene.reach(&pooler.url(&scene.database.name));
        let mut worker = scene.start(&[]);
        worker.wait_for_log("what mends it", |line| line.message().contains("pool_mode = session")).await;
        assert_eq!(worker.wait().await.code(), Some(2));
    }
    let registered: i64 =
        scene.client.query_one("SELECT count(*) FROM klaxon.worker", &[]).await.unwrap().get(0);
    assert_eq!(registered, 0);
}

#[tokio::test]
async fn a_pooler_that_keeps_the_session_is_as_good_as_none() {
    let mut scene = Scene::set(Database::new()).await;
    // One session of the server, so that the worker's test finds no other.
    let pooler = Pooler::start(scene.database.cluster, "session", 1).await;
    scene.reach(&pooler.url(&scene.database.name));
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let mut worker = scene.worker(&[]).await;
    worker.wait_for_log("that it hears", |line| line.message() == "notifications arrive").await;
    scene.emit("run.failed", json!({})).await;
    scene.receiver.wait_at("/hook", 1).await;
}

/// A pooler that lends the session only once the worker serves: what the server then sees is played here.
#[tokio::test]
async fn a_worker_whose_statements_run_in_another_session_gives_up_its_own() {
    let scene = Scene::set(Database::new()).await;
    let mut worker = scene.worker(&[]).await;
    scene.client.batch_execute("UPDATE klaxon.worker SET pid = pid + 1").await.unwrap();
    worker
        .wait_for_log("that it is astray", |line| {
            line.field("error").as_str().is_some_and(|error| error.contains("another session"))
        })
        .await;
    let serving = |line: &&LogLine| line.message() == "serving";
    until(
        &scene.client,
        "(SELECT w.shards <> '{}' FROM klaxon.worker AS w JOIN pg_stat_activity AS a USING (pid) WHERE a.application_name LIKE 'klaxon%')",
    )
    .await;
    assert_eq!(worker.log().iter().filter(serving).count(), 2);
}

/// Counted against its own heartbeats, whatever the time they take, on the session that gives them: the clock's
/// ticks once a minute.
#[tokio::test]
async fn an_idle_worker_makes_two_statements_a_heartbeat() {
    let cluster = Cluster::start(&[("log_statement", "all"), ("log_line_prefix", "%u %p ")]).unwrap();
    let scene = Scene::set(Database::create(&cluster)).await;
    let _worker = scene.worker(&[]).await;
    until(&scene.client, JOURNAL_KEPT).await;
    let session: i32 = scene.client.query_one("SELECT pid FROM klaxon.worker", &[]).await.unwrap().get(0);
    let statements = || {
        let log = cluster.log();
        let of_worker = format!("{WORKER_ROLE} {session} LOG:  ");
        let lines = log.lines().filter_map(|line| line.strip_prefix(&of_worker).map(str::to_owned));
        lines.filter(|line| line.starts_with("execute") || line.starts_with("statement")).collect::<Vec<_>>()
    };
    let beats = |lines: &[String]| lines.iter().filter(|line| line.contains("A sign of life")).count();
    // What a start brings is over after a few heartbeats; then ten are looked at.
    until(&scene.client, "(SELECT heartbeat_at > started_at + interval '5 s' FROM klaxon.worker)").await;
    let before = statements();
    until(&scene.client, "(SELECT heartbeat_at > started_at + interval '16 s' FROM klaxon.worker)").await;
    let after = statements();
    let since = &after[before.len()..];
    let beats = beats(since);
    assert!(beats >= 5, "{since:#?}");
    // One of either may have been cut off at the ends, and once a minute the configuration is read anew.
    assert!(since.len() <= 2 * beats + 1 + 4, "{} in {beats} heartbeats: {since:#?}", since.len());
    let ticks = cluster.log().matches("statement: SELECT klaxon.expire_agents()").count();
    assert!(ticks <= 2, "the clock ticks once where a minute ends: {ticks}");
}
