//! A cluster that pg_upgrade takes from Debian's version of Postgres to the one under test.

use std::io::Write as _;

use klaxon_tests::cluster::{Cluster, Stop, Surroundings};
use klaxon_tests::database::Database;
use klaxon_tests::postgres::Postgres;
use klaxon_tests::process;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;

/// How often the old cluster's transaction ids have wrapped: those in `outbox` have more than 32 bits.
const EPOCH: u64 = 3;

/// The name of an option of columns.
const MARK: &[u8] = b"pg_attver";

/// Every table, by number of rows and what is in them, and every sequence, by what it gave last.
const EVERYTHING: &str = "
    SELECT c.oid::regclass::text,
           (xpath('/table/row/n/text()', query_to_xml(format(
               'SELECT count(*) || '' '' || coalesce(md5(string_agg(t::text, '','' ORDER BY t::text)), '''') AS n FROM %s AS t',
               c.oid::regclass), true, false, '')))[1]::text
    FROM pg_class AS c WHERE c.relnamespace = 'klaxon'::regnamespace AND c.relkind = 'r'
    UNION ALL
    SELECT sequencename::text, coalesce(last_value, 0)::text FROM pg_sequences WHERE schemaname = 'klaxon'
    ORDER BY 1";

async fn everything(scene: &Scene<'_>) -> Vec<(String, String)> {
    let rows = scene.client.query(EVERYTHING, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The releases of November 2026 mark every column with an option that earlier ones refuse, of whatever version.
async fn unmark(scene: &Scene<'_>, after: &Postgres) {
    if !std::fs::read(after.program("postgres")).unwrap().windows(MARK.len()).any(|part| part == MARK) {
        let unmark = "UPDATE pg_attribute SET attoptions = NULL WHERE attoptions::text LIKE '%pg_attver=%'";
        scene.client.batch_execute(unmark).await.unwrap();
    }
}

/// The versions between which there is something to test, the older first.
fn versions() -> Option<(Postgres, Postgres)> {
    let (before, after) = (Postgres::before().unwrap(), Postgres::under_test().unwrap());
    let lacks = if before.major().unwrap() >= after.major().unwrap() {
        "a later version of Postgres under test than Debian's, as `make test-versions` has"
    } else if before.has_klaxon() {
        return Some((before, after));
    } else {
        assert!(std::env::var_os("KLAXON_MUST_TEST").is_none(), "Debian's Postgres has no pg_klaxon");
        "pg_klaxon in Debian's Postgres: make install"
    };
    // Past the capture of the test's output: who reads it is to know.
    let _ = writeln!(std::io::stderr(), "NOT TESTED: pg_upgrade needs {lacks}");
    None
}

#[tokio::test]
async fn what_was_there_is_there_and_goes_on() {
    let Some((before, after)) = versions() else { return };
    let surroundings = Surroundings { postgres: Some(before.clone()), ..Surroundings::default() };
    let settings = [("shared_preload_libraries", "pg_klaxon"), ("fsync", "off")];
    let old = Cluster::start_in(surroundings, &settings).unwrap();
    old.stop(Stop::Fast).unwrap();
    let mut wrap = process::unprivileged(before.program("pg_resetwal"));
    process::run(wrap.current_dir("/").args(["--epoch", &EPOCH.to_string()]).arg(old.data())).unwrap();
    old.restart().unwrap();

    // Some were sent, one died, some wait, one of them for a second attempt, and one is for a digest.
    let mut scene = Scene::set(Database::create(&old)).await;
    scene.webhook("hook", Hook::default().secret("kept"), json!({}), &["run.failed"]).await;
    let refusing = Hook::default().statuses([500]);
    scene.webhook("refusing", refusing, json!({"retry_schedule": []}), &["task.failed"]).await;
    let flaky = Hook::default().statuses([503, 200]);
    scene.webhook("flaky", flaky, json!({"retry_schedule": [86_400]}), &["cluster.new"]).await;
    scene.database.psql(
        "INSERT INTO klaxon.project (slug, name) VALUES ('p', 'P');
         INSERT INTO klaxon.member (project, principal, role) VALUES ('p', 'alice', 'admin');
         SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.finished'], mode => 'digest', digest_at => '04:00', owner => NULL)",
    );
    let mut worker = scene.worker(&[]).await;
    for n in 1..=3 {
        scene.emit("run.failed", json!({"n": n})).await;
    }
    scene.emit("task.failed", json!({})).await;
    scene.emit("cluster.new", json!({})).await;
    until(
        &scene.client,
        "(SELECT array_agg(attempts) = '{1}' FROM klaxon.outbox) AND EXISTS (SELECT FROM klaxon.dead_letter)
         AND NOT EXISTS (SELECT FROM klaxon.config_change)",
    )
    .await;
    worker.signal("TERM");
    assert_eq!(worker.wait().await.code(), Some(0));
    for n in 4..=8 {
        scene.emit("run.failed", json!({"n": n})).await;
    }
    scene.emit("run.finished", json!({})).await;
    unmark(&scene, &after).await;
    let were = everything(&scene).await;
    assert!(were.iter().filter(|(_, rows)| !rows.starts_with("0 ")).count() > 15, "{were:?}");

    let new = old.upgraded(after).unwrap();
    scene.database = Database { cluster: &new, name: scene.database.name.clone() };
    scene.client = scene.database.connect().await;
    assert_eq!(everything(&scene).await, were);
    // Workers read by these ids: what is written from here on has greater ones.
    let ids = "SELECT (min(xid::text::numeric) / 2 ^ 32)::bigint, max(xid) < pg_current_xact_id() FROM klaxon.outbox";
    let row = scene.client.query_one(ids, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1)), (EPOCH.cast_signed(), true));

    scene.database_url(scene.database.worker_url());
    let verify = ["audit", "verify", "--database-url", &scene.database.url()];
    let verified = scene.installation.run(&verify).await;
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    let mut worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({"n": 9})).await;
    let requests = scene.receiver.wait_at("/hook", 9).await;
    let mut told: Vec<_> = requests.iter().map(|request| request.json()["data"]["n"].as_i64()).collect();
    told.sort_unstable();
    assert_eq!(told, (1..=9).map(Some).collect::<Vec<_>>());
    assert!(requests.iter().all(|request| request.verified == Some(Ok(()))), "the secret opens");
    // What waits for its second attempt still does, and a dead letter can be sent again.
    until(&scene.client, "(SELECT array_agg(attempts) = '{1}' FROM klaxon.outbox)").await;
    scene.client.batch_execute("SELECT klaxon.retry_dead('refusing')").await.unwrap();
    scene.receiver.wait_at("/refusing", 2).await;
    scene.database.psql(
        "INSERT INTO klaxon.channel (name, kind, config) VALUES ('new', 'webhook', '{\"url\": \"https://new.test/\"}');
         SELECT klaxon.subscribe(ARRAY['new'], ARRAY['run.failed'], owner => NULL)",
    );
    worker.signal("TERM");
    assert_eq!(worker.wait().await.code(), Some(0));
    let verified = scene.installation.run(&verify).await;
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    // Everything is still the extension's.
    scene.client.batch_execute("DROP EXTENSION pg_klaxon; DROP SCHEMA IF EXISTS klaxon").await.unwrap();
}

/// Operators are told to end the workers first. One that was forgotten loses nothing, and sends nothing again.
#[tokio::test]
async fn a_worker_that_was_left_running_goes_on() {
    let Some((before, after)) = versions() else { return };
    let surroundings = Surroundings { postgres: Some(before), ..Surroundings::default() };
    let settings = [("shared_preload_libraries", "pg_klaxon"), ("fsync", "off")];
    let old = Cluster::start_in(surroundings, &settings).unwrap();
    let mut scene = Scene::set(Database::create(&old)).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let proxy = scene.proxy().await;
    let mut worker = scene.worker(&[]).await;
    unmark(&scene, &after).await;
    let emit = "INSERT INTO klaxon.event (type, payload) SELECT 'run.failed', jsonb_build_object('n', n) FROM generate_series";
    scene.client.batch_execute(&format!("{emit}(1, 20000) AS n")).await.unwrap();
    // In the middle of its work.
    scene.receiver.wait_at("/hook", 2_000).await;

    let new = old.upgraded(after).unwrap();
    proxy.lead_to(([127, 0, 0, 1], new.port()).into());
    scene.database = Database { cluster: &new, name: scene.database.name.clone() };
    scene.client = scene.database.connect().await;
    scene.client.batch_execute(&format!("{emit}(20001, 20100) AS n")).await.unwrap();
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let mut told: Vec<_> = scene
        .receiver
        .requests_at("/hook")
        .iter()
        .map(|request| request.json()["data"]["n"].as_i64())
        .collect();
    told.sort_unstable();
    assert!(told == (1..=20_100).map(Some).collect::<Vec<_>>(), "{} requests", told.len());
    worker.signal("TERM");
    assert_eq!(worker.wait().await.code(), Some(0), "{:#?}", worker.log());
    scene.database_url(scene.database.worker_url());
    let verified =
        scene.installation.run(&["audit", "verify", "--database-url", &scene.database.url()]).await;
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
}
