//! Writing what came of deliveries: the row and its record in the log, in one transaction.

mod batch;
mod count;
mod health;
mod log;
mod outcome;

use std::collections::HashMap;
use std::time::Instant;

use futures_util::future::{join3, try_join};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};
use uuid::Uuid;

use self::batch::Batch;
pub use self::count::{Intent, count};
pub use self::health::Written;
pub use self::log::{Head, Log};
pub use self::outcome::{Attempt, ChannelName, End, Outcome};
use crate::clock::{Clock, DbTime};
use crate::statement::{Statements, reason};

/// Outcomes a transaction takes at most.
pub const BATCH: usize = 500;

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// Postgres refused it, or is gone.
    #[error("{}", reason(.0))]
    Database(#[from] Error),
    /// There is nothing to append to: the deployment was never initialised, or its row was removed.
    #[error("klaxon.audit_head is empty: run klaxon init")]
    NoHead,
    /// The end of the chain is not what the log can be continued from.
    #[error("klaxon.audit_head: {0}")]
    BadHead(String),
}

impl SettleError {
    /// Whether one of the rows may be to blame, so that it helps to try them apart. Classes 22 and 23
    /// of SQLSTATE are data and constraints, 54 limits; everything else is the server's condition, and
    /// passes.
    pub fn blames_a_row(&self) -> bool {
        match self {
            Self::Database(error) => {
                error.code().is_none_or(|code| matches!(&code.code()[..2], "22" | "23" | "54"))
                    && !error.is_closed()
            }
            Self::NoHead | Self::BadHead(_) => false,
        }
    }
}

/// What a committed batch says.
#[derive(Debug)]
pub struct Settled {
    /// The rows that were as they were read: `Some` is when the next attempt is due.
    pub rows: HashMap<Uuid, Option<DbTime>>,
    /// Channels that have only failed for five days.
    pub hopeless: Vec<i64>,
    /// The database's clock.
    pub clock: Clock,
}

/// Writes a batch: two round trips, one transaction, at most five statements, of which an ordinary batch
/// needs four.
///
/// Rows that are gone, or that somebody else has settled since, are left alone and not logged: what
/// this worker then did is not the database's history.
///
/// # Errors
///
/// Nothing of the batch is written then; except that a COMMIT whose answer was lost may have been.
pub async fn settle(
    client: &Client,
    statements: &Statements,
    log: &Log,
    outcomes: &[Outcome],
    written: &mut Written,
) -> Result<Settled, SettleError> {
    let result = transact(client, statements, log, outcomes, written).await;
    if result.is_err() && !client.is_closed() {
        client.batch_execute("ROLLBACK").await?;
    }
    result
}

async fn transact(
    client: &Client,
    statements: &Statements,
    log: &Log,
    outcomes: &[Outcome],
    written: &mut Written,
) -> Result<Settled, SettleError> {
    let Batch { sent, failed, dead } = Batch::new(outcomes);
    // Sent one behind the other without waiting; after one fails, Postgres refuses the rest.
    let (begun, sent_rows, unsent_rows) = join3(
        client.batch_execute("BEGIN"),
        client.query(&statements.sent, &[&sent.ids, &sent.channels, &sent.due, &sent.attempts]),
        query_unless(
            failed.rows.is_empty() && dead.rows.is_empty(),
            client,
            &statements.unsent,
            &[
                &failed.rows.ids,
                &failed.rows.channels,
                &failed.rows.due,
                &failed.rows.attempts,
                &failed.delays,
                &failed.errors,
                &failed.made,
                &dead.rows.ids,
                &dead.rows.channels,
                &dead.rows.due,
                &dead.rows.attempts,
                &dead.made,
                &dead.errors,
                &dead.reasons,
            ],
        ),
    )
    .await;
    begun?;
    // In the order of the statements: the first error is the cause, the rest only follow from it.
    let (sent_rows, unsent_rows) = (sent_rows?, unsent_rows?);
    let mut rows: HashMap<Uuid, Option<DbTime>> = HashMap::with_capacity(outcomes.len());
    let mut head = None;
    for row in &sent_rows {
        match row.try_get(0)? {
            Some(id) => drop(rows.insert(id, None)),
            None => head = Some(Head::read(row)?),
        }
    }
    for row in &unsent_rows {
        rows.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let head = head.ok_or(SettleError::NoHead)?;
    let (now, clock) = (head.now, Clock::new(head.now, Instant::now()));

    let settled = || outcomes.iter().filter(|outcome| rows.contains_key(&outcome.ticket.id));
    let mut fared = health::sum_up(settled());
    written.worth_writing(&mut fared, now);
    let key = log.key(&head)?;
    let lines = log.continue_from(&key, head, settled().filter(|outcome| outcome.attempt.is_some()));
    let channels: Vec<i64> = fared.keys().copied().collect();
    let succeeded: Vec<bool> = fared.values().map(|fared| fared.succeeded).collect();
    let failures: Vec<i64> = fared.values().map(|fared| fared.failures).collect();
    let errors: Vec<Option<&str>> = fared.values().map(|fared| fared.error.as_deref()).collect();
    let mut columns = lines.columns().to_vec();
    columns.extend([&channels as &(dyn ToSql + Sync), &succeeded, &failures, &errors]);
    // An error that Postgres does not know of, because the arguments could not be written, is the first's
    // at once, and the COMMIT is not sent.
    let (appended, ()) = try_join(
        query_unless(lines.is_empty(), client, &statements.append, &columns),
        client.batch_execute("COMMIT"),
    )
    .await?;
    let hopeless =
        appended.iter().filter(|row| row.get("hopeless")).map(|row| row.get("channel_id")).collect();
    written.record(&fared, now);
    Ok(Settled { rows, hopeless, clock })
}

async fn query_unless(
    nothing: bool,
    client: &Client,
    statement: &Statement,
    arguments: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Error> {
    if nothing { Ok(Vec::new()) } else { client.query(statement, arguments).await }
}
