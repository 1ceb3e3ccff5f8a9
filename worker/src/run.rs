//! The worker at work: one engine a database, and what they share.

mod answer;
mod careful;
mod choose;
mod engine;
mod flight;
mod job;
mod queue;
pub mod test;
mod tick;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Notification};
use uuid::Uuid;

use self::engine::Engine;
use self::job::{DEADLINE, Database, Lost};
use crate::backoff;
use crate::channel::Courier;
use crate::database::{Session, Target, describe, is_passing};
use crate::deployment::{self, MissingKey};
use crate::keyring::Keyring;
use crate::metrics::Served;
use crate::statement::{self, Statements};
use crate::trace::Tracer;

/// How much longer than one attempt may take a worker that was told to stop waits for what is on its
/// way.
const DRAIN_MARGIN: Duration = Duration::from_secs(4);

/// How long to leave the key files alone that lack a key.
const KEYS_PAUSE: Duration = Duration::from_secs(5);

/// What the engines of all databases share.
#[derive(Debug)]
pub struct Shared {
    /// Who sends.
    pub courier: Arc<Courier>,
    /// Who says where in a trace an attempt belongs.
    pub tracer: Tracer,
    /// Deliveries in flight over all.
    pub permits: Arc<Semaphore>,
    /// How many there may be.
    pub concurrency: usize,
    /// Deliveries in flight of one channel.
    pub per_channel: usize,
    /// How long an attempt may take.
    pub attempt_timeout: Duration,
    /// How often to look for work where no notification comes.
    pub poll_interval: Duration,
    /// How many of the databases are being served.
    pub served: Arc<Served>,
    /// The deployment this worker delivers for; no other's.
    pub deployment_id: Option<String>,
    /// What opens the channels' secrets and signs the log.
    pub keyring: Arc<Keyring>,
    /// Where checkpoints of the log are kept outside of it.
    pub checkpoint_file: Option<PathBuf>,
    /// Where this worker runs.
    pub host: String,
    /// Its settings as people may see them, JSON.
    pub settings: String,
}

/// Serves every database until `shutdown` turns true, then lets what is on its way finish, writes it
/// and returns. A database that is away is waited for.
///
/// # Errors
///
/// A database refuses this worker: it is another deployment's, or has no extension of this version.
/// The others are drained first.
pub async fn run(
    shared: Arc<Shared>,
    targets: Vec<Target>,
    mut shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let mut engines = JoinSet::new();
    for target in targets {
        engines.spawn(serve(Arc::clone(&shared), target, stopped.clone()));
    }
    let mut refused = None;
    loop {
        tokio::select! {
            ended = engines.join_next() => match ended {
                None => break,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => {
                    refused.get_or_insert(error);
                    stop.send_replace(true);
                }
                Some(Err(error)) => {
                    refused.get_or_insert(error.into());
                    stop.send_replace(true);
                }
            },
            told = shutdown.wait_for(|told| *told), if !*stopped.borrow() => {
                // Whoever could tell is gone: that is the end, too.
                drop(told);
                stop.send_replace(true);
            }
        }
    }
    refused.map_or(Ok(()), Err)
}

/// Why there is no session.
enum Unopened {
    /// Postgres is away: it is waited for.
    Away(anyhow::Error),
    /// A key is not in the files.
    Locked(MissingKey),
    /// It refuses this worker, or this worker it.
    Refused(anyhow::Error),
}

