//! What the databases say of themselves, to whoever measures or looks.
//!
//! Asked on sessions of its own, so that no delivery waits for a count, and only when somebody asks; an answer is
//! kept for a while, however many do.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::database::{Target, describe};

/// How long an answer is good for.
const FRESH: Duration = Duration::from_secs(4);
/// As long for what reads hours of the log.
const FRESH_HISTORY: Duration = Duration::from_secs(60);
/// How long a database may take: Prometheus itself waits for 10 s.
const PATIENCE: Duration = Duration::from_secs(6);

/// Looks at all databases of this worker.
pub struct Observer(Vec<Observed>);

struct Observed {
    target: Target,
    /// One question at a time.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    client: Option<Client>,
    gauges: Kept<Gauges>,
    glance: Kept<Value>,
    history: Kept<Value>,
}

/// The last answer, and when that was; none where there was none.
struct Kept<T>(Option<(Instant, Result<T, String>)>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// What is measured of a database, in the order of `gauges.sql`.
#[derive(Clone, Copy, Debug)]
pub struct Gauges([f64; 10]);

impl Gauges {
    /// The values, in order.
    pub fn values(&self) -> [f64; 10] {
        self.0
    }
}

/// What people are shown of a database.
#[derive(Clone, Debug)]
pub struct View {
    /// Its name.
    pub database: String,
    /// As it is.
    pub glance: Result<Value, String>,
    /// As it was of late.
    pub history: Result<Value, String>,
}

impl Observer {
    /// An observer that has not looked yet.
    pub fn new(targets: &[Target]) -> Self {
        Self(
            targets
                .iter()
                .map(|target| Observed { target: target.clone(), state: Mutex::default() })
                .collect(),
        )
    }

    /// What is measured of each; none of one that does not answer.
    pub async fn gauges(&self) -> Vec<(&str, Option<Gauges>)> {
        join_all(self.0.iter().map(async |observed| {
            let mut state = observed.state.lock().await;
            let State { client, gauges, .. } = &mut *state;
            let answer = gauges.fresh(FRESH, ask(&observed.target, client, read_gauges)).await;
            (observed.target.name(), answer.ok())
        }))
        .await
    }

    /// What people are shown of each.
    pub async fn views(&self) -> Vec<View> {
        join_all(self.0.iter().map(async |observed| {
            let mut state = observed.state.lock().await;
            let State { client, glance, history, .. } = &mut *state;
            let glance = glance
                .fresh(
                    FRESH,
                    ask(&observed.target, client, |client| read(client, include_str!("sql/glance.sql"))),
                )
                .await;
            let history = match &glance {
                // One that does not answer is not asked twice.
                Err(error) => Err(error.clone()),
                Ok(_) => {
                    let query = include_str!("sql/history.sql");
                    history
                        .fresh(FRESH_HISTORY, ask(&observed.target, client, |client| read(client, query)))
                        .await
                }
            };
            View { database: observed.target.name().to_owned(), glance, history }
        }))
        .await
    }
}

impl<T: Clone> Kept<T> {
    /// The answer, asked for anew where it is older than `age`. That there was none is kept for as short as
    /// what is good for the shortest.
    async fn fresh(
        &mut self,
        age: Duration,
        ask: impl Future<Output = anyhow::Result<T>>,
    ) -> Result<T, String> {
        let good = |(at, answer): &(Instant, Result<T, String>)| {
            at.elapsed() < if answer.is_ok() { age } else { FRESH.min(age) }
        };
        if let Some((_, answer)) = self.0.as_ref().filter(|kept| good(kept)) {
            return answer.clone();
        }
        let answer = ask.await.map_err(|error| format!("{error:#}"));
        self.0 = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// Asks on the session there is, or a new one. A session on which something went wrong is not used again.
async fn ask<'c, T, F, A>(target: &Target, client: &'c mut Option<Client>, question: F) -> anyhow::Result<T>
where
    F: FnOnce(&'c Client) -> A,
    A: Future<Output = Result<T, tokio_postgres::Error>> + 'c,
{
    let asked = async {
        let session = match client.take().filter(|client| !client.is_closed()) {
            Some(session) => session,
            None => {
                let session = target.connect().await?.client;
                let settings =
                    "SET default_transaction_read_only = on; SET statement_timeout = '5s'; SET jit = off";
                session.batch_execute(settings).await.map_err(describe)?;
                session
            }
        };
        anyhow::Ok(session)
    };
    let session = timeout(PATIENCE, asked).await.map_err(|_| silent())??;
    let kept = &*client.insert(session);
    timeout(PATIENCE, question(kept)).await.map_err(|_| silent())?.map_err(describe)
}

fn silent() -> anyhow::Error {
    anyhow::anyhow!("no answer from postgres within {} s", PATIENCE.as_secs())
}

async fn read_gauges(client: &Client) -> Result<Gauges, tokio_postgres::Error> {
    let row = client.query_one(include_str!("sql/gauges.sql"), &[]).await?;
    let mut values = [0.0; 10];
    for (at, value) in values.iter_mut().enumerate() {
        *value = match row.columns()[at].type_() {
            &tokio_postgres::types::Type::FLOAT8 => row.try_get(at)?,
            _ => row.try_get::<_, i64>(at)? as f64,
        };
    }
    Ok(Gauges(values))
}

async fn read(client: &Client, query: &str) -> Result<Value, tokio_postgres::Error> {
    let text: String = client.query_one(query, &[]).await?.try_get(0)?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}
