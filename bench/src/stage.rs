//! What the benches of the worker begin with: a durable cluster, a database, keys, and a sink.

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::{Database, WORKER_ROLE};
use klaxon_tests::until::until;
use klaxon_tests::worker::{Installation, Worker};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::SETTINGS;
use crate::sink::Sink;

/// A cluster with the library, and others, in `shared_preload_libraries`.
pub fn preloaded(libraries: &str) -> anyhow::Result<Cluster> {
    let settings: Vec<(&str, &str)> =
        SETTINGS.into_iter().chain([("shared_preload_libraries", libraries)]).collect();
    Cluster::start(&settings)
}

/// The parts.
pub struct Stage<'c> {
    /// A fresh database.
    pub database: Database<'c>,
    /// A superuser's session in it.
    pub client: Client,
    /// Where its webhooks lead.
    pub sink: Sink,
    /// Its configuration and keys.
    pub installation: Installation,
}

impl<'c> Stage<'c> {
    /// Sets it, the worker not yet running.
    pub async fn set(cluster: &'c Cluster) -> anyhow::Result<Self> {
        Self::with(cluster, Sink::start()?).await
    }

    /// The same with a sink of one's own.
    pub async fn with(cluster: &'c Cluster, sink: Sink) -> anyhow::Result<Self> {
        let database = Database::create(cluster);
        database.psql(&format!("ALTER DATABASE {} SET klaxon.allow_http = on", database.name));
        let (client, installation) = (database.connect().await, Installation::init(&database.url()).await);
        Ok(Self { database, client, sink, installation })
    }

    /// Has the relay notify in this database.
    pub async fn relay(&self) -> anyhow::Result<()> {
        let name = &self.database.name;
        self.client.batch_execute(&format!("ALTER SYSTEM SET klaxon.relay_database = '{name}'")).await?;
        self.client.batch_execute("SELECT pg_reload_conf()").await?;
        until(&self.client, "EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'klaxon relay' AND datname = current_database())").await;
        Ok(())
    }

    /// A signed webhook to a path of the sink, and a subscription of an event type to it.
    pub async fn webhook(&self, path: &str, event: &str) -> anyhow::Result<i64> {
        self.channel(path, json!({"url": self.sink.url(path), "hmac_secret": "bench"}), event).await
    }

    /// A webhook as it is configured, and a subscription of an event type to it.
    pub async fn channel(&self, name: &str, config: Value, event: &str) -> anyhow::Result<i64> {
        let insert =
            "INSERT INTO klaxon.channel (name, kind, config) VALUES ($1, 'webhook', $2) RETURNING id";
        let id = self.client.query_one(insert, &[&name, &config]).await?.get(0);
        let subscribe = "SELECT klaxon.subscribe(ARRAY[$1::text], ARRAY[$2::text], owner => NULL)";
        self.client.execute(subscribe, &[&name, &event]).await?;
        Ok(id)
    }

    /// Starts the worker, with flags on top of those that lead to the sink.
    pub fn start(&self, flags: &[&str]) -> Worker {
        let port = self.sink.port().to_string();
        let url = self.database.worker_url();
        let ours =
            ["--database-url", &url, "--egress-allow", "127.0.0.1/32", "--allow-http", "--allow-port", &port];
        let flags: Vec<String> = ours.into_iter().chain(flags.iter().copied()).map(str::to_owned).collect();
        self.installation.start(&flags)
    }

    /// Starts the worker and waits until it serves.
    pub async fn worker(&self, flags: &[&str]) -> Worker {
        let mut worker = self.start(flags);
        worker.ready().await;
        worker
    }
}

/// The role that the worker's sessions have.
pub const WORKER: &str = WORKER_ROLE;