/// Serves one database: connects, serves until the session is lost, and begins anew.
async fn serve(
    shared: Arc<Shared>,
    target: Target,
    mut shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut engine = Engine::new(Arc::clone(&shared), Uuid::new_v4(), target.name().to_owned());
    let mut attempt = 0;
    while !*shutdown.borrow() {
        let lost = match open(&shared, &target, engine.worker()).await {
            Err(Unopened::Refused(error)) => return Err(error.context(target.name().to_owned())),
            // The keys were renewed on another host: the files are on their way here.
            Err(Unopened::Locked(missing)) if engine.has_served() => {
                tracing::error!(
                    database = target.name(),
                    error = missing.to_string(),
                    "waiting for the deployment's keys"
                );
                tokio::select! {
                    () = sleep(KEYS_PAUSE) => {}
                    _ = shutdown.changed() => {}
                }
                continue;
            }
            Err(Unopened::Locked(missing)) => {
                return Err(anyhow::Error::new(missing).context(target.name().to_owned()));
            }
            Err(Unopened::Away(error)) => format!("{error:#}"),
            Ok((database, notifications)) => {
                tracing::info!(database = target.name(), worker = %engine.worker(), "serving");
                let began = Instant::now();
                shared.served.begin();
                let tick = Arc::<Notify>::default();
                // Ends with the session: which server that was, or whether this worker's turn, is not known after it.
                let mut ticking = JoinSet::new();
                ticking.spawn(tick::keep(target.clone(), Arc::clone(&tick)));
                let ended = engine.serve(Arc::new(database), notifications, tick, &mut shutdown).await;
                drop(ticking);
                shared.served.end();
                if began.elapsed() > DEADLINE {
                    attempt = 0;
                }
                match ended {
                    Ok(()) => break,
                    Err(lost) if lost.is_of_an_update() && attempt == 0 => {
                        tracing::info!(database = target.name(), reason = %lost, "the schema was updated");
                        // At once, and not over and over.
                        attempt = 1;
                        continue;
                    }
                    Err(lost) => lost.to_string(),
                }
            }
        };
        attempt += 1;
        tracing::error!(database = target.name(), error = lost, attempt, "cannot reach postgres");
        tokio::select! {
            () = sleep(backoff::reconnect_delay(attempt, fastrand::f64())) => {}
            _ = shutdown.changed() => {}
        }
    }
    tracing::info!(database = target.name(), worker = %engine.worker(), "stopped");
    Ok(())
}

/// A session that is registered and listens. Only then is anything read, so that what is committed
/// in between is either read or notified.
async fn open(
    shared: &Shared,
    target: &Target,
    worker: Uuid,
) -> Result<(Database, UnboundedReceiver<Notification>), Unopened> {
    let Session { client, notifications, .. } = target.connect().await.map_err(Unopened::Away)?;
    match timeout(DEADLINE, prepare(shared, target, worker, &client)).await {
        Ok(Ok((statements, schema))) => Ok((Database { client, statements, schema }, notifications)),
        Ok(Err(error)) if client.is_closed() || is_passing(&error) => Err(Unopened::Away(error)),
        Ok(Err(error)) => Err(match error.downcast() {
            Ok(missing) => Unopened::Locked(missing),
            Err(error) => Unopened::Refused(error),
        }),
        Err(_) => Err(Unopened::Away(Lost::Silent.into())),
    }
}

async fn prepare(
    shared: &Shared,
    target: &Target,
    worker: Uuid,
    client: &Client,
) -> anyhow::Result<(Statements, String)> {
    if !target.keeps(client).await? {
        bail!(
            "a pooler lends this session to others between statements, and shards are owned by a session's locks: \
             give the worker the server's own host and port in database-url, or a pool with pool_mode = session"
        );
    }
    // A rotation may have gone by while there was no session.
    shared.keyring.reload();
    let keys = shared.keyring.keys();
    let found = deployment::check(client, shared.deployment_id.as_deref(), &keys).await?;
    client.batch_execute(statement::SETTINGS).await.map_err(describe)?;
    let statements = Statements::prepare(client).await.map_err(describe)?;
    let version = env!("CARGO_PKG_VERSION");
    client
        .execute(&statements.register, &[&worker, &shared.host, &version, &shared.settings])
        .await
        .map_err(describe)?;
    client.batch_execute("LISTEN klaxon_outbox; LISTEN klaxon_config").await.map_err(describe)?;
    // The notification of its own tells whether any arrive: a pooler in transaction mode swallows them. While
    // somebody else has the server's queue of them full, none can be sent, and work is found by polling.
    if let Err(error) = client.batch_execute("NOTIFY klaxon_outbox").await {
        if client.is_closed() {
            return Err(describe(error));
        }
        tracing::warn!(reason = statement::reason(&error), "cannot notify itself");
    }
    Ok((statements, found.schema))
}
