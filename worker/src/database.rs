//! Sessions with Postgres.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, stream};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Notification, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

mod dsn;
mod tls;

/// How long connecting may take, and a connection whose other side is gone may stay unnoticed.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long another client may wait for a session of a pooler's.
const PROBE: Duration = Duration::from_secs(2);

/// What a role's or a database's odd defaults must not decide for us.
const SESSION: &str = "
    SET search_path = pg_catalog;
    SET default_transaction_isolation = 'read committed';
    SET default_transaction_read_only = off;
    SET statement_timeout = '60s';
    SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '60s';
    SET row_security = on;
    SET synchronous_commit = on";

/// A database to serve.
#[derive(Clone, Debug)]
pub struct Target {
    /// One for each host, in the order in which they are tried.
    hosts: Vec<Config>,
    tls: tls::Mode,
    name: String,
}

/// A session: the client, and what it is notified of until the connection ends.
#[derive(Debug)]
pub struct Session {
    /// Runs statements.
    pub client: Client,
    /// What the session is notified of.
    pub notifications: UnboundedReceiver<Notification>,
    /// The connection. Without a client it ends once all is answered that was asked; aborted, at once.
    pub connection: JoinHandle<()>,
}

impl Target {
    /// Reads a URL or a key=value string; libpq's environment fills what it leaves out.
    ///
    /// # Errors
    /// Where it does not read; the message never repeats a password.
    pub fn parse(url: &SecretString) -> anyhow::Result<Self> {
        let (config, tls) = dsn::parse(url.expose_secret(), &|name| std::env::var(name).ok())?;
        let name = dsn::name(&config);
        Ok(Self { hosts: apart(&config), tls, name })
    }

    /// All the settings name, or the one that libpq's environment does.
    ///
    /// # Errors
    /// Where one does not read.
    pub fn all(urls: &[SecretString]) -> anyhow::Result<Vec<Self>> {
        if urls.is_empty() {
            return Ok(vec![Self::parse(&SecretString::from(""))?]);
        }
        urls.iter().map(Self::parse).collect()
    }

    /// The one that the settings name, for what is done to one alone.
    ///
    /// # Errors
    /// There are several, or it does not read.
    pub fn only(urls: &[SecretString]) -> anyhow::Result<Self> {
        let mut targets = Self::all(urls)?;
        match targets.pop() {
            Some(target) if targets.is_empty() => Ok(target),
            _ => bail!("name one database by --database-url: the settings have {}", urls.len()),
        }
    }

    /// Host and database, for the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connects: to the first host that answers, and as `target_session_attrs` has it.
    ///
    /// # Errors
    /// Where none does. One that is silent is given up after `connect_timeout`, so that it does not keep
    /// the worker from the next; an only one after 10 s.
    pub async fn connect(&self) -> anyhow::Result<Session> {
        let mut result = Err(anyhow::anyhow!("no host"));
        for host in &self.hosts {
            let patience = if self.hosts.len() == 1 { None } else { host.get_connect_timeout().copied() };
            let patience = patience.unwrap_or(DEADLINE);
            result = match timeout(patience, self.connect_to(host)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(anyhow::anyhow!("no answer in {} s", patience.as_secs())),
            };
        }
        result.with_context(|| format!("cannot reach postgres at {}", self.name))
    }

    async fn connect_to(&self, host: &Config) -> anyhow::Result<Session> {
        let tls = tls::connector(&self.tls)?;
        let mut ways = self.tls.ways().iter().peekable();
        while let Some(way) = ways.next() {
            let mut config = host.clone();
            config.ssl_mode(*way);
            match open(&config, tls.clone()).await {
                Err(error) if ways.peek().is_some() && is_refused(&error) => {}
                other => return other.map_err(describe),
            }
        }
        bail!("no way to connect")
    }

    /// Whether the session of `client` is its own, rather than lent by a pooler for each transaction.
    ///
    /// Who asks next for a pooler's session gets the one that is idle, so another client asks and keeps it:
    /// for an answer that is no, that is proof. Where the pooler has many and picks another, or the other
    /// client gets none at all, the worker's heartbeats find out later.
    ///
    /// # Errors
    /// Where the session breaks.
    pub async fn keeps(&self, client: &Client) -> anyhow::Result<bool> {
        let own = backend(client).await?;
        let lend = async {
            let other = self.connect().await.ok()?;
            other.client.batch_execute("BEGIN").await.ok()?;
            let lent = backend(&other.client).await.ok()?;
            Some((other, lent))
        };
        let lent = timeout(PROBE, lend).await.ok().flatten();
        if lent.as_ref().is_some_and(|(_, lent)| *lent == own) {
            return Ok(false);
        }
        Ok(backend(client).await? == own)
    }
}

