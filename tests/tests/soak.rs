//! Five hundred events a second for as long as it is asked, while subscriptions come and go, sessions are ended
//! and workers stall: nothing grows. `make soak` runs it for `SOAK_SECONDS`.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until_within;
use klaxon_tests::worker::Worker;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_postgres::Client;

/// Events a second.
const RATE: u64 = 500;
/// How often they are made.
const TICK: Duration = Duration::from_millis(100);
/// Channels that hear of every event.
const PATHS: [&str; 2] = ["one", "two"];

/// `KLAXON_SOAK_SECONDS`: a minute without.
fn length() -> Duration {
    let seconds = std::env::var("KLAXON_SOAK_SECONDS").ok();
    Duration::from_secs(
        seconds.map_or(60, |seconds| seconds.parse().expect("KLAXON_SOAK_SECONDS is a number")),
    )
}

/// What is measured, and by how much it may be more at the end than at the beginning, going by the straight
/// line through all that was measured.
#[derive(Clone, Copy, Debug)]
struct Measure {
    name: &'static str,
    /// Growth that is none, in its own unit.
    noise: f64,
    /// Growth that is none, as a share of the mean.
    share: f64,
}

const MEASURES: [Measure; 5] = [
    Measure { name: "worker's memory, MB", noise: 6.0, share: 0.1 },
    Measure { name: "worker's file descriptors", noise: 8.0, share: 0.1 },
    Measure { name: "locks", noise: 20.0, share: 0.1 },
    // What is dead is cleaned now and then, not all the time.
    Measure { name: "size of the outbox, MB", noise: 16.0, share: 0.25 },
    Measure { name: "95th percentile of the latency, ms", noise: 150.0, share: 0.25 },
];

/// The straight line through the points by least squares, as its rise from the first to the last, and the mean.
fn rise(points: &[(f64, f64)]) -> (f64, f64) {
    #[allow(clippy::cast_precision_loss, reason = "a few thousand of them")]
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let along = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>();
    let spread = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>();
    let width = points.last().map_or(0.0, |(x, _)| *x) - points.first().map_or(0.0, |(x, _)| *x);
    (along / spread * width, mean_y)
}

#[test]
fn a_slope_is_seen_through_noise() {
    let points: Vec<_> =
        (0..100).map(|x| (f64::from(x), 5.0 + f64::from(x) * 0.5 + f64::from(x % 2))).collect();
    let (rise, mean) = rise(&points);
    assert!((rise - 49.5).abs() < 0.5 && (mean - 30.25).abs() < 0.1, "{rise} {mean}");
}

struct Sample {
    at: f64,
    values: [f64; MEASURES.len()],
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7.0} s", self.at)?;
        self.values.iter().try_for_each(|value| write!(f, " {value:>9.1}"))
    }
}

async fn sample(client: &Client, worker: &Worker, at: f64, last: &mut i64) -> Option<Sample> {
    let sql = "SELECT (SELECT count(*) FROM pg_locks WHERE locktype <> 'advisory')::float8,
                      pg_total_relation_size('klaxon.outbox') / 1e6::float8,
                      percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM d.attempted_at - e.created_at) * 1000)::float8,
                      max(d.seq)
               FROM klaxon.delivery AS d JOIN klaxon.event AS e ON e.id = d.event_id WHERE d.seq > $1";
    let row = client.query_one(sql, &[last]).await.unwrap();
    *last = row.get::<_, Option<i64>>(3)?;
    let (memory, descriptors) = (worker.memory(), worker.descriptors());
    #[allow(clippy::cast_precision_loss, reason = "figures to look at")]
    let values = [memory as f64 / 1e6, descriptors as f64, row.get(0), row.get(1), row.get(2)];
    Some(Sample { at, values })
}

/// Subscriptions that come, change and go, of personal channels that hear of nothing.
async fn churn(client: Client, stop: watch::Receiver<bool>) {
    for number in 0.. {
        if *stop.borrow() {
            return;
        }
        let sql = format!(
            "SELECT klaxon.subscribe(ARRAY['one'], ARRAY['cluster.*'], project => 'churn', owner => NULL);
             UPDATE klaxon.subscription SET filters = '{{\"priority_min\": {}}}' WHERE project = 'churn';
             DELETE FROM klaxon.subscription WHERE project = 'churn' AND id % 3 = {}",
            number % 4,
            number % 3
        );
        client.batch_execute(&sql).await.expect("an administrator may");
        sleep(Duration::from_millis(500)).await;
    }
}

