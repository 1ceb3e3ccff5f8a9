//! Worker processes that serve several databases.

use std::collections::HashSet;

use klaxon_tests::cluster::{Cluster, Stop};
use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;
use tokio_postgres::Client;

const SETTLED: &str = "NOT EXISTS (SELECT FROM klaxon.outbox)";

async fn emit(client: &Client, n: i32) {
    client.execute("SELECT klaxon.notify_event('run.failed', $1)", &[&json!({ "n": n })]).await.unwrap();
}

/// A database of the scene's deployment, on a server of its own, that tells a path of the receiver.
async fn another<'c>(scene: &Scene<'_>, cluster: &'c Cluster, path: &str) -> Database<'c> {
    let other = Database::create(cluster);
    let adopted = scene.installation.run(&["adopt", "--yes", "--database-url", &other.url()]).await;
    assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    let config = json!({"url": scene.receiver.serve(path, Hook::default())});
    let client = other.connect().await;
    client
        .execute(
            "INSERT INTO klaxon.channel (name, kind, config) VALUES ('there', 'webhook', $1)",
            &[&config],
        )
        .await
        .unwrap();
    client
        .batch_execute("SELECT klaxon.subscribe(ARRAY['there'], ARRAY['run.failed'], owner => NULL)")
        .await
        .unwrap();
    other
}

#[tokio::test]
async fn events_of_both_arrive_and_one_that_goes_away_does_not_stop_the_other() {
    let cluster = Cluster::start(&[]).unwrap();
    let scene = Scene::set(Database::new()).await;
    scene.webhook("here", Hook::default(), json!({}), &["run.failed"]).await;
    let other = another(&scene, &cluster, "/there").await;
    let mut client = other.connect().await;
    let mut worker = scene.worker(&["--database-url", &other.worker_url()]).await;
    emit(&scene.client, 1).await;
    emit(&client, 1).await;
    scene.receiver.wait_at("/here", 1).await;
    scene.receiver.wait_at("/there", 1).await;
    until(&scene.client, SETTLED).await;
    until(&client, SETTLED).await;

    cluster.stop(Stop::Immediate).unwrap();
    worker.wait_for_log("that one is away", |line| line.message() == "cannot reach postgres").await;
    for n in 2..=20 {
        emit(&scene.client, n).await;
    }
    scene.receiver.wait_at("/here", 20).await;
    until(&scene.client, SETTLED).await;

    cluster.restart().unwrap();
    client = other.connect().await;
    emit(&client, 2).await;
    let requests = scene.receiver.wait_at("/there", 2).await;
    assert_eq!(requests[1].json()["data"], json!({"n": 2}));
    until(&client, SETTLED).await;
    worker.signal("TERM");
    assert_eq!(worker.wait().await.code(), Some(0));
    assert_eq!(
        (scene.receiver.requests_at("/here").len(), scene.receiver.requests_at("/there").len()),
        (20, 2)
    );
    for (url, attempts) in [(scene.database.url(), 20_i64), (other.url(), 2)] {
        let verified = scene.installation.run(&["audit", "verify", "--database-url", &url]).await;
        assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
        let client = if attempts == 2 { &client } else { &scene.client };
        let logged = "SELECT count(*) FROM klaxon.delivery WHERE kind = 'attempt' AND status = 'sent'";
        assert_eq!(client.query_one(logged, &[]).await.unwrap().get::<_, i64>(0), attempts);
    }
}

/// Whether two workers divide the shards.
const SHARED: &str = "SELECT count(*) = 2 AND bool_and(cardinality(shards) = 32) FROM klaxon.worker";

#[tokio::test]
async fn three_databases_share_a_fleet_of_two_one_of_which_is_killed() {
    let clusters = [Cluster::start(&[]).unwrap(), Cluster::start(&[]).unwrap()];
    let scene = Scene::set(Database::new()).await;
    scene.webhook("first", Hook::default(), json!({}), &["run.failed"]).await;
    let second = another(&scene, &clusters[0], "/second").await;
    let third = another(&scene, &clusters[1], "/third").await;
    let urls = [second.worker_url(), third.worker_url()];
    let flags = ["--database-url", &urls[0], "--database-url", &urls[1]];
    let mut fleet = [scene.worker(&flags).await, scene.worker(&flags).await];
    let clients = [scene.database.connect().await, second.connect().await, third.connect().await];
    for client in &clients {
        until(client, SHARED).await;
        client
            .batch_execute(
                "INSERT INTO klaxon.event (type, payload)
                 SELECT 'run.failed', jsonb_build_object('n', n) FROM generate_series(1, 500) AS n",
            )
            .await
            .unwrap();
    }
    scene.receiver.wait_at("/third", 1).await;
    fleet[0].signal("KILL");
    fleet[0].wait().await;
    for (client, path) in clients.iter().zip(["/first", "/second", "/third"]) {
        until(client, SETTLED).await;
        let told: HashSet<String> = scene
            .receiver
            .requests_at(path)
            .iter()
            .map(|request| request.json()["data"]["n"].to_string())
            .collect();
        assert_eq!(told.len(), 500, "{path}");
    }
    fleet[1].signal("TERM");
    assert_eq!(fleet[1].wait().await.code(), Some(0));
    for url in [scene.database.url(), second.url(), third.url()] {
        let verified = scene.installation.run(&["audit", "verify", "--database-url", &url]).await;
        assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    }
}