/// The server process that answers. Nothing is prepared: it may be for others to stumble over.
async fn backend(client: &Client) -> anyhow::Result<String> {
    let messages = client.simple_query("SELECT pg_catalog.pg_backend_pid()").await.map_err(describe)?;
    let pid = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    pid.context("a query without an answer")
}

/// Whether the server's rules (pg_hba.conf) do not let this way in.
fn is_refused(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

async fn open(config: &Config, tls: MakeRustlsConnect) -> Result<Session, tokio_postgres::Error> {
    let (client, mut connection) = config.connect(tls).await?;
    let (sender, notifications) = unbounded_channel();
    let connection = tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(message) = messages.next().await {
            match message {
                Ok(AsyncMessage::Notification(notification)) => {
                    // Nobody listening any more is the session's end on its way.
                    let _ = sender.send(notification);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "the session ended");
                    break;
                }
            }
        }
    });
    client.batch_execute(SESSION).await?;
    Ok(Session { client, notifications, connection })
}

/// An error of Postgres' own: what it says, and its SQLSTATE.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Said {
    text: String,
    code: SqlState,
}

/// What Postgres says, rather than "db error".
pub fn describe(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(said) => {
            let hint = said.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            let text = format!("{}: {}{hint}", said.severity(), said.message());
            anyhow::Error::new(Said { text, code: said.code().clone() })
        }
        None => anyhow::Error::new(error),
    }
}

/// Whether the error is of the server's condition, which passes: it shuts down, is a standby still, has no
/// room, was cancelled. The first two characters of SQLSTATE tell.
pub fn is_passing(error: &anyhow::Error) -> bool {
    match (error.downcast_ref::<Said>(), error.downcast_ref::<tokio_postgres::Error>()) {
        (Some(said), _) => matches!(&said.code.code()[..2], "08" | "25" | "40" | "53" | "55" | "57" | "58"),
        (None, Some(error)) => error.is_closed(),
        (None, None) => false,
    }
}

/// The same for each host by itself. Where lists are of different lengths, tokio-postgres says so.
fn apart(config: &Config) -> Vec<Config> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let fits = |length: usize| length == hosts.len() || length == 0;
    if hosts.len() < 2 || !fits(addresses.len()) || !(fits(ports.len()) || ports.len() == 1) {
        return vec![config.clone()];
    }
    let single = |index: usize| {
        let mut one = Config::new();
        match &hosts[index] {
            Host::Tcp(name) => one.host(name),
            Host::Unix(folder) => one.host_path(folder),
        };
        addresses.get(index).map(|address| one.hostaddr(*address));
        ports.get(index).or(ports.first()).map(|port| one.port(*port));
        config.get_user().map(|user| one.user(user));
        config.get_password().map(|password| one.password(password));
        config.get_dbname().map(|name| one.dbname(name));
        config.get_options().map(|options| one.options(options));
        config.get_application_name().map(|name| one.application_name(name));
        config.get_connect_timeout().map(|limit| one.connect_timeout(*limit));
        config.get_tcp_user_timeout().map(|limit| one.tcp_user_timeout(*limit));
        config.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
        config.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
        one.keepalives(config.get_keepalives())
            .keepalives_idle(config.get_keepalives_idle())
            .ssl_mode(config.get_ssl_mode())
            .ssl_negotiation(config.get_ssl_negotiation())
            .target_session_attrs(config.get_target_session_attrs())
            .channel_binding(config.get_channel_binding())
            .load_balance_hosts(config.get_load_balance_hosts());
        one
    };
    (0..hosts.len()).map(single).collect()
}

/// What a connection has where its string does not say.
fn standard(config: &mut Config) {
    let untouched = Config::new();
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(5));
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(DEADLINE);
    }
    if config.get_keepalives_idle() == untouched.get_keepalives_idle() {
        config.keepalives_idle(Duration::from_secs(5));
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(Duration::from_secs(2));
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(2);
    }
}
