//! What befalls the workers, the sessions and the relay of a history.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::sleep;

use super::emitter::APPLICATION;
use super::now;
use crate::proxy::Proxy;
use crate::scene::Scene;
use crate::until::until;
use crate::worker::{LogLine, Worker};

/// Something that may befall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL, and a new worker at once or a little later.
    Kill,
    /// SIGTERM, its end, and a new worker.
    Restart,
    /// SIGSTOP until another worker has fenced it, and SIGCONT.
    Freeze,
    /// SIGSTOP and SIGCONT before anybody takes note.
    Hiccup,
    /// A worker's session is ended.
    EndSession,
    /// Some clients' sessions are ended, in the middle of whatever they do.
    EndClients,
    /// The relay is ended, and with it the hints that it has.
    EndRelay,
    /// All workers lose their connections, and the server does not hear of it.
    Forsake,
    /// One more worker, or one fewer.
    Scale,
}

/// All of them: a round of faults is these in some order.
const ROUND: [Fault; 11] = [
    Fault::Kill,
    Fault::Kill,
    Fault::Restart,
    Fault::Freeze,
    Fault::Hiccup,
    Fault::EndSession,
    Fault::EndClients,
    Fault::EndClients,
    Fault::EndRelay,
    Fault::Forsake,
    Fault::Scale,
];

/// Something after which a worker's deliveries may be sent again, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Incident {
    /// What.
    pub fault: &'static str,
    /// When it began.
    pub from: f64,
    /// When it had ended.
    pub until: f64,
    /// Whether what the server wrote meanwhile went with it, that something had been sent, too.
    pub forgot: bool,
}

/// Faults, one after another.
pub struct Faults<'s> {
    scene: &'s Scene<'static>,
    proxy: &'s Proxy,
    rng: Rng,
    workers: Vec<Worker>,
    retired: Vec<LogLine>,
    incidents: Vec<Incident>,
    counts: BTreeMap<Fault, usize>,
}

/// What came of the faults.
#[derive(Debug)]
pub struct Aftermath {
    /// What may have led to repetitions.
    pub incidents: Vec<Incident>,
    /// How often each fault happened.
    pub counts: BTreeMap<Fault, usize>,
    /// What all workers have logged.
    pub log: Vec<LogLine>,
}

impl<'s> Faults<'s> {
    /// Starts two workers.
    pub async fn new(scene: &'s Scene<'static>, proxy: &'s Proxy, rng: Rng) -> Self {
        let workers = vec![scene.worker(&[]).await, scene.worker(&[]).await];
        Self { scene, proxy, rng, workers, retired: vec![], incidents: vec![], counts: BTreeMap::new() }
    }

    /// Goes on for this long, and at least one round, with up to `gap` between one fault and the next.
    pub async fn run(&mut self, length: Duration, gap: Duration) {
        let (began, mut round) = (Instant::now(), vec![]);
        for count in 0.. {
            if began.elapsed() >= length && count >= ROUND.len() {
                break;
            }
            if round.is_empty() {
                round = ROUND.to_vec();
                self.rng.shuffle(&mut round);
            }
            sleep(gap.mul_f64(self.rng.f64())).await;
            if let Some(fault) = round.pop() {
                *self.counts.entry(fault).or_default() += 1;
                self.befall(fault).await;
            }
        }
    }

    /// Ends the workers, who have nothing left to do.
    ///
    /// # Panics
    /// When one does not end in good order.
    pub async fn end(mut self) -> Aftermath {
        self.workers.iter().for_each(|worker| worker.signal("TERM"));
        for worker in &mut self.workers {
            assert_eq!(worker.wait().await.code(), Some(0), "{:#?}", worker.log());
        }
        let logs = self.workers.iter().flat_map(Worker::log);
        let log = self.retired.into_iter().chain(logs).collect();
        Aftermath { incidents: self.incidents, counts: self.counts, log }
    }

    async fn befall(&mut self, fault: Fault) {
        let (from, chosen) = (now(), self.rng.usize(..self.workers.len()));
        match fault {
            Fault::Kill => {
                let mut worker = self.workers.swap_remove(chosen);
                worker.signal("KILL");
                worker.wait().await;
                self.incident("a kill", from);
                self.retired.extend(worker.log());
                sleep(Duration::from_millis(self.rng.u64(..1_500))).await;
                self.workers.push(self.scene.start(&[]));
            }
            Fault::Restart => {
                self.stop(chosen).await;
                self.workers.push(self.scene.start(&[]));
            }
            Fault::Freeze => {
                let worker = &mut self.workers[chosen];
                let served = worker.wait_for_log("that it serves", |line| line.message() == "serving").await;
                let id = served.field("worker").as_str().unwrap_or_default().to_owned();
                worker.signal("STOP");
                let fenced = format!("NOT EXISTS (SELECT FROM klaxon.worker WHERE id = '{id}')");
                until(&self.scene.client, &fenced).await;
                sleep(Duration::from_millis(self.rng.u64(..1_000))).await;
                self.workers[chosen].signal("CONT");
                self.incident("a fence", from);
            }
            Fault::Hiccup => {
                self.workers[chosen].signal("STOP");
                sleep(Duration::from_millis(self.rng.u64(50..700))).await;
                self.workers[chosen].signal("CONT");
            }
            Fault::EndSession => {
                let any = "SELECT pid FROM klaxon.worker ORDER BY id LIMIT 1";
                self.admin(&format!("SELECT pg_terminate_backend(pid) FROM ({any}) AS w")).await;
                self.incident("the end of a session", from);
            }
            Fault::EndClients => {
                let count = self.rng.usize(1..5);
                let some = format!(
                    "SELECT pid FROM pg_stat_activity WHERE application_name = '{APPLICATION}' ORDER BY state_change DESC LIMIT {count}"
                );
                self.admin(&format!("SELECT pg_terminate_backend(pid) FROM ({some}) AS c")).await;
            }
            Fault::EndRelay => {
                let relay = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'klaxon relay'";
                self.admin(&format!("SELECT pg_terminate_backend(pid) FROM ({relay}) AS r")).await;
            }
            Fault::Forsake => {
                self.proxy.forsake();
                self.incident("the end of all connections", from);
            }
            Fault::Scale if self.workers.len() > 2 => self.stop(chosen).await,
            Fault::Scale => self.workers.push(self.scene.start(&[])),
        }
    }

    async fn stop(&mut self, chosen: usize) {
        let mut worker = self.workers.swap_remove(chosen);
        worker.signal("TERM");
        assert_eq!(worker.wait().await.code(), Some(0), "{:#?}", worker.log());
        self.retired.extend(worker.log());
    }

    fn incident(&mut self, fault: &'static str, from: f64) {
        self.incidents.push(Incident { fault, from, until: now(), forgot: false });
    }

    async fn admin(&self, sql: &str) {
        self.scene.client.batch_execute(sql).await.expect("a superuser may");
    }
}
