//! What befalls the network between the worker and Postgres, and a server that is no more.

use std::time::{Duration, Instant};

use klaxon_tests::cluster::{SUPERUSER, Stop};
use klaxon_tests::database::{Database, WORKER_ROLE};
use klaxon_tests::history::faults::Incident;
use klaxon_tests::history::now;
use klaxon_tests::proxy::Proxy;
use serde_json::Value;
use tokio::time::sleep;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Config};
use uuid::Uuid;

use crate::ground::Ground;
use crate::times;

/// Nothing arrives, in either direction, and nothing is reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn black_hole() {
    let holes = times(5, 1);
    let mut ground = Ground::set(&[]).await;
    let proxy = ground.scene.proxy().await;
    ground.emit(6);
    let worker = ground.scene.worker(&[]).await;
    for _ in 0..holes {
        let from = now();
        proxy.silence(true);
        // Longer than the worker waits for an answer: it tries to connect anew.
        sleep(Duration::from_secs(12)).await;
        proxy.silence(false);
        ground.incident("a silence", from);
        ground.recover().await;
    }
    let times = format!("{holes}, of 12 s");
    ground.judge("network::black_hole", "network black-holed without a reset", times, vec![worker]).await;
}

/// The primary is gone, and with it what the standby had not got yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_over() {
    let mut ground = Ground::set(&[]).await;
    let primary = ground.scene.database.cluster;
    let between = Proxy::start(([127, 0, 0, 1], primary.port()).into()).await.expect("a port is free");
    let standby = Box::leak(Box::new(primary.standby_by(between.address()).expect("the standby starts")));
    let name = ground.scene.database.name.clone();
    ground.scene.reach(&format!(
        "postgresql://{WORKER_ROLE}@127.0.0.1:{},127.0.0.1:{}/{name}?target_session_attrs=read-write",
        primary.port(),
        standby.port(),
    ));
    let mut way = Config::new();
    way.host("127.0.0.1").host("127.0.0.1").port(primary.port()).port(standby.port()).dbname(&name);
    way.user(SUPERUSER).target_session_attrs(TargetSessionAttrs::ReadWrite);
    ground.emit_by(6, &way);
    let worker = ground.scene.worker(&[]).await;
    sleep(Duration::from_secs(times(30, 3) as u64)).await;
    ground.recover_by(&way, Instant::now()).await;

    let from = now();
    between.silence(true);
    let heard = ground.receiver.count();
    ground.receiver.wait_for(crate::ground::DRAINED, heard + 200).await;
    // A row of the log that the standby has not got.
    sleep(Duration::from_millis(500)).await;
    let url = ground.scene.database.url();
    let output =
        ground.scene.installation.run(&["audit", "checkpoint", "--json", "--database-url", &url]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checkpoint = ground.scene.installation.folder().join("checkpoint.json");
    std::fs::write(&checkpoint, output.stdout).unwrap();
    primary.stop(Stop::Immediate).unwrap();
    drop(between);
    let promoted = Database { cluster: standby, name };
    promoted.psql("SELECT pg_promote()");
    let since = Instant::now();
    ground.incidents.push(Incident { fault: "a failover", from, until: now(), forgot: true });
    ground.scene.database = promoted;
    ground.scene.client = ground.scene.database.connect().await;
    ground.recover_by(&way, since).await;
    sleep(Duration::from_secs(times(30, 3) as u64)).await;
    ground.hush().await;

    // The standby's word is what counts now.
    let gone = missing(&ground.scene.client, ground.ledger.read().committed.keys().copied().collect()).await;
    ground.ledger.write(|entries| {
        for event in &gone {
            entries.committed.remove(event);
        }
        // Whose client had not heard of its end, may have been committed on the old primary.
        let unheard: Vec<_> = entries.unheard_of.drain().collect();
        for event in &unheard {
            entries.rolled_back.remove(event);
        }
        entries.gone.extend(gone.iter().copied().chain(unheard));
    });
    let output = ground
        .scene
        .installation
        .run(&[
            "audit",
            "verify",
            "--json",
            "--checkpoint",
            &checkpoint.display().to_string(),
            "--database-url",
            &ground.scene.database.url(),
        ])
        .await;
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &verdict["verdict"]), (Some(1), &Value::from("rewound")), "{verdict}");
    assert!(!gone.is_empty(), "everything was replicated");
    let times = format!("1; {} events had not been replicated", gone.len());
    ground.judge("network::failed_over", "primary lost, standby promoted", times, vec![worker]).await;
}

async fn missing(client: &Client, events: Vec<Uuid>) -> Vec<Uuid> {
    let sql = "SELECT t.id FROM unnest($1::uuid[]) AS t (id) WHERE NOT EXISTS (SELECT FROM klaxon.event AS e WHERE e.id = t.id)";
    client.query(sql, &[&events]).await.unwrap().iter().map(|row| row.get(0)).collect()
}
