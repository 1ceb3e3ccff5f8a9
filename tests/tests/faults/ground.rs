//! What every fault befalls: a cluster of its own with clients that make transactions in it, workers, and a
//! receiver; and the judgement of what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use klaxon_tests::cluster::{Cluster, SUPERUSER, Stop};
use klaxon_tests::database::Database;
use klaxon_tests::history::arrivals::{self, Receiver};
use klaxon_tests::history::emitter::{Emitter, MARKS};
use klaxon_tests::history::faults::{Aftermath, Incident};
use klaxon_tests::history::ledger::Ledger;
use klaxon_tests::history::now;
use klaxon_tests::history::plan::{self, CHANNELS, Kind, PROBE, PROBES};
use klaxon_tests::history::verdict::{self, Evidence, Verdict};
use klaxon_tests::limit::within_time;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use klaxon_tests::worker::{LogLine, Worker};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_postgres::{Config, NoTls};
use uuid::Uuid;

use crate::is_full;
use crate::table::Row;

/// Within that after the end of a fault, what is emitted arrives again.
pub const RECOVERED: Duration = Duration::from_secs(5);
/// The same after a failover.
pub const FAILED_OVER: Duration = Duration::from_secs(10);
/// Far more than what is left needs at the end: where workers were killed, it may be sent with care, one at a time
/// of a shard, for five minutes after the last.
pub const DRAINED: Duration = Duration::from_secs(900);
/// So many events are committed at least before it is judged.
const MUCH: usize = 50;
/// Of how many events a load is, in one statement; two deliveries each.
pub const LOAD: Kind = Kind { name: "run.finished", project: "alpha" };

/// The settings of the clusters. They survive what the suite does to them, and no power cut.
pub const SETTINGS: [(&str, &str); 3] =
    [("shared_preload_libraries", "pg_klaxon"), ("max_prepared_transactions", "50"), ("fsync", "off")];

/// The ground, and what is known of what happened on it.
pub struct Ground {
    /// Database, keys, worker's flags.
    pub scene: Scene<'static>,
    /// Who gets the deliveries.
    pub receiver: Receiver,
    /// What clients know.
    pub ledger: Arc<Ledger>,
    /// What may have led to repetitions.
    pub incidents: Vec<Incident>,
    /// What ended workers have logged.
    pub retired: Vec<LogLine>,
    recoveries: Vec<f64>,
    emitters: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    probes: usize,
}

impl Ground {
    /// A cluster with these settings on top of [`SETTINGS`].
    pub async fn set(settings: &[(&str, &str)]) -> Self {
        let settings = [&SETTINGS, settings].concat();
        Self::on(Cluster::start(&settings).expect("the cluster starts")).await
    }

    /// On this cluster. It is not dropped: sessions of clients last as long.
    pub async fn on(cluster: Cluster) -> Self {
        let mut scene = Scene::set(Database::create(Box::leak(Box::new(cluster)))).await;
        let client = &scene.client;
        let name = &scene.database.name;
        client.batch_execute(&format!("ALTER SYSTEM SET klaxon.relay_database = '{name}'")).await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        until(
            client,
            "EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'klaxon relay' AND datname = current_database())",
        )
        .await;
        client.batch_execute(MARKS).await.unwrap();
        client
            .batch_execute(
                "INSERT INTO klaxon.project (slug, name) VALUES ('alpha', 'Alpha'), ('beta', 'Beta')",
            )
            .await
            .unwrap();
        let receiver = Receiver::start(&scene.authority).await.expect("the receiver starts");
        scene.connect(receiver.connect_to());
        for (channel, events, project) in CHANNELS {
            plan::subscribe(&scene.client, channel, arrivals::HOST, events, project).await;
        }
        Self {
            scene,
            receiver,
            ledger: Arc::default(),
            incidents: vec![],
            retired: vec![],
            recoveries: vec![],
            emitters: vec![],
            stop: watch::Sender::new(false),
            probes: 0,
        }
    }

    /// Clients begin to make transactions.
    pub fn emit(&mut self, clients: usize) {
        self.emit_by(clients, &self.scene.database.way(SUPERUSER));
    }

    /// The same by another way.
    pub fn emit_by(&mut self, clients: usize, way: &Config) {
        for number in self.emitters.len()..self.emitters.len() + clients {
            let emitter = Emitter {
                way: way.clone(),
                ledger: Arc::clone(&self.ledger),
                number,
                rng: Rng::new(),
                nap: Duration::from_millis(300),
                chooses: way.get_user() == Some(SUPERUSER),
            };
            self.emitters.push(tokio::spawn(emitter.run(self.stop.subscribe())));
        }
    }

    /// Clients end; the next ones may begin.
    pub async fn hush(&mut self) {
        self.stop.send_replace(true);
        for emitter in self.emitters.drain(..) {
            within_time(DRAINED, "a client to end", emitter).await.expect("no client panics");
        }
        self.stop.send_replace(false);
    }

    /// Emits many events at once, of two deliveries each.
    pub async fn load(&self, events: i64) {
        self.load_of(events, 10).await;
    }

