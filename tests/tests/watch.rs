//! Watched tables: every way to write them, writers side by side, bulk, dumps and the clock.

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use klaxon_tests::limit::within;
use klaxon_tests::process;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use klaxon_tests::worker::{LogLine, Worker};
use serde_json::json;
use tokio_postgres::Client;

async fn told(client: &Client) -> Vec<(String, String)> {
    client
        .query("SELECT type, coalesce(payload ->> 'task_id', payload ->> 'run_id') FROM klaxon.event ORDER BY id", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn every_way_to_write_a_partitioned_table_tells() {
    let database = Database::new();
    let client = database.connect().await;
    client
        .batch_execute(
            "CREATE TABLE tasks (task_id int, state text, at date, PRIMARY KEY (task_id, at)) PARTITION BY RANGE (at);
             CREATE TABLE tasks_old PARTITION OF tasks FOR VALUES FROM ('2020-01-01') TO ('2026-01-01');
             CREATE TABLE tasks_new PARTITION OF tasks FOR VALUES FROM ('2026-01-01') TO ('2030-01-01');
             SELECT klaxon.watch_tasks('tasks')",
        )
        .await
        .unwrap();
    database.psql("COPY tasks FROM PROGRAM 'printf ''1\tfailed\t2025-01-01\n2\trunning\t2026-02-02\n'''");
    client
        .batch_execute(
            "INSERT INTO tasks VALUES (2, 'running', '2026-02-02'), (3, 'retry', '2026-01-01')
                 ON CONFLICT (task_id, at) DO UPDATE SET state = 'success';
             MERGE INTO tasks AS t USING (VALUES (3, 'failed'), (4, 'failed')) AS v (id, state) ON t.task_id = v.id
                 WHEN MATCHED THEN UPDATE SET state = v.state WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.state, '2026-03-03');
             UPDATE tasks SET at = '2026-05-05', state = 'success' WHERE task_id = 1",
        )
        .await
        .unwrap();
    let mut told = told(&client).await;
    told.sort();
    let expected = [
        ("task.failed", "1"),
        ("task.failed", "3"),
        ("task.failed", "4"),
        ("task.retried", "3"),
        ("task.succeeded", "1"),
        ("task.succeeded", "2"),
    ];
    assert_eq!(told, expected.map(|(kind, id)| (kind.into(), id.into())));
    assert_eq!(number(&client, "SELECT count(*) FROM klaxon.watcher_error").await, 0);
}

#[tokio::test]
async fn ten_thousand_rows_are_one_pass() {
    let database = Database::new();
    let client = database.connect().await;
    client
        .batch_execute(
            "CREATE TABLE runs (run_id int PRIMARY KEY, status text, project text, branch text, failed_tests int, duration_ms int);
             SELECT klaxon.watch_runs('runs');
             INSERT INTO runs SELECT n, 'running', 'p' || n % 10, 'main', 0, NULL FROM generate_series(1, 10000) AS n;
             SET log_min_duration_statement = -1;
             UPDATE runs SET status = CASE WHEN run_id % 100 = 0 THEN 'failed' ELSE 'passed' END, duration_ms = 100 + run_id % 7",
        )
        .await
        .unwrap();
    assert_eq!(
        number(&client, "SELECT count(*) FROM klaxon.event WHERE type = 'run.finished'").await,
        10_000
    );
    assert_eq!(number(&client, "SELECT count(*) FROM klaxon.event WHERE type = 'run.failed'").await, 100);
    assert_eq!(number(&client, "SELECT count(*) FROM klaxon.watcher_error").await, 0);
    // One pass is one INSERT: all of it has one transaction's start and one command.
    assert_eq!(number(&client, "SELECT count(DISTINCT (xmin::text, cmin::text)) FROM klaxon.event").await, 1);
}

#[tokio::test]
async fn writers_of_a_watched_table_do_not_wait_for_one_another() {
    let database = Database::new();
    let (mut first, second) = (database.connect().await, database.connect().await);
    second
        .batch_execute(
            "CREATE TABLE runs (run_id int PRIMARY KEY, status text, project text, signature text);
             SELECT klaxon.watch_runs('runs'); SET lock_timeout = '10 s'",
        )
        .await
        .unwrap();
    let transaction = first.transaction().await.unwrap();
    transaction.batch_execute("INSERT INTO runs VALUES (1, 'failed', 'p', 'X')").await.unwrap();
    within("another run", second.batch_execute("INSERT INTO runs VALUES (2, 'failed', 'p', 'Y')"))
        .await
        .unwrap();
    // The same signature is the same key: whoever is second waits to know whether it was the first.
    second
        .batch_execute("SET lock_timeout = '100 ms'; UPDATE klaxon.watcher SET on_error = 'fail'")
        .await
        .unwrap();
    assert!(second.batch_execute("INSERT INTO runs VALUES (3, 'failed', 'p', 'X')").await.is_err());
    transaction.commit().await.unwrap();
    second.batch_execute("INSERT INTO runs VALUES (3, 'failed', 'p', 'X')").await.unwrap();
    assert_eq!(number(&second, "SELECT count(*) FROM klaxon.event WHERE type = 'cluster.new'").await, 2);
}

#[tokio::test]
async fn a_dump_brings_the_watchers_along() {
    let database = Database::new();
    let client = database.connect().await;
    client
        .batch_execute(
            "CREATE SCHEMA app; CREATE TABLE app.tasks (task_id int PRIMARY KEY, state text);
             SELECT klaxon.watch_tasks('app.tasks');
             SELECT klaxon.watch('app.tasks', 'task.slow', 'NEW.state = ''slow''');
             INSERT INTO app.tasks VALUES (1, 'failed')",
        )
        .await
        .unwrap();
    let dump = process::run(&mut database.cluster.client("pg_dump", &database.name)).unwrap();
    let copy = Database::bare(Cluster::shared());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), dump).unwrap();
    process::run(
        copy.cluster
            .client("psql", &copy.name)
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"])
            .arg(file.path()),
    )
    .unwrap();
    let client = copy.connect().await;
    assert_eq!(told(&client).await, [("task.failed".into(), "1".into())], "what was told is not told again");
    client
        .batch_execute("INSERT INTO app.tasks VALUES (2, 'failed'); UPDATE app.tasks SET state = 'slow' WHERE task_id = 2")
        .await
        .unwrap();
    let told = told(&client).await;
    assert_eq!(told[1..], [("task.failed".into(), "2".into()), ("task.slow".into(), "2".into())]);
    assert_eq!(number(&client, "SELECT klaxon.unwatch('app.tasks')").await, 2);
}

