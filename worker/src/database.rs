//! Sessions with Postgres.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, stream};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Notification};
use tokio_postgres_rustls::MakeRustlsConnect;

mod dsn;
mod tls;

/// How long connecting may take, and a connection whose other side is gone may stay unnoticed.
const DEADLINE: Duration = Duration::from_secs(10);

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
    config: Config,
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
}

impl Target {
    /// Reads a URL or a key=value string; libpq's environment fills what it leaves out.
    ///
    /// # Errors
    /// Where it does not read; the message never repeats a password.
    pub fn parse(url: &SecretString) -> anyhow::Result<Self> {
        let (config, tls) = dsn::parse(url.expose_secret(), &|name| std::env::var(name).ok())?;
        let name = dsn::name(&config);
        Ok(Self { config, tls, name })
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

    /// Host and database, for the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connects.
    ///
    /// # Errors
    /// Where that fails or takes longer than 10 s.
    pub async fn connect(&self) -> anyhow::Result<Session> {
        let connecting = async {
            let tls = tls::connector(&self.tls)?;
            let mut ways = self.tls.ways().iter().peekable();
            while let Some(way) = ways.next() {
                let mut config = self.config.clone();
                config.ssl_mode(*way);
                match open(&config, tls.clone()).await {
                    Err(error) if ways.peek().is_some() && is_refused(&error) => {}
                    other => return other.map_err(describe),
                }
            }
            bail!("no way to connect")
        };
        match tokio::time::timeout(DEADLINE, connecting).await {
            Ok(session) => session.with_context(|| format!("cannot reach postgres at {}", self.name)),
            Err(_) => bail!("cannot reach postgres at {}: no answer in {} s", self.name, DEADLINE.as_secs()),
        }
    }
}

/// Whether the server's rules (pg_hba.conf) do not let this way in.
fn is_refused(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

async fn open(config: &Config, tls: MakeRustlsConnect) -> Result<Session, tokio_postgres::Error> {
    let (client, mut connection) = config.connect(tls).await?;
    let (sender, notifications) = unbounded_channel();
    tokio::spawn(async move {
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
    Ok(Session { client, notifications })
}

/// What Postgres says, rather than "db error".
pub fn describe(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(said) => {
            let hint = said.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            anyhow::anyhow!("{}: {}{hint}", said.severity(), said.message())
        }
        None => anyhow::Error::new(error),
    }
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