/// Every few seconds the worker's session is ended, or the relay, or the worker stalls for a moment.
async fn faults(client: Client, pid: u32, stop: watch::Receiver<bool>) {
    for number in 0.. {
        sleep(Duration::from_secs(5)).await;
        if *stop.borrow() {
            return;
        }
        let whose = match number % 3 {
            0 => "SELECT pid FROM klaxon.worker",
            1 => "SELECT pid FROM pg_stat_activity WHERE backend_type = 'klaxon relay'",
            _ => {
                klaxon_tests::process::signal(pid, "STOP").expect("the worker runs");
                sleep(Duration::from_millis(300)).await;
                klaxon_tests::process::signal(pid, "CONT").expect("the worker runs");
                continue;
            }
        };
        let sql = format!("SELECT pg_terminate_backend(pid) FROM ({whose}) AS one");
        client.batch_execute(&sql).await.expect("a superuser may");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_grows() {
    let length = length();
    let cluster = Box::leak(Box::new(
        Cluster::start(&[
            ("shared_preload_libraries", "pg_klaxon"),
            ("fsync", "off"),
            ("autovacuum_naptime", "2s"),
            ("max_wal_size", "4GB"),
        ])
        .expect("the cluster starts"),
    ));
    let scene = Scene::set(Database::create(cluster)).await;
    let client = &scene.client;
    let name = &scene.database.name;
    client.batch_execute(&format!("ALTER SYSTEM SET klaxon.relay_database = '{name}'")).await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    client.batch_execute("INSERT INTO klaxon.project (slug, name) VALUES ('churn', 'Churn')").await.unwrap();
    for path in PATHS {
        scene.webhook(path, Hook::default().secret("soak").counting(), json!({}), &["run.finished"]).await;
    }
    let worker = scene.worker(&[]).await;
    let (stop, stopped) = watch::channel(false);
    let beside = [
        tokio::spawn(churn(scene.database.connect().await, stopped.clone())),
        tokio::spawn(faults(scene.database.connect().await, worker.pid(), stopped)),
    ];
    let monitor = scene.database.connect().await;

    let (began, mut emitted, mut samples, mut last) = (Instant::now(), 0_u64, Vec::new(), 0);
    let period = (length / 120).clamp(Duration::from_secs(1), Duration::from_secs(60));
    let mut sampled = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let insert = client
        .prepare(
            "INSERT INTO klaxon.event (type, project, payload)
             SELECT 'run.finished', 'soak', jsonb_build_object('run_id', n, 'branch', 'main') FROM generate_series(1, $1::bigint) AS n",
        )
        .await
        .unwrap();
    let batch = i64::try_from(RATE * u64::try_from(TICK.as_millis()).unwrap() / 1000).unwrap();
    while began.elapsed() < length {
        ticks.tick().await;
        emitted += client.execute(&insert, &[&batch]).await.unwrap();
        if sampled.elapsed() >= period {
            sampled = Instant::now();
            samples.extend(sample(&monitor, &worker, began.elapsed().as_secs_f64(), &mut last).await);
        }
    }
    let took = began.elapsed().as_secs_f64();
    stop.send_replace(true);
    for task in beside {
        task.await.unwrap();
    }
    until_within(Duration::from_secs(180), client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    for path in PATHS {
        let ids = scene.receiver.ids(&format!("/{path}"));
        let distinct = ids.iter().collect::<HashSet<_>>().len() as u64;
        println!("{path}: {emitted} events, {} requests, {distinct} deliveries", ids.len());
        assert_eq!(distinct, emitted, "what was committed has arrived, and nothing else");
    }

    // What a start brings is over after a quarter.
    let steady: Vec<_> = samples.iter().filter(|sample| sample.at > took / 4.0).collect();
    samples.iter().for_each(|sample| println!("{sample}"));
    println!("{took:.0} s, {:.0} events a second", emitted as f64 / took);
    let mut slopes = Vec::new();
    for (at, measure) in MEASURES.iter().enumerate() {
        let points: Vec<_> = steady.iter().map(|sample| (sample.at, sample.values[at])).collect();
        let (rise, mean) = rise(&points);
        println!("{}: {mean:.1} on average, {rise:+.1} over {} samples", measure.name, points.len());
        // A minute is all beginning, and beside it other tests run.
        let noise = if length < Duration::from_secs(300) { 5.0 * measure.noise } else { measure.noise };
        if rise > noise.max(mean * measure.share) {
            slopes.push(format!("{} rose by {rise:.1} about {mean:.1}", measure.name));
        }
    }
    assert!(steady.len() > 15, "{} samples", steady.len());
    assert!(slopes.is_empty(), "{slopes:#?}");
    cluster.stop(klaxon_tests::cluster::Stop::Immediate).unwrap();
}