#[tokio::test]
async fn a_task_that_still_runs_is_found_slow_and_a_silent_agent_offline() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("hook", Hook::default(), json!({}), &["task.slow", "agent.offline"]).await;
    scene
        .client
        .batch_execute(
            "CREATE TABLE tasks (task_id text PRIMARY KEY, state text, budget_ms int, started_at timestamptz);
             CREATE TABLE agents (agent_id text PRIMARY KEY, timeout interval);
             SELECT klaxon.watch_tasks('tasks'), klaxon.watch_agents('agents')",
        )
        .await
        .unwrap();
    let _worker = scene.worker(&[]).await;
    scene
        .client
        .batch_execute(
            "INSERT INTO tasks VALUES ('quick', 'running', 3600000, now()), ('slow', 'running', 10, now()), ('done', 'success', 10, now());
             INSERT INTO agents VALUES ('quiet', '10 ms'), ('lively', '1 day')",
        )
        .await
        .unwrap();
    let mut told: Vec<_> = scene
        .receiver
        .wait_at("/hook", 2)
        .await
        .iter()
        .map(|request| (request.json()["type"].clone(), request.json()["data"].clone()))
        .collect();
    told.sort_by_key(|(kind, _)| kind.to_string());
    assert_eq!((&told[0].0, &told[0].1["agent_id"]), (&json!("agent.offline"), &json!("quiet")));
    assert_eq!((&told[1].0, &told[1].1["task_id"]), (&json!("task.slow"), &json!("slow")));
    assert!(told[1].1["duration_ms"].as_f64().unwrap() >= 10.0);
    // Once, however often the clock ticks: what comes later is found by later ticks.
    for (later, wanted) in [("later", 3), ("latest", 4)] {
        let insert = "INSERT INTO tasks VALUES ($1, 'running', 10, now())";
        scene.client.execute(insert, &[&later]).await.unwrap();
        scene.receiver.wait_at("/hook", wanted).await;
    }
    let query = "SELECT count(*) FROM klaxon.event WHERE type IN ('task.slow', 'agent.offline')";
    assert_eq!(number(&scene.client, query).await, 4);
}

const TASKS: &str = "(task_id text PRIMARY KEY, state text, budget_ms int, started_at timestamptz)";

/// A worker for a channel that hears of slow tasks, silent agents and failed tasks, with a table of tasks of each
/// name.
async fn clock<'c>(tables: &[&str]) -> (Scene<'c>, Worker) {
    let scene = Scene::set(Database::new()).await;
    let events = ["task.slow", "agent.offline", "task.failed"];
    scene.webhook("hook", Hook::default(), json!({}), &events).await;
    for table in tables {
        let create = format!("CREATE TABLE {table} {TASKS}; SELECT klaxon.watch_tasks('{table}')");
        scene.client.batch_execute(&create).await.unwrap();
    }
    let worker = scene.worker(&[]).await;
    (scene, worker)
}