    /// The same with payloads of so many bytes.
    pub async fn load_of(&self, events: i64, bytes: i32) {
        let sql = "INSERT INTO klaxon.event (type, project, payload)
                   SELECT $1, $2, jsonb_build_object('run_id', n, 'title', repeat('x', $4)) FROM generate_series(1, $3::bigint) AS n RETURNING id";
        let rows = self.scene.client.query(sql, &[&LOAD.name, &LOAD.project, &events, &bytes]).await.unwrap();
        self.ledger.write(|entries| entries.committed.extend(rows.iter().map(|row| (row.get(0), LOAD))));
    }

    /// Something happened to a worker that may have led to repetitions.
    pub fn incident(&mut self, fault: &'static str, from: f64) {
        self.incidents.push(Incident { fault, from, until: now(), forgot: false });
    }

    /// A fault has just ended: waits until something that is emitted now has arrived, and notes how long that took.
    pub async fn recover(&mut self) {
        let way = self.scene.database.way(SUPERUSER);
        self.recover_by(&way, Instant::now()).await;
    }

    /// The same by another way, after a fault that ended at `since`.
    pub async fn recover_by(&mut self, way: &Config, since: Instant) {
        let from = self.receiver.count();
        self.probes += 1;
        let event = within_time(DRAINED, "an event to be emitted", probe(way, self.probes)).await;
        self.ledger.write(|entries| {
            entries.committed.insert(event, PROBE);
        });
        self.receiver.wait_for_event(DRAINED, event, PROBES, from).await;
        self.recoveries.push(since.elapsed().as_secs_f64());
    }

    /// Ends a worker and keeps its log.
    pub async fn kill(&mut self, mut worker: Worker) {
        worker.signal("KILL");
        worker.wait().await;
        self.retired.extend(worker.log());
    }

    /// Ends a worker in good order.
    pub async fn stop(&mut self, mut worker: Worker) {
        worker.signal("TERM");
        assert_eq!(worker.wait().await.code(), Some(0), "{:#?}", worker.log());
        self.retired.extend(worker.log());
    }

    /// Waits until everything is delivered, ends the workers, judges, and prints the row.
    pub async fn judge(mut self, test: &str, fault: &str, times: String, workers: Vec<Worker>) -> Verdict {
        // On a fast machine, some faults are over before clients have done much.
        let committed = || self.ledger.read().committed.len();
        within_time(DRAINED, "clients to have done something", async {
            while !self.emitters.is_empty() && committed() < MUCH {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        self.hush().await;
        let client = self.scene.database.connect().await;
        // Of other channels than those that are judged, something may be left for long.
        let names = CHANNELS.map(|(name, ..)| name).join("', '");
        let pending = format!(
            "klaxon.outbox AS o JOIN klaxon.channel AS c ON c.id = o.channel_id WHERE c.name IN ('{names}')"
        );
        klaxon_tests::until::until_within(DRAINED, &client, &format!("NOT EXISTS (SELECT FROM {pending})"))
            .await;
        for worker in workers {
            self.stop(worker).await;
        }
        let dead = format!(
            "SELECT l.event_id || ': ' || l.reason || coalesce(', ' || l.last_error, '') FROM klaxon.dead_letter AS l JOIN klaxon.channel AS c ON c.id = l.channel_id WHERE c.name IN ('{names}')"
        );
        let dead = client.query(&dead, &[]).await.unwrap();
        assert_eq!(dead.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), [""; 0]);
        let output = self
            .scene
            .installation
            .run(&["audit", "verify", "--json", "--database-url", &self.scene.database.url()])
            .await;
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));

        let aftermath = Aftermath { incidents: self.incidents, counts: BTreeMap::new(), log: self.retired };
        let losses = verdict::losses(&client, &aftermath).await;
        let evidence = Evidence {
            entries: self.ledger.read(),
            arrivals: self.receiver.arrivals(),
            aftermath,
            records: verdict::records(&client).await,
        };
        let verdict = evidence.judge(losses);
        let recovery = self.recoveries.iter().copied().reduce(f64::max);
        Row::new(fault, times, &verdict, recovery).print(test);
        assert!(
            verdict.wrongs.is_empty(),
            "{} wrongs, of which the first are\n{}",
            verdict.wrongs.len(),
            verdict.wrongs[..verdict.wrongs.len().min(20)].join("\n")
        );
        assert!(verdict.expected > 20, "nothing much was emitted: {}", verdict.expected);
        // Other tests run beside it in the short form, on machines that have other things to do.
        let slack = if is_full() { 1.0 } else { 8.0 };
        let bound = if fault.contains("promoted") { FAILED_OVER } else { RECOVERED };
        let bound = bound.as_secs_f64() * slack;
        assert!(recovery.is_none_or(|time| time <= bound), "it took {recovery:?} s to recover");
        drop(client);
        self.scene.database.cluster.stop(Stop::Immediate).unwrap();
        verdict
    }
}

/// Emits an event, whatever happens to the session: a key keeps it one.
async fn probe(way: &Config, number: usize) -> Uuid {
    loop {
        if let Ok((session, connection)) = way.connect(NoTls).await {
            tokio::spawn(async move { drop(connection.await) });
            let sql = format!(
                "SELECT klaxon.notify_event('{}', project => '{}', dedup_key => 'probe {number}')",
                PROBE.name, PROBE.project
            );
            if let Ok(rows) = session.query_typed(&sql, &[]).await {
                return rows[0].get(0);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}
