//! The product and its peers with one face: a database of its own on the same cluster, a receiver of its own of
//! the same kind, rows to deliver, and a process that delivers them.

use std::sync::Arc;
use std::time::Duration;

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use klaxon_tests::process;
use klaxon_tests::until::until_within;
use klaxon_tests::worker::Worker;
use serde_json::json;
use tokio::process::Child;
use tokio_postgres::Client;

use crate::latency::Emitter;
use crate::peer::{Enqueue, Peer};
use crate::sink::Sink;
use crate::stage::Stage;

/// Where everybody's posts arrive.
pub const PATH: &str = "posts";
/// Channels of the product among which the events divide, one each.
const CHANNELS: usize = 4;
const EMIT: &str = "SELECT klaxon.notify_event('run.failed', '{\"run_id\": 1}', 'p0')";
const LIMIT: Duration = Duration::from_secs(600);

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    Klaxon,
    Peer(Peer),
}

impl Who {
    pub const ALL: [Self; 4] =
        [Self::Klaxon, Self::Peer(Peer::Graphile), Self::Peer(Peer::Boss), Self::Peer(Peer::Awa)];

    /// All of them, another first each round, so that none is always the one after the same.
    pub fn in_turn(round: usize) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().cycle().skip(round % Self::ALL.len()).take(Self::ALL.len())
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Klaxon => "pg_klaxon",
            Self::Peer(peer) => peer.name(),
        }
    }
}

/// One of them, set up.
pub enum Contender<'c> {
    Klaxon(Box<Stage<'c>>),
    Peer(Box<Place<'c>>),
}

/// Where a peer is.
pub struct Place<'c> {
    peer: Peer,
    database: Database<'c>,
    client: Client,
    sink: Sink,
    enqueue: Enqueue,
}

impl<'c> Contender<'c> {
    /// Sets it up in a fresh database.
    pub async fn set(cluster: &'c Cluster, who: Who, sink: Sink) -> anyhow::Result<Self> {
        Ok(match who {
            Who::Klaxon => {
                let stage = Stage::with(cluster, sink).await?;
                stage.relay().await?;
                for channel in 0..CHANNELS {
                    klaxon_channel(&stage, channel).await?;
                }
                Self::Klaxon(Box::new(stage))
            }
            Who::Peer(peer) => {
                let database = Database::bare(cluster);
                peer.install(&database.url()).await?;
                let enqueue = peer.enqueue(&database.url()).await?;
                let client = database.connect().await;
                Self::Peer(Box::new(Place { peer, database, client, sink, enqueue }))
            }
        })
    }

    pub fn client(&self) -> &Client {
        match self {
            Self::Klaxon(stage) => &stage.client,
            Self::Peer(place) => &place.client,
        }
    }

