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
    /// The key that the log goes on under was renewed elsewhere, and its file is not here yet.
    #[error("the log is under key {0}, which is not in audit-key-file")]
    MissingKey(String),
}

impl SettleError {
    /// Whether one of the rows may be to blame, so that it helps to try them apart.
    pub fn blames_a_row(&self) -> bool {
        match self {
            Self::Database(error) => {
                error.code().is_none_or(|code| is_of_a_row(code.code())) && !error.is_closed()
            }
            Self::NoHead | Self::BadHead(_) | Self::MissingKey(_) => false,
        }
    }
}

/// Whether an SQLSTATE tells of a row: of its data (22), a constraint (23), a limit (54) or a damaged page
/// (XX001), or of somebody's trigger or function that will not have it (09, 27, 38, 39, 44, P0). Everything
/// else is the server's condition, and passes.
fn is_of_a_row(code: &str) -> bool {
    const CLASSES: [&str; 9] = ["09", "22", "23", "27", "38", "39", "44", "54", "P0"];
    code == "XX001" || code.get(..2).is_some_and(|class| CLASSES.contains(&class))
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
    let append = query_unless(lines.is_empty(), client, &statements.append, &columns);
    let appended = committed(append, client.batch_execute("COMMIT")).await?;
    let hopeless =
        appended.iter().filter(|row| row.get("hopeless")).map(|row| row.get("channel_id")).collect();
    written.record(&fared, now);
    Ok(Settled { rows, hopeless, clock })
}

/// Both are on their way at once; unless the last statement cannot even be sent, of which Postgres does not know:
/// then neither is the COMMIT, and nothing stands.
async fn committed<T, E>(
    last: impl Future<Output = Result<T, E>>,
    commit: impl Future<Output = Result<(), E>>,
) -> Result<T, E> {
    try_join(last, commit).await.map(|(answer, ())| answer)
}

async fn query_unless(
    nothing: bool,
    client: &Client,
    statement: &Statement,
    arguments: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Error> {
    if nothing { Ok(Vec::new()) } else { client.query(statement, arguments).await }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{poll_fn, ready};
    use std::task::Poll;

    use super::*;

    #[test]
    fn a_row_is_blamed_for_what_is_its_own_and_not_for_the_servers_condition() {
        for code in ["22001", "23514", "54000", "P0001", "39P01", "44000", "27000", "XX001"] {
            assert!(is_of_a_row(code), "{code}");
        }
        for code in [
            "53100", "57014", "57P01", "25006", "40001", "55P03", "42501", "08006", "58030", "XX000", "", "P",
        ] {
            assert!(!is_of_a_row(code), "{code}");
        }
    }

    /// The records' arguments could not be written: had the COMMIT been sent beside them, the deletions would
    /// stand without their records.
    #[tokio::test]
    async fn nothing_is_committed_behind_a_statement_that_was_not_sent() {
        let sent = Cell::new(false);
        let commit = async {
            sent.set(true);
            Ok(())
        };
        let unsent: Result<(), _> = Err("cannot be encoded");
        assert_eq!(committed(ready(unsent), commit).await, unsent);
        assert!(!sent.get());
    }

    #[tokio::test]
    async fn the_commit_is_sent_without_waiting_for_the_answer_before_it() {
        let sent = Cell::new(false);
        let commit = async {
            sent.set(true);
            Ok::<_, ()>(())
        };
        let answer = poll_fn(|context| {
            context.waker().wake_by_ref();
            if sent.get() { Poll::Ready(Ok(7)) } else { Poll::Pending }
        });
        assert_eq!(committed(answer, commit).await, Ok(7));
    }
}
