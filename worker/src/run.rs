//! The worker at work: one engine a database, and what they share.

mod engine;
mod flight;
mod job;
mod queue;

use std::sync::Arc;
use std::time::{Duration, Instant};

use klaxon_model::audit;
use klaxon_model::seal::SecretKey;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use self::engine::Engine;
use self::job::{DEADLINE, Database, Lost};
use crate::backoff;
use crate::channel::Courier;
use crate::database::{Session, Target};
use crate::statement::{self, Statements};

/// How much longer than one attempt may take a worker that was told to stop waits for what is on its
/// way.
const DRAIN_MARGIN: Duration = Duration::from_secs(4);

/// What the engines of all databases share.
#[derive(Debug)]
pub struct Shared {
    /// Who sends.
    pub courier: Arc<Courier>,
    /// Deliveries in flight over all.
    pub permits: Arc<Semaphore>,
    /// Deliveries in flight of one channel.
    pub per_channel: usize,
    /// How long an attempt may take.
    pub attempt_timeout: Duration,
    /// How often to look for work where no notification comes.
    pub poll_interval: Duration,
    /// What opens the channels' secrets, newest first.
    pub secret_keys: Vec<SecretKey>,
    /// What signs the log.
    pub audit_key: audit::Key,
    /// Where this worker runs.
    pub host: String,
    /// Its settings as people may see them, JSON.
    pub settings: String,
}

/// Serves every database until `shutdown` turns true, then lets what is on its way finish, writes it
/// and returns. What a database does not answer for is logged and tried again; nothing ends the worker
/// but `shutdown`.
pub async fn run(shared: Arc<Shared>, targets: Vec<Target>, shutdown: watch::Receiver<bool>) {
    let mut engines = JoinSet::new();
    for target in targets {
        engines.spawn(serve(Arc::clone(&shared), target, shutdown.clone()));
    }
    while let Some(ended) = engines.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "an engine ended unexpectedly");
        }
    }
}

/// Serves one database: connects, serves until the session is lost, and begins anew.
async fn serve(shared: Arc<Shared>, target: Target, mut shutdown: watch::Receiver<bool>) {
    let mut engine = Engine::new(Arc::clone(&shared), Uuid::new_v4());
    let mut attempt = 0;
    while !*shutdown.borrow() {
        let lost = match timeout(DEADLINE, open(&shared, &target, &engine)).await {
            Ok(Ok((database, session))) => {
                tracing::info!(database = target.name(), worker = %engine.worker(), "serving");
                let began = Instant::now();
                match engine.serve(Arc::new(database), session, &mut shutdown).await {
                    Ok(()) => break,
                    Err(lost) => {
                        if began.elapsed() > DEADLINE {
                            attempt = 0;
                        }
                        lost.to_string()
                    }
                }
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => Lost::Silent.to_string(),
        };
        attempt += 1;
        let pause = backoff::reconnect_delay(attempt, fastrand::f64());
        tracing::error!(database = target.name(), error = lost, attempt, "cannot reach postgres");
        tokio::select! {
            () = sleep(pause) => {}
            _ = shutdown.changed() => {}
        }
    }
    tracing::info!(database = target.name(), worker = %engine.worker(), "stopped");
}

/// A session that is registered and listens. Only then is anything read, so that what is committed
/// in between is either read or notified.
async fn open(
    shared: &Shared,
    target: &Target,
    engine: &Engine,
) -> anyhow::Result<(Database, tokio::sync::mpsc::UnboundedReceiver<tokio_postgres::Notification>)> {
    let Session { client, notifications, .. } = target.connect().await?;
    client.batch_execute(statement::SETTINGS).await?;
    let statements = Statements::prepare(&client).await?;
    let version = env!("CARGO_PKG_VERSION");
    client
        .execute(&statements.register, &[&engine.worker(), &shared.host, &version, &shared.settings])
        .await?;
    // The notification of its own tells whether any arrive: a pooler in transaction mode swallows them.
    client.batch_execute("LISTEN klaxon_outbox; LISTEN klaxon_config; NOTIFY klaxon_outbox").await?;
    Ok((Database { client, statements }, notifications))
}