/// Everything that has nothing to do with the table that cannot be looked at.
async fn the_rest_goes_on(scene: &Scene<'_>) {
    scene
        .client
        .batch_execute("INSERT INTO good VALUES ('good', 'running', 10, now()); SELECT klaxon.heartbeat('quiet', timeout => '10 ms')")
        .await
        .unwrap();
    scene.emit("task.failed", json!({})).await;
    let mut told: Vec<_> = scene
        .receiver
        .wait_at("/hook", 3)
        .await
        .iter()
        .map(|request| request.json()["type"].as_str().unwrap().to_owned())
        .collect();
    told.sort();
    assert_eq!(told, ["agent.offline", "task.failed", "task.slow"]);
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
}

fn is_left_alone(line: &LogLine, table: &str, state: &str) -> bool {
    line.message() == "a watched table is left alone for a while"
        && line.field("table") == table
        && line.field("reason").as_str().is_some_and(|reason| reason.contains(state))
}

fn is_lost(worker: &Worker) -> bool {
    worker.log().iter().any(|line| line.message() == "cannot reach postgres")
}

#[tokio::test]
async fn a_watched_table_that_somebody_has_locked_holds_up_nobody() {
    let (scene, mut worker) = clock(&["bad", "good"]).await;
    let holder = scene.database.connect().await;
    holder
        .batch_execute("BEGIN; LOCK TABLE bad; INSERT INTO bad VALUES ('bad', 'running', 10, now())")
        .await
        .unwrap();
    let locked = worker.wait_for_log("that one is locked", |line| is_left_alone(line, "public.bad", "55P03"));
    locked.await;
    the_rest_goes_on(&scene).await;
    holder.batch_execute("COMMIT").await.unwrap();
    let told = scene.receiver.wait_at("/hook", 4).await.remove(3).json();
    assert_eq!(told["data"]["task_id"], "bad");
    assert!(!is_lost(&worker));
}

/// Its policies are its owner's own code.
#[tokio::test]
async fn watched_tables_whose_policies_never_end_and_give_locks_away_hold_up_nobody() {
    let (scene, mut worker) = clock(&["bad", "worse", "good"]).await;
    scene.client.batch_execute("CREATE ROLE policy_owner").await.unwrap();
    // The worse one does not let itself be cancelled.
    for (table, handler) in
        [("bad", ""), ("worse", "EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(600);")]
    {
        let policy = format!(
            "CREATE FUNCTION never_{table}() RETURNS boolean LANGUAGE plpgsql AS $$
                 BEGIN
                     PERFORM pg_advisory_unlock_all(), pg_advisory_lock(7), pg_sleep(600);
                     RETURN false;
                 {handler}
                 END
             $$;
             INSERT INTO {table} VALUES ('{table}', 'running', 10, now());
             ALTER TABLE {table} OWNER TO policy_owner;
             ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
             ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
             CREATE POLICY never ON {table} USING (never_{table}())"
        );
        scene.client.batch_execute(&policy).await.unwrap();
    }
    worker.wait_for_log("that one is slow", |line| is_left_alone(line, "public.bad", "57014")).await;
    worker.wait_for_log("that one is slower", |line| is_left_alone(line, "public.worse", "no answer")).await;
    the_rest_goes_on(&scene).await;
    let locks =
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = x'6b6c6178'::bigint
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(number(&scene.client, locks).await, 64);
    until(
        &scene.client,
        "NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND classid = 0)",
    )
    .await;
    assert!(!is_lost(&worker));
    worker.signal("TERM");
    assert!(worker.wait().await.success());
    let ours = "datname = current_database() AND application_name LIKE 'klaxon%'";
    until(&scene.client, &format!("NOT EXISTS (SELECT FROM pg_stat_activity WHERE {ours})")).await;
    scene.client.batch_execute("DROP TABLE bad, worse; DROP ROLE policy_owner").await.unwrap();
}

#[tokio::test]
async fn a_watched_table_whose_query_fails_is_told_of_without_what_is_in_it() {
    let (scene, mut worker) = clock(&["good"]).await;
    scene
        .client
        .batch_execute(
            "CREATE TABLE bad (task_id text, state text, budget_ms int, started_at text);
             INSERT INTO bad VALUES ('1', 'running', 10, 'confidential');
             SELECT klaxon.watch_tasks('bad')",
        )
        .await
        .unwrap();
    let failed = worker.wait_for_log("that one fails", |line| is_left_alone(line, "public.bad", "22007"));
    assert!(!failed.await.0.to_string().contains("confidential"));
    the_rest_goes_on(&scene).await;
    until(
        &scene.client,
        "(SELECT count(*) = 1 FROM klaxon.watcher_error WHERE message LIKE '%confidential%')",
    )
    .await;
}
