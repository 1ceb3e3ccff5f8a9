//! What most tests begin with: a database, keys, a receiver and a mail server, one authority.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tokio_postgres::Client;

use crate::authority::Authority;
use crate::database::Database;
use crate::mta::Mta;
use crate::proxy::Proxy;
use crate::receiver::{Hook, Receiver};
use crate::smtp::MailServer;
use crate::vendor::Vendors;
use crate::worker::{Installation, Worker, binary};

/// The parts, each usable by itself.
pub struct Scene<'c> {
    /// A fresh database with the extension.
    pub database: Database<'c>,
    /// A superuser's session in it.
    pub client: Client,
    /// The worker's configuration and keys.
    pub installation: Installation,
    /// Who vouches for the receivers.
    pub authority: Authority,
    /// The HTTPS receiver.
    pub receiver: Receiver,
    flags: Vec<String>,
}

impl<'c> Scene<'c> {
    /// Sets it, the worker not yet running.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn set(database: Database<'c>) -> Self {
        let client = database.connect().await;
        let installation = Installation::init(&database.url()).await;
        let authority = Authority::new().expect("an authority can be made");
        let receiver = Receiver::start(&authority).await.expect("the receiver starts");
        let mut flags = vec!["--database-url".into(), database.worker_url()];
        flags.extend(["--egress-allow".into(), "127.0.0.1/32".into()]);
        flags.extend(["--ca-file".into(), authority.file().display().to_string()]);
        flags.extend(["--connect-to".into(), receiver.connect_to()]);
        Self { database, client, installation, authority, receiver, flags }
    }

    /// Starts a mail server that the worker will reach.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn mail(&mut self) -> MailServer {
        let server = MailServer::start(&self.authority).await.expect("the mail server starts");
        self.connect(server.connect_to());
        server
    }

    /// Starts the vendors' servers, which the worker will reach.
    ///
    /// # Panics
    /// When they do not start.
    pub async fn vendors(&mut self) -> Vendors {
        let vendors = Vendors::start(&self.authority).await.expect("the vendors' servers start");
        vendors.connect_to().into_iter().for_each(|connect_to| self.connect(connect_to));
        vendors
    }

    /// A `connect-to` for the worker that is started next.
    pub fn connect(&mut self, connect_to: String) {
        self.flags.extend(["--connect-to".into(), connect_to]);
    }

    /// As [`Scene::connect`], before those there are: the first that fits counts.
    pub fn connect_first(&mut self, connect_to: String) {
        self.flags.splice(0..0, ["--connect-to".into(), connect_to]);
    }

    /// The worker's settings that are given by the environment rather than by flags, for the worker or
    /// command that is started next.
    pub fn environment(&mut self, name: &str, value: &str) {
        self.installation.environment(name, value);
    }

    /// Another `database-url` for the worker that is started next.
    ///
    /// # Panics
    /// When the scene has none yet.
    pub fn database_url(&mut self, url: String) {
        let at = self.flags.iter().position(|flag| flag == "--database-url").expect("there is one");
        self.flags[at + 1] = url;
    }

    /// Starts a mail server with these mailboxes that the worker will reach.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn mta(&mut self, mailboxes: &[&str]) -> Mta {
        let mta = Mta::start(&self.authority, mailboxes).await.expect("exim starts");
        mta.connect_to().into_iter().for_each(|connect_to| self.connect(connect_to));
        mta
    }

    /// Has the workers that are started next reach the database by another URL.
    pub fn reach(&mut self, url: &str) {
        self.flags[1] = url.to_owned();
    }

    /// Puts a network between Postgres and the workers that are started next.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn proxy(&mut self) -> Proxy {
        let server = SocketAddr::from(([127, 0, 0, 1], self.database.cluster.port()));
        let proxy = Proxy::start(server).await.expect("a port is free");
        let url = self.database.worker_url();
        self.reach(&url.replace(&server.to_string(), &proxy.address().to_string()));
        proxy
    }

    /// Starts the worker, with flags on top of those that lead to the receivers.
    ///
    /// # Panics
    /// When it does not serve.
    pub async fn worker(&self, flags: &[&str]) -> Worker {
        let mut worker = self.start(flags);
        worker.ready().await;
        worker
    }

    /// As [`Scene::worker`], without waiting until it serves.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(&self, flags: &[&str]) -> Worker {
        self.start_by(&binary(), flags)
    }

    /// The same by another binary than the one under test.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_by(&self, binary: &Path, flags: &[&str]) -> Worker {
        let flags: Vec<_> =
            self.flags.iter().cloned().chain(flags.iter().map(|flag| (*flag).to_owned())).collect();
        self.installation.start_by(binary, &flags)
    }

    /// Runs a command of `klaxon` to its end, with the flags that the worker is started with.
    pub async fn run(&self, arguments: &[&str]) -> std::process::Output {
        let flags = self.flags.iter().map(String::as_str);
        self.installation.run(&arguments.iter().copied().chain(flags).collect::<Vec<_>>()).await
    }

    /// A global webhook channel to a path of the receiver, signed where the hook has a secret, and
    /// a shared subscription of these events to it. Returns the channel's id.
    ///
    /// # Panics
    /// When the database refuses.
    pub async fn webhook(&self, name: &str, hook: Hook, config: Value, events: &[&str]) -> i64 {
        let mut config = config;
        let secret = hook.signed_with().map(str::to_owned);
        config["url"] = self.receiver.serve(&format!("/{name}"), hook).into();
        if let Some(secret) = secret {
            config["hmac_secret"] = secret.into();
        }
        self.channel(name, "webhook", config, events).await
    }

    /// A global channel and a shared subscription of these events to it. Returns the channel's id.
    ///
    /// # Panics
    /// When the database refuses.
    pub async fn channel(&self, name: &str, kind: &str, config: Value, events: &[&str]) -> i64 {
        let channel = self
            .client
            .query_one(
                "INSERT INTO klaxon.channel (name, kind, config) VALUES ($1, $2, $3) RETURNING id",
                &[&name, &kind, &config],
            )
            .await
            .expect("the channel is valid")
            .get(0);
        self.client
            .execute("SELECT klaxon.subscribe(ARRAY[$1::text], $2, owner => NULL)", &[&name, &events])
            .await
            .expect("the subscription is valid");
        channel
    }

    /// Emits an event, in a transaction of its own. Returns its id.
    ///
    /// # Panics
    /// When the database refuses.
    pub async fn emit(&self, kind: &str, payload: Value) -> uuid::Uuid {
        self.client
            .query_one("SELECT klaxon.notify_event($1, $2)", &[&kind, &payload])
            .await
            .expect("the event is valid")
            .get(0)
    }

    /// Emits an event without a payload in a project, likewise.
    ///
    /// # Panics
    /// When the database refuses.
    pub async fn emit_in(&self, kind: &str, project: &str) -> uuid::Uuid {
        self.client
            .query_one("SELECT klaxon.notify_event($1, project => $2)", &[&kind, &project])
            .await
            .expect("the event is valid")
            .get(0)
    }
}
