//! A database that moves: what a dump carries, how a copy of it behaves, and what is left when the extension goes.

use std::path::Path;

use klaxon_tests::cluster::{Cluster, Stop};
use klaxon_tests::database::Database;
use klaxon_tests::process;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use klaxon_tests::worker::{Installation, Worker};
use serde_json::{Value, json};

/// Tables that a dump carries, by number of rows and what is in them. Rows that wait are given the restoring
/// transaction's id, so that they are found; built-in event types are made anew by the extension,
/// and what had been edited of them is edited again.
const CARRIED: &str = "
    SELECT c.oid::regclass::text,
           (xpath('/table/row/n/text()', query_to_xml(format(
               'SELECT count(*) || '' '' || coalesce(md5(string_agg((to_jsonb(t) - ''xid'')::text, '','' ORDER BY (to_jsonb(t) - ''xid'')::text)), '''') AS n FROM %s AS t',
               c.oid::regclass), true, false, '')))[1]::text
    FROM pg_extension AS e CROSS JOIN unnest(e.extconfig) AS config (oid) JOIN pg_class AS c ON c.oid = config.oid
    WHERE e.extname = 'pg_klaxon' AND c.relkind = 'r' AND c.relname <> 'event_type'
    ORDER BY 1";

/// Relations, functions and types in the schema.
const LEFT: &str = "
    SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid) + (SELECT count(*) FROM pg_proc WHERE pronamespace = n.oid)
         + (SELECT count(*) FROM pg_type WHERE typnamespace = n.oid)
    FROM pg_namespace AS n WHERE n.nspname = 'klaxon'";

/// Where those that wait were emitted.
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Some were sent, one died, some wait, some are to go into a digest; nobody works there.
async fn lived(database: Database<'static>) -> Scene<'static> {
    let scene = Scene::set(database).await;
    scene.webhook("hook", Hook::default().secret("kept"), json!({}), &["run.failed"]).await;
    let refusing = Hook::default().statuses([500]);
    scene.webhook("refusing", refusing, json!({"retry_schedule": []}), &["task.failed"]).await;
    scene.database.psql(
        "INSERT INTO klaxon.project (slug, name) VALUES ('p', 'P');
         INSERT INTO klaxon.member (project, principal, role) VALUES ('p', 'alice', 'admin');
         UPDATE klaxon.event_type SET severity = 'critical' WHERE name = 'run.failed';
         SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.finished'], mode => 'digest', digest_at => '04:00', owner => NULL)",
    );
    let mut worker = scene.worker(&[]).await;
    for n in 1..=3 {
        scene.emit("run.failed", json!({"n": n})).await;
    }
    scene.emit("task.failed", json!({})).await;
    scene.receiver.wait_at("/hook", 3).await;
    until(
        &scene.client,
        "NOT EXISTS (SELECT FROM klaxon.outbox) AND NOT EXISTS (SELECT FROM klaxon.config_change)",
    )
    .await;
    worker.signal("TERM");
    assert_eq!(worker.wait().await.code(), Some(0));
    scene.client.batch_execute(&format!("SET klaxon.traceparent = '{TRACEPARENT}'")).await.unwrap();
    for n in 4..=8 {
        scene.emit("run.failed", json!({"n": n})).await;
    }
    scene.emit("run.finished", json!({"n": 9})).await;
    scene
}

async fn carried(database: &Database<'_>) -> Vec<(String, String)> {
    let rows = database.connect().await.query(CARRIED, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// What was dumped into another database is the same there, pages nobody but by its own deployment, and goes on.
async fn goes_on(scene: &mut Scene<'static>, before: Vec<(String, String)>, copy: Database<'static>) {
    let after = carried(&copy).await;
    assert_eq!(after, before);
    assert!(before.iter().filter(|(_, rows)| !rows.starts_with("0 ")).count() > 10, "{before:?}");
    assert_eq!(copy.psql("SELECT severity FROM klaxon.event_type WHERE name = 'run.failed'"), "critical");

    let copied = ["--database-url", &copy.url()];
    let verify = scene.installation.run(&[&["audit", "verify", "--json"][..], &copied].concat()).await;
    assert_eq!(verify.status.code(), Some(0), "{}", String::from_utf8_lossy(&verify.stdout));

    // Staging has a deployment of its own, and a copy of production's database.
    let staging = Database::new();
    let other = Installation::init(&staging.url()).await;
    let refused = other.run(&["run", "--database-url", &copy.worker_url()]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a copy must not page anyone"));
    assert_eq!(scene.receiver.requests_at("/hook").len(), 3);

    scene.database_url(copy.worker_url());
    let worker = scene.worker(&[]).await;
    let client = copy.connect().await;
    client.execute("SELECT klaxon.notify_event('run.failed', '{\"n\": 10}')", &[]).await.unwrap();
    let requests = scene.receiver.wait_at("/hook", 9).await;
    until(&client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let mut told: Vec<_> = requests.iter().map(|request| request.json()["data"]["n"].as_i64()).collect();
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3, 4, 5, 6, 7, 8, 10].map(Some), "what was sent is not sent again");
    let traced = requests.iter().filter(|request| request.header("traceparent") == TRACEPARENT).count();
    assert_eq!(traced, 5, "and what waited goes on in its trace");
    ends_well(scene, &copy, worker).await;
}

/// Sequences go on behind what they had given, the worker ends as asked, and the log verifies.
async fn ends_well(scene: &Scene<'_>, copy: &Database<'_>, mut worker: Worker) {
    copy.psql(
        "INSERT INTO klaxon.channel (name, kind, config) VALUES ('new', 'webhook', '{\"url\": \"https://new.test/\"}');
         SELECT klaxon.subscribe(ARRAY['new'], ARRAY['run.failed'], owner => NULL)",
    );
    worker.signal("TERM");
    assert_eq!(worker.wait().await.code(), Some(0));
    let verify = scene.installation.run(&["audit", "verify", "--database-url", &copy.url()]).await;
    assert_eq!(verify.status.code(), Some(0), "{}", String::from_utf8_lossy(&verify.stdout));
}

/// The same by files: transaction ids are as they were, and so are the log's.
#[tokio::test]
async fn a_base_backup_is_the_cluster_as_it_was() {
    let cluster = Box::leak(Box::new(Cluster::start(&[("fsync", "off")]).unwrap()));
    let mut scene = lived(Database::create(cluster)).await;
    let before = carried(&scene.database).await;
    let restored = Box::leak(Box::new(cluster.restored().unwrap()));
    let copy = Database { cluster: restored, name: scene.database.name.clone() };

    // What was backed up goes on, and its log: the copy is behind.
    let mut worker = scene.worker(&[]).await;
    scene.receiver.wait_at("/hook", 8).await;
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    worker.signal("TERM");
    assert_eq!(worker.wait().await.code(), Some(0));
    let checkpoint = scene.installation.run(&["audit", "checkpoint", "--json"]).await;
    let file = scene.installation.folder().join("checkpoint.json");
    std::fs::write(&file, checkpoint.stdout).unwrap();
    cluster.stop(Stop::Fast).unwrap();

    assert_eq!(carried(&copy).await, before);
    let copied = ["--database-url", &copy.url()];
    let verify = scene.installation.run(&[&["audit", "verify", "--json"][..], &copied].concat()).await;
    assert_eq!(verify.status.code(), Some(0), "{}", String::from_utf8_lossy(&verify.stdout));
    let later = ["audit", "verify", "--json", "--checkpoint", file.to_str().unwrap()];
    let verify = scene.installation.run(&[&later[..], &copied].concat()).await;
    let verdict: Value = serde_json::from_slice(&verify.stdout).unwrap();
    assert_eq!((verify.status.code(), &verdict["verdict"]), (Some(1), &json!("rewound")), "{verdict}");
    let staging = Database::new();
    let refused =
        Installation::init(&staging.url()).await.run(&["run", "--database-url", &copy.worker_url()]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a copy must not page anyone"));

    // Its own deployment takes it up: what was pending is sent, as after any crash.
    scene.database_url(copy.worker_url());
    let worker = scene.worker(&[]).await;
    let client = copy.connect().await;
    client.execute("SELECT klaxon.notify_event('run.failed', '{\"n\": 10}')", &[]).await.unwrap();
    let requests = scene.receiver.wait_at("/hook", 14).await;
    until(&client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let mut told: Vec<_> = requests[8..].iter().map(|request| request.json()["data"]["n"].as_i64()).collect();
    told.sort_unstable();
    assert_eq!(told, [4, 5, 6, 7, 8, 10].map(Some));
    ends_well(&scene, &copy, worker).await;
}

fn run(database: &Database<'_>, program: &str, arguments: &[&str], file: &Path) {
    process::run(database.cluster.client(program, &database.name).args(arguments).arg(file)).unwrap();
}

#[tokio::test]
async fn a_plain_dump_is_the_database_again() {
    let mut scene = lived(Database::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let (dump, before) = (folder.path().join("dump.sql"), carried(&scene.database).await);
    run(&scene.database, "pg_dump", &["-f"], &dump);
    let copy = Database::bare(scene.database.cluster);
    run(&copy, "psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"], &dump);
    goes_on(&mut scene, before, copy).await;
}

/// With one job `pg_restore` goes by the order of the archive; with several it has none, see below.
#[tokio::test]
async fn an_archive_is_the_database_again() {
    for jobs in ["1", "4"] {
        let mut scene = lived(Database::new()).await;
        let folder = tempfile::tempdir().unwrap();
        let (dump, before) = (folder.path().join("dump"), carried(&scene.database).await);
        run(&scene.database, "pg_dump", &["-Fd", "-j", "4", "-f"], &dump);
        let copy = Database::bare(scene.database.cluster);
        run(&copy, "pg_restore", &["--exit-on-error", "-j", jobs, "-d", &copy.name], &dump);
        goes_on(&mut scene, before, copy).await;
    }
}

/// Tables with foreign keys among them, large enough that which is loaded first is left to chance. Nobody has
/// sealed any of the changes yet.
const MANY: &str = "
    SET synchronous_commit = off;
    SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
    UPDATE klaxon.event_type SET severity = 'critical' WHERE name = 'run.failed';
    INSERT INTO klaxon.project (slug) SELECT 'p' || n FROM generate_series(1, :rows) AS n;
    INSERT INTO klaxon.member (project, principal) SELECT 'p' || n, 'alice' FROM generate_series(1, :rows) AS n;
    INSERT INTO klaxon.default_subscription (project, events) SELECT 'p' || n, '{run.failed}' FROM generate_series(1, :rows) AS n;
    INSERT INTO klaxon.subscription (owner, project, events, default_subscription_id)
    SELECT 'alice', d.project, d.events, d.id FROM klaxon.default_subscription AS d;
    INSERT INTO klaxon.channel (name, kind, project, config)
    SELECT 'c', 'webhook', 'p' || n, '{\"url\": \"https://hook.test/\", \"hmac_secret\": \"s\"}' FROM generate_series(1, :rows) AS n;
    INSERT INTO klaxon.subscription_channel (subscription_id, channel_id)
    SELECT s.id, c.id FROM klaxon.subscription AS s JOIN klaxon.channel AS c USING (project)";

/// What is derived of subscriptions is not in the dump.
const DERIVED: &str = "
    SELECT count(*) || ' ' || md5(string_agg(concat_ws(' ', pattern, project, subscription_id), ',' ORDER BY subscription_id, pattern))
    FROM klaxon.subscription_pattern";

fn drawn(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |number| number.parse().expect("a number"))
}

/// Each restore is another draw: `KLAXON_RESTORES` is how many, of `KLAXON_RESTORE_ROWS` rows a table.
#[tokio::test]
async fn several_jobs_restore_in_whatever_order() {
    let database = Database::new();
    let rows = drawn("KLAXON_RESTORE_ROWS", 2000);
    database.psql(&MANY.replace(":rows", &rows.to_string()));
    let folder = tempfile::tempdir().unwrap();
    let (dump, before) = (folder.path().join("dump"), carried(&database).await);
    let derived = database.psql(DERIVED);
    run(&database, "pg_dump", &["-Fd", "-j", "2", "-f"], &dump);
    let mut refused = 0;
    let times = drawn("KLAXON_RESTORES", 2);
    for (turn, jobs) in ["4", "8"].into_iter().cycle().take(times).enumerate() {
        let copy = Database::bare(database.cluster);
        run(&copy, "pg_restore", &["--exit-on-error", "-j", jobs, "-d", &copy.name], &dump);
        assert_eq!(carried(&copy).await, before, "{turn}");
        assert_eq!(copy.psql(DERIVED), derived);
        assert_eq!(copy.psql("SELECT count(*) FROM klaxon.orphans()"), "0");
        assert_eq!(copy.psql("SELECT severity FROM klaxon.event_type WHERE name = 'run.failed'"), "critical");

        // By another name nothing steps aside.
        let other = Database::bare(database.cluster);
        let mut command = other.cluster.client("pg_restore", &other.name);
        command.env("PGAPPNAME", "other").args(["--exit-on-error", "-j", jobs, "-d", &other.name]).arg(&dump);
        refused += usize::from(process::run(&mut command).is_err());
    }
    eprintln!("{times} restores; by another name {refused} of as many were refused");
    assert!(refused > 0, "the order never mattered: this has shown nothing");
}

#[tokio::test]
async fn an_extension_that_is_dropped_leaves_nothing_and_can_be_made_again() {
    let scene = lived(Database::new()).await;
    scene.client.batch_execute("DROP EXTENSION pg_klaxon").await.unwrap();
    let left: Vec<i64> = scene.client.query(LEFT, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(left.iter().all(|left| *left == 0), "{left:?}");
    scene.client.batch_execute("CREATE EXTENSION pg_klaxon").await.unwrap();
    let installation = Installation::init(&scene.database.url()).await;
    let mut worker = installation.start(&["--database-url".into(), scene.database.worker_url()]);
    worker.ready().await;
    assert_eq!(scene.database.psql("SELECT count(*) FROM klaxon.channel"), "0");
}