    pub fn database(&self) -> &Database<'c> {
        match self {
            Self::Klaxon(stage) => &stage.database,
            Self::Peer(place) => &place.database,
        }
    }

    pub fn sink(&self) -> &Sink {
        match self {
            Self::Klaxon(stage) => &stage.sink,
            Self::Peer(place) => &place.sink,
        }
    }

    /// Commits so many rows that are each to be posted once, and has the planner know of them.
    pub async fn fill(&self, count: usize) -> anyhow::Result<()> {
        match self {
            Self::Peer(place) => place.peer.fill(&place.database.url(), count).await?,
            Self::Klaxon(stage) => {
                let insert = format!(
                    "INSERT INTO klaxon.event (type, project, payload)
                     SELECT 'run.failed', 'p' || n % {CHANNELS}, jsonb_build_object('run_id', n) FROM generate_series(1, {count}) AS n"
                );
                stage.client.batch_execute(&insert).await?;
            }
        }
        self.client().batch_execute("ANALYZE").await?;
        Ok(())
    }

    /// Starts what delivers them.
    pub async fn work(&self, in_flight: usize) -> anyhow::Result<Process> {
        match self {
            Self::Peer(place) => Ok(Process::Peer(
                place.peer.work(&place.database.url(), &place.sink.url(PATH), in_flight).await?,
            )),
            Self::Klaxon(stage) => {
                let (all, each) = (in_flight.to_string(), (in_flight / CHANNELS).to_string());
                Ok(Process::Klaxon(stage.worker(&["--concurrency", &all, "--per-channel", &each]).await))
            }
        }
    }

    /// Waits until so many different posts have arrived and all is settled; how many came more than once.
    pub async fn finish(&self, count: usize) -> anyhow::Result<usize> {
        let more = self.sink().wait_each(PATH, count, LIMIT).await?;
        let settled = match self {
            Self::Klaxon(_) => "NOT EXISTS (SELECT FROM klaxon.outbox)".to_owned(),
            Self::Peer(place) => place.peer.settled(count),
        };
        until_within(LIMIT, self.client(), &settled).await;
        Ok(more)
    }

    /// Somebody who commits an event at a time.
    pub async fn emitter(&self) -> anyhow::Result<Arc<Emitter>> {
        let client = self.database().connect().await;
        match self {
            Self::Klaxon(_) => Emitter::new(client, EMIT).await,
            Self::Peer(place) => Emitter::enqueueing(client, place.enqueue.clone()).await,
        }
    }

    /// Where its worker listens.
    pub fn listens(&self) -> &str {
        match self {
            Self::Klaxon(_) => "klaxon_outbox",
            Self::Peer(place) => &place.enqueue.listens,
        }
    }

    /// Bytes of WAL written so far by the cluster.
    pub async fn written(&self) -> anyhow::Result<f64> {
        let row =
            self.client().query_one("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8", &[]).await?;
        Ok(row.get(0))
    }

    /// That each delivery of ours is in the log; the peers have none.
    pub async fn check(&self, count: usize) -> anyhow::Result<()> {
        let Self::Klaxon(stage) = self else { return Ok(()) };
        let sent = "SELECT count(*) FROM klaxon.delivery WHERE status = 'sent'";
        let logged: i64 = stage.client.query_one(sent, &[]).await?.get(0);
        anyhow::ensure!(logged == i64::try_from(count)?, "{logged} of {count} in the log");
        Ok(())
    }

    /// Drops its database: nothing of it is to be vacuumed while the next one is measured.
    pub fn end(self) -> anyhow::Result<()> {
        let (cluster, name) = (self.database().cluster, self.database().name.clone());
        drop(self);
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        process::run(cluster.client("psql", "postgres").args(["-X", "-q", "-c", &drop])).map(|_| ())
    }
}

/// A signed channel that hears of one project's failed runs.
async fn klaxon_channel(stage: &Stage<'_>, at: usize) -> anyhow::Result<()> {
    let (name, project) = (format!("c{at}"), format!("p{at}"));
    let config = json!({"url": stage.sink.url(PATH), "hmac_secret": "bench"});
    stage.client.execute("INSERT INTO klaxon.project (slug) VALUES ($1)", &[&project]).await?;
    let insert = "INSERT INTO klaxon.channel (name, kind, config) VALUES ($1, 'webhook', $2)";
    stage.client.execute(insert, &[&name, &config]).await?;
    let subscribe =
        "SELECT klaxon.subscribe(ARRAY[$1::text], ARRAY['run.failed'], project => $2, owner => NULL)";
    stage.client.execute(subscribe, &[&name, &project]).await?;
    Ok(())
}

/// What delivers. It ends with its drop.
pub enum Process {
    Klaxon(Worker),
    Peer(Child),
}

impl Process {
    pub fn pid(&self) -> u32 {
        match self {
            Self::Klaxon(worker) => worker.pid(),
            Self::Peer(child) => child.id().expect("nobody has waited for it"),
        }
    }

    /// Megabytes it had resident at most.
    pub fn megabytes(&self) -> f64 {
        crate::usage::peak_memory(self.pid()) as f64 / 1e6
    }
}
