//! Finding work: what has become visible, and what waits behind a mark.

mod snapshot;

use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

pub use self::snapshot::{Snapshot, SnapshotError};
use crate::clock::{Clock, DbTime};
use crate::schedule::{Ask, Fetched, Happening, INTERRUPTED, Pending, Place, Shards};
use crate::statement::{Statements, reason};
use crate::trace;

/// Why a read brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Postgres refused it, or is gone.
    #[error("{}", reason(.0))]
    Database(#[from] Error),
    /// It answered what it never does.
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
    /// Likewise.
    #[error("a read without an answer")]
    NoRow,
}

/// What has become visible.
#[derive(Debug)]
pub enum News {
    /// These rows, all of them.
    Rows(Vec<Fetched>),
    /// More than there is room for: of each channel where its rows begin.
    Overflow(Vec<(i64, DbTime)>),
}

/// What has become visible, and up to which snapshot.
#[derive(Debug)]
pub struct Discovery {
    /// Where the next read begins.
    pub snapshot: Snapshot,
    /// What is new.
    pub news: News,
    /// The database's clock.
    pub clock: Clock,
}

/// Where reading begins for a session that owns nothing yet.
///
/// # Errors
///
/// Where the session breaks.
pub async fn start(client: &Client, statements: &Statements) -> Result<(Snapshot, Clock), ReadError> {
    let row = client.query_one(&statements.start, &[]).await?;
    Ok((row.try_get::<_, &str>("snapshot")?.parse()?, clock(&row)?))
}

/// Reads what has become visible since `last` of these shards: at most `room` rows and about `bytes`
/// bytes. Where there is more, no row, but where each channel begins.
///
/// # Errors
///
/// Where the session breaks.
pub async fn discover(
    client: &Client,
    statements: &Statements,
    last: &Snapshot,
    shards: Shards,
    (room, bytes): (usize, usize),
) -> Result<Discovery, ReadError> {
    let (xmax, in_progress) = (last.xmax(), last.in_progress());
    let shards: Vec<i64> = shards.iter().map(i64::from).collect();
    if room > 0 {
        let (limit, bytes) = (as_bigint(room + 1), as_bigint(bytes));
        let rows = client
            .query(&statements.discover, &[&xmax, &in_progress, &shards, &limit, &bytes, &INTERRUPTED])
            .await?;
        let first = rows.first().ok_or(ReadError::NoRow)?;
        if !first.try_get::<_, bool>("more")? {
            let (snapshot, clock) = (first.try_get::<_, &str>("snapshot")?.parse()?, clock(first)?);
            let found = rows.iter().filter(|row| !matches!(row.try_get::<_, Option<Uuid>>("id"), Ok(None)));
            let rows = found.map(fetched).collect::<Result<_, _>>()?;
            return Ok(Discovery { snapshot, news: News::Rows(rows), clock });
        }
    }
    let rows = client.query(&statements.overflow, &[&xmax, &in_progress, &shards]).await?;
    let first = rows.first().ok_or(ReadError::NoRow)?;
    let (snapshot, clock) = (first.try_get::<_, &str>("snapshot")?.parse()?, clock(first)?);
    let mut begins = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(channel_id) = row.try_get("channel_id")? {
            begins.push((channel_id, row.try_get("due_at")?));
        }
    }
    Ok(Discovery { snapshot, news: News::Overflow(begins), clock })
}

/// Reads what was asked for, and at most about `bytes` bytes of it. The rows come in no order.
///
/// # Errors
///
/// Where the session breaks.
pub async fn refill(
    client: &Client,
    statements: &Statements,
    asks: &[Ask],
    bytes: usize,
) -> Result<(Vec<Fetched>, Option<Clock>), ReadError> {
    let channels: Vec<i64> = asks.iter().map(|ask| ask.channel_id).collect();
    let due: Vec<DbTime> = asks.iter().map(|ask| ask.from.due_at).collect();
    let ids: Vec<Uuid> = asks.iter().map(|ask| ask.from.id).collect();
    let rooms: Vec<i64> = asks.iter().map(|ask| as_bigint(ask.room)).collect();
    let rows = client
        .query(&statements.refill, &[&channels, &due, &ids, &rooms, &as_bigint(bytes), &INTERRUPTED])
        .await?;
    let clock = rows.first().map(clock).transpose()?;
    Ok((rows.iter().map(fetched).collect::<Result<_, _>>()?, clock))
}

/// Where each channel of shards that have just been locked begins.
///
/// # Errors
///
/// Where the session breaks.
pub async fn first_due(
    client: &Client,
    statements: &Statements,
    shards: Shards,
) -> Result<Vec<(i64, DbTime)>, ReadError> {
    let shards: Vec<i64> = shards.iter().map(i64::from).collect();
    let rows = client.query(&statements.first_due, &[&shards]).await?;
    Ok(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, Error>>()?)
}

fn clock(row: &Row) -> Result<Clock, Error> {
    Ok(Clock::new(row.try_get("now")?, Instant::now()))
}

fn as_bigint(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn fetched(row: &Row) -> Result<Fetched, Error> {
    let channel_id = row.try_get("channel_id")?;
    let place = Place { due_at: row.try_get("due_at")?, id: row.try_get("id")? };
    if row.try_get("cut")? {
        return Ok(Fetched::Cut { channel_id, place });
    }
    // No event, or a payload that is no JSON: the row is taken in, and given up in its turn.
    let payload: Option<String> = row.try_get("payload")?;
    let payload = payload.and_then(|payload| RawValue::from_string(payload).ok());
    let occurred_at: Option<DbTime> = row.try_get("occurred_at")?;
    let severity: Option<&str> = row.try_get("severity")?;
    let severity = severity.and_then(|severity| severity.parse().ok());
    let session: Option<&str> = row.try_get("traceparent")?;
    let held_for: Option<i64> = row.try_get("held_for")?;
    Ok(Fetched::Whole(Box::new(Pending {
        id: place.id,
        event_id: row.try_get("event_id")?,
        subscription_id: row.try_get("subscription_id")?,
        channel_id,
        due_at: place.due_at,
        created_at: row.try_get("created_at")?,
        attempts: row.try_get("attempts")?,
        interrupted: row.try_get("interrupted")?,
        counted: false,
        replayed: row.try_get("replayed")?,
        event_type: row.try_get("event_type")?,
        project: row.try_get("project")?,
        cooldown_task: row.try_get("cooldown_task")?,
        held_back: row.try_get("held_back")?,
        held_for: held_for.and_then(|micros| u64::try_from(micros).ok()).map(Duration::from_micros),
        event: payload.zip(occurred_at).map(|(payload, occurred_at)| Happening {
            traceparent: trace::of_event(&payload, session),
            payload,
            occurred_at,
            severity,
        }),
    })))
}
