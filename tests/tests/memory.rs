//! What a session keeps of the subscriptions that it met.

use klaxon_tests::database::Database;
use tokio_postgres::Client;

const SUBSCRIPTIONS: i64 = 300;
const PROJECTS: i64 = 200;

/// Events of this many projects, whose names begin so.
async fn emit(client: &Client, name: &str) {
    client
        .batch_execute(&format!(
            "INSERT INTO klaxon.event (type, project)
             SELECT 'run.failed', format('{name}-%s', n) FROM generate_series(1, {PROJECTS}) AS n"
        ))
        .await
        .unwrap();
}

/// What parsing predicates has left behind, and the bytes of everything that this session keeps in contexts of Postgres.
async fn left(client: &Client) -> (i64, i64) {
    let row = client
        .query_one(
            "SELECT count(*) FILTER (WHERE name = 'klaxon jsonpath'), sum(total_bytes)::bigint FROM pg_backend_memory_contexts",
            &[],
        )
        .await
        .unwrap();
    (row.get(0), row.get(1))
}

/// Bytes of this session's process that are its own.
async fn resident(client: &Client) -> u64 {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_session_keeps_each_subscription_once_however_many_projects_it_meets() {
    let database = Database::new();
    let client = database.connect().await;
    client
        .batch_execute(&format!(
            "INSERT INTO klaxon.project (slug) SELECT format('known-%s', n) FROM generate_series(1, {PROJECTS}) AS n;
             INSERT INTO klaxon.subscription (events, filters)
             SELECT ARRAY['run.*'], jsonb_build_object('where', format('$.n > %s', n)) FROM generate_series(1, {SUBSCRIPTIONS}) AS n"
        ))
        .await
        .unwrap();
    let session = database.connect().await;
    emit(&session, "made-up").await;
    let few = resident(&session).await;
    emit(&session, "known").await;
    let (contexts, bytes) = left(&session).await;
    assert_eq!(contexts, 0, "parsing leaves nothing behind");
    assert!(bytes < 32 << 20, "{bytes} bytes in contexts");
    assert!(few < 32 << 20, "{few} bytes for projects that nobody knows");
    let all = resident(&session).await;
    // Each is compiled once, whatever the projects: some 200 bytes for each of them and project are not its filters.
    assert!(all < 32 << 20, "{all} bytes for projects that there are");
}

#[tokio::test]
async fn a_project_that_nobody_knows_is_heard_of_by_those_who_hear_of_all() {
    let database = Database::new();
    let client = database.connect().await;
    client
        .batch_execute(
            "INSERT INTO klaxon.project (slug, name) VALUES ('known', 'Known');
             INSERT INTO klaxon.member (project, principal) VALUES ('known', 'alice');
             INSERT INTO klaxon.subscription (owner, project, events, in_app) VALUES ('alice', NULL, '{run.failed}', true), ('alice', 'known', '{run.failed}', true)",
        )
        .await
        .unwrap();
    client
        .batch_execute(
            "SELECT klaxon.notify_event('run.failed', project => p) FROM unnest(ARRAY[NULL, 'late', 'other', 'known']) AS p;
             INSERT INTO klaxon.project (slug, name) VALUES ('late', 'Latecomer');
             SELECT klaxon.notify_event('run.failed', project => 'late');
             INSERT INTO klaxon.member (project, principal) VALUES ('late', 'alice');
             SELECT klaxon.notify_event('run.failed', project => 'late')",
        )
        .await
        .unwrap();
    let heard: Vec<(Option<String>, bool)> = client
        .query("SELECT project, title LIKE '%Latecomer%' FROM klaxon.inbox ORDER BY id", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let of = |project: &str| heard.iter().filter(|(of, _)| of.as_deref() == Some(project)).count();
    assert_eq!((heard.len(), of("known"), of("other"), of("late")), (6, 2, 1, 2), "{heard:?}");
    assert!(heard.last().unwrap().1, "{heard:?}");
}
