//! Two workers under a randomised history: nothing committed is lost, nothing rolled back is sent, and
//! what is sent twice has a reason. `make histories` runs it for ten minutes.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use fastrand::Rng;
use klaxon_tests::cluster::{Cluster, SUPERUSER};
use klaxon_tests::database::Database;
use klaxon_tests::history::Settings;
use klaxon_tests::history::arrivals::{self, Receiver};
use klaxon_tests::history::emitter::{Emitter, MARKS};
use klaxon_tests::history::faults::{Fault, Faults};
use klaxon_tests::history::ledger::Ledger;
use klaxon_tests::history::plan::{self, CHANNELS};
use klaxon_tests::history::verdict::{self, Evidence};
use klaxon_tests::scene::Scene;
use klaxon_tests::until::{until, until_within};
use tokio::sync::watch;

const EMITTERS: usize = 12;
/// Far more than what is left needs at the end.
const DRAINED: Duration = Duration::from_secs(180);

/// Not dropped: sessions of clients last as long.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    Cluster::start(&[
        ("shared_preload_libraries", "pg_klaxon"),
        ("max_prepared_transactions", "50"),
        ("fsync", "off"),
    ])
    .expect("the cluster starts")
});

async fn set() -> (Scene<'static>, Receiver) {
    let mut scene = Scene::set(Database::create(&CLUSTER)).await;
    let name = &scene.database.name;
    let client = &scene.client;
    client.batch_execute(&format!("ALTER SYSTEM SET klaxon.relay_database = '{name}'")).await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until(
        client,
        "EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'klaxon relay' AND datname = current_database())",
    )
    .await;
    let receiver = Receiver::start(&scene.authority).await.expect("the receiver starts");
    scene.connect(receiver.connect_to());
    let client = &scene.client;
    client
        .batch_execute("INSERT INTO klaxon.project (slug, name) VALUES ('alpha', 'Alpha'), ('beta', 'Beta')")
        .await
        .unwrap();
    client.batch_execute(MARKS).await.unwrap();
    for (channel, events, project) in CHANNELS {
        plan::subscribe(client, channel, arrivals::HOST, events, project).await;
    }
    (scene, receiver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_is_invented() {
    let Settings { seed, length } = Settings::from_env();
    println!("KLAXON_HISTORY_SEED={seed} KLAXON_HISTORY_SECONDS={}", length.as_secs());
    let mut rng = Rng::with_seed(seed);
    let (mut scene, receiver) = set().await;
    let proxy = scene.proxy().await;
    let mut faults = Faults::new(&scene, &proxy, rng.fork()).await;

    let (ledger, began) = (Arc::<Ledger>::default(), Instant::now());
    let way = scene.database.way(SUPERUSER);
    let (stop, stopped) = watch::channel(false);
    let emitters: Vec<_> = (0..EMITTERS)
        .map(|number| {
            let (way, ledger) = (way.clone(), Arc::clone(&ledger));
            // Two of them hold transactions open for long.
            let nap = if number < 2 {
                (length / 8).min(Duration::from_secs(30))
            } else {
                Duration::from_millis(300)
            };
            let emitter = Emitter { way, ledger, number, rng: rng.fork(), nap, chooses: true };
            tokio::spawn(emitter.run(stopped.clone()))
        })
        .collect();
    faults.run(length, Duration::from_millis(3_000)).await;
    stop.send_replace(true);
    for emitter in emitters {
        emitter.await.expect("no client panics");
    }
    let emitted_for = began.elapsed();

    until_within(DRAINED, &scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let aftermath = faults.end().await;
    let losses = verdict::losses(&scene.client, &aftermath).await;
    let evidence = Evidence {
        entries: ledger.read(),
        arrivals: receiver.arrivals(),
        aftermath,
        records: verdict::records(&scene.client).await,
    };
    let verdict = evidence.judge(losses);
    let Evidence { entries, aftermath, .. } = &evidence;
    let careful =
        aftermath.log.iter().filter(|line| line.message().ends_with("works them with care")).count();
    println!(
        "{:.0} s: {} transactions committed ({} prepared), {} not, {} rolled back to a savepoint, {} whose end \
         was not heard; {} events, {} deliveries, {} requests, sent again after {:?} ({} counted first); {} sessions lost, care taken {} times; faults {:?}",
        emitted_for.as_secs_f64(),
        entries.transactions[0],
        entries.prepared,
        entries.transactions[1],
        entries.savepoints,
        entries.unheard,
        entries.committed.len(),
        verdict.expected,
        verdict.arrivals,
        verdict.repeated,
        verdict.unlogged,
        verdict.lost_sessions,
        careful,
        aftermath.counts,
    );
    let dead = scene
        .client
        .query("SELECT l.event_id || ': ' || l.reason || coalesce(', ' || l.last_error, '') FROM klaxon.dead_letter AS l", &[])
        .await
        .unwrap();
    assert_eq!(dead.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), [""; 0]);
    assert!(
        verdict.wrongs.is_empty(),
        "seed {seed}: {} wrongs, of which the first are\n{}",
        verdict.wrongs.len(),
        verdict.wrongs[..verdict.wrongs.len().min(20)].join("\n")
    );

    let output = scene.installation.run(&["audit", "verify", "--json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    // A history in which nothing happened would prove nothing.
    assert!(entries.transactions.iter().all(|count| *count > 100), "{:?}", entries.transactions);
    assert!(entries.prepared > 10 && entries.savepoints > 10 && entries.unheard > 0);
    let fenced = aftermath.log.iter().filter(|line| line.message() == "fenced a silent worker").count();
    assert!(fenced >= aftermath.counts[&Fault::Freeze], "{fenced} fenced");
}
