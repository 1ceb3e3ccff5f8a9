//! Sessions with Postgres.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, stream};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Notification, Socket};

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
            match tls::connector(&self.tls)? {
                Some(tls) => self.open(tls).await,
                None => self.open(NoTls).await,
            }
        };
        match tokio::time::timeout(DEADLINE, connecting).await {
            Ok(session) => session.with_context(|| format!("cannot reach postgres at {}", self.name)),
            Err(_) => bail!("cannot reach postgres at {}: no answer in {} s", self.name, DEADLINE.as_secs()),
        }
    }

    async fn open<T>(&self, tls: T) -> anyhow::Result<Session>
    where
        T: MakeTlsConnect<
                Socket,
                Stream: Send + 'static,
                TlsConnect: Send + TlsConnect<Socket, Future: Send>,
            > + Send,
    {
        let (client, mut connection) = self.config.connect(tls).await.map_err(describe)?;
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
        client.batch_execute(SESSION).await.map_err(describe)?;
        Ok(Session { client, notifications })
    }
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

fn standard(config: &mut Config) {
    config
        .application_name("klaxon")
        .connect_timeout(Duration::from_secs(5))
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(2))
        .keepalives_retries(2)
        .tcp_user_timeout(DEADLINE);
}
