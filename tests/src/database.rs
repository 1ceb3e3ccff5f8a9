//! A fresh database for each test, and sessions in it.

use std::sync::atomic::{AtomicU32, Ordering};

use std::future::poll_fn;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Notification};

use crate::cluster::{Cluster, SUPERUSER};
use crate::process;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A role with the rights of `klaxon_worker` and nothing else: the worker of the tests is nobody's
/// superuser.
pub const WORKER_ROLE: &str = "klaxon_test_worker";

/// A role with the rights of `klaxon_emitter` and nothing else.
pub const EMITTER_ROLE: &str = "klaxon_test_emitter";

/// A database of a [`Cluster`].
pub struct Database<'c> {
    /// Where it is.
    pub cluster: &'c Cluster,
    /// Its name.
    pub name: String,
}

impl Database<'static> {
    /// A new database with the extension, in the cluster this binary's tests share.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        Self::create(Cluster::shared())
    }
}

impl Default for Database<'static> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'c> Database<'c> {
    /// A new database with the extension in it.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn create(cluster: &'c Cluster) -> Self {
        Self::create_at(cluster, "")
    }

    /// The same, with the extension of a version that is not the default.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn create_at(cluster: &'c Cluster, version: &str) -> Self {
        let database = Self::bare(cluster);
        let version = if version.is_empty() { String::new() } else { format!("VERSION '{version}'") };
        database.psql(&format!("CREATE EXTENSION pg_klaxon {version}"));
        database.psql(&format!(
            "DO $$ BEGIN
                 CREATE ROLE {WORKER_ROLE} LOGIN IN ROLE klaxon_worker;
                 CREATE ROLE {EMITTER_ROLE} LOGIN IN ROLE klaxon_emitter;
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
             END $$"
        ));
        database
    }

    /// A new database without the extension.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn bare(cluster: &'c Cluster) -> Self {
        let name = format!("klaxon_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let database = Self { cluster, name };
        process::run(
            cluster
                .client("psql", "postgres")
                .args(["-X", "-q", "-c"])
                .arg(format!("CREATE DATABASE {}", database.name)),
        )
        .expect("a database can be made");
        database
    }

    /// Runs SQL as the superuser and returns what psql prints, unaligned and without headings.
    ///
    /// # Panics
    /// When the SQL fails.
    pub fn psql(&self, sql: &str) -> String {
        process::run(self.cluster.client("psql", &self.name).args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
        ]))
        .unwrap_or_else(|error| panic!("{error:#}"))
        .trim_end()
        .to_owned()
    }

    /// A connection string for the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.cluster.url(SUPERUSER, &self.name)
    }

    /// A connection string for the worker's role.
    #[must_use]
    pub fn worker_url(&self) -> String {
        self.cluster.url(WORKER_ROLE, &self.name)
    }

    /// A session of the superuser.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn connect(&self) -> Client {
        self.session(SUPERUSER).await.0
    }

    /// A session of the superuser and the notifications it receives.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn listen(&self, channel: &str) -> (Client, UnboundedReceiver<Notification>) {
        let (client, notifications) = self.session(SUPERUSER).await;
        client.batch_execute(&format!("LISTEN {channel}")).await.expect("may listen");
        (client, notifications)
    }

    /// The way in for a role, by the socket.
    #[must_use]
    pub fn way(&self, user: &str) -> Config {
        let mut way = Config::new();
        way.host_path(self.cluster.socket_folder()).port(self.cluster.port()).user(user).dbname(&self.name);
        way
    }

    async fn session(&self, user: &str) -> (Client, UnboundedReceiver<Notification>) {
        let (client, mut connection) =
            self.way(user).connect(NoTls).await.expect("the cluster takes connections");
        let (sender, notifications) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    // A test that does not listen has dropped the other end.
                    let _ = sender.send(notification);
                }
            }
        });
        (client, notifications)
    }
}
