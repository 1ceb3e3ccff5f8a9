//! What befalls Postgres.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use klaxon_tests::cluster::{Cluster, SUPERUSER, Stop, Surroundings};
use klaxon_tests::history::now;
use klaxon_tests::limit::within;
use klaxon_tests::process;
use klaxon_tests::proxy::Proxy;
use tokio::time::sleep;
use tokio_postgres::{Client, Config, NoTls};

use crate::ground::{DRAINED, Ground, SETTINGS};
use crate::{is_full, times};

/// As a crash stops it, and started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped() {
    let stops = times(20, 2);
    let mut ground = Ground::set(&[]).await;
    ground.emit(6);
    let workers = vec![ground.scene.worker(&[]).await, ground.scene.worker(&[]).await];
    for _ in 0..stops {
        let arrived = ground.receiver.count();
        ground.load(500).await;
        ground.receiver.wait_for(DRAINED, arrived + 300).await;
        let from = now();
        ground.scene.database.cluster.stop(Stop::Immediate).unwrap();
        ground.scene.database.cluster.restart().unwrap();
        ground.incident("a stop of Postgres", from);
        ground.recover().await;
        ground.scene.client = ground.scene.database.connect().await;
    }
    ground.judge("postgres::stopped", "Postgres stopped (`immediate`)", stops.to_string(), workers).await;
}

/// Anybody's session, five times a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_ended() {
    let ends = times(300, 30);
    let mut ground = Ground::set(&[]).await;
    ground.emit(6);
    let workers = vec![ground.scene.worker(&[]).await, ground.scene.worker(&[]).await];
    let sql = "SELECT pg_terminate_backend(pid), application_name LIKE 'klaxon%' FROM (
                   SELECT a.pid, a.application_name FROM pg_stat_activity AS a
                   WHERE a.pid <> pg_backend_pid() AND a.datname = current_database()
                     AND a.backend_type IN ('client backend', 'klaxon relay') ORDER BY random() LIMIT 1) AS one";
    let executioner = ground.scene.database.connect().await;
    for _ in 0..ends {
        let from = now();
        let ended = executioner.query_opt(sql, &[]).await.unwrap();
        if ended.is_some_and(|row| row.get(1)) {
            ground.incident("the end of a worker's session", from);
        }
        sleep(Duration::from_millis(200)).await;
    }
    ground.recover().await;
    ground
        .judge("postgres::backends_ended", "backends ended at random, 5 a second", ends.to_string(), workers)
        .await;
}

/// Its data has a file system of its own, which somebody else fills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_full() {
    const TEST: &str = "postgres::disk_full";
    if !process::is_root() {
        let _ = writeln!(std::io::stderr(), "NOT TESTED: {TEST} mounts a file system, which is root's");
        return;
    }
    let fills = times(5, 1);
    let surroundings = Surroundings { room: Some(300), ..Surroundings::default() };
    let settings = [&SETTINGS, &[("max_wal_size", "64MB"), ("min_wal_size", "32MB")][..]].concat();
    let cluster = Cluster::start_in(surroundings, &settings).expect("the cluster starts");
    let mut ground = Ground::on(cluster).await;
    ground.emit(6);
    let workers = vec![ground.scene.worker(&[]).await];
    let cluster = ground.scene.database.cluster;
    let filler = cluster.data().join("filler");
    let complaints = || cluster.log().matches("No space left on device").count();
    for _ in 0..fills {
        let (from, before) = (now(), complaints());
        let mut file = OpenOptions::new().create(true).append(true).open(&filler).unwrap();
        let piece = vec![0; 1 << 16];
        within("Postgres to find no room", async {
            // What Postgres frees meanwhile is filled, too.
            while complaints() < before + 5 {
                while file.write_all(&piece).is_ok() {}
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        sleep(Duration::from_secs(2)).await;
        std::fs::remove_file(&filler).unwrap();
        drop(file);
        // It ends where it has no room for its log; somebody starts it again then.
        if !cluster.is_running() {
            cluster.stop(Stop::Immediate).unwrap();
            cluster.restart().unwrap();
        }
        ground.incident("a full disk", from);
        ground.recover().await;
    }
    ground.judge(TEST, "disk full under the data directory, and freed", fills.to_string(), workers).await;
}

/// Nobody gets in, and a worker that lost its session neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_exhausted() {
    let exhaustions = times(5, 1);
    let mut ground = Ground::set(&[("max_connections", "40")]).await;
    ground.emit(4);
    let workers = vec![ground.scene.worker(&[]).await];
    for _ in 0..exhaustions {
        let (from, began, mut taken) = (now(), Instant::now(), Vec::<Client>::new());
        let way = ground.scene.database.way(SUPERUSER);
        let mut refused = 0;
        while began.elapsed() < Duration::from_secs(4) || refused < 20 {
            match way.connect(NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(async move { drop(connection.await) });
                    taken.push(client);
                }
                Err(_) => {
                    if refused == 0 {
                        let worker = "SELECT pg_terminate_backend(pid) FROM klaxon.worker";
                        ground.scene.client.batch_execute(worker).await.unwrap();
                    }
                    refused += 1;
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }
        drop(taken);
        ground.incident("the end of a worker's session", from);
        ground.recover().await;
    }
    let fault = "max_connections exhausted, the worker's session ended";
    ground.judge("postgres::connections_exhausted", fault, exhaustions.to_string(), workers).await;
}

/// The answer to a COMMIT does not arrive, and the connection ends: the clients' and the worker's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_cut() {
    let (clients, workers) = (times(950, 40), times(50, 4));
    let mut ground = Ground::set(&[]).await;
    let server = SocketAddr::from(([127, 0, 0, 1], ground.scene.database.cluster.port()));
    let between = Proxy::start(server).await.expect("a port is free");
    let mut way = Config::new();
    way.host("127.0.0.1").port(between.address().port()).user(SUPERUSER).dbname(&ground.scene.database.name);
    ground.emit_by(if is_full() { 12 } else { 6 }, &way);
    let worker_proxy = ground.scene.proxy().await;
    let worker = ground.scene.worker(&[]).await;
    let cut_clients = async {
        for _ in 0..clients {
            between.cut_at_commit();
            between.has_cut().await;
        }
    };
    let cut_workers = async {
        for _ in 0..workers {
            worker_proxy.cut_at_commit();
            worker_proxy.has_cut().await;
        }
    };
    tokio::join!(cut_clients, cut_workers);
    ground.recover().await;
    let unheard = ground.ledger.read().unheard;
    let times = format!("{clients} of clients, {workers} of the worker");
    let fault = "connection cut after COMMIT was sent";
    ground.judge("postgres::commits_cut", fault, times, vec![worker]).await;
    assert!(unheard >= clients * 9 / 10, "{unheard} transactions whose end was not heard");
}
