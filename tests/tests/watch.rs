//! Watched tables: every way to write them, writers side by side, bulk, dumps and the clock.

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use klaxon_tests::limit::within;
use klaxon_tests::process;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
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
