//! The log as Postgres sends it: one COPY, read row by row in constant memory.

use anyhow::Context as _;
use futures_util::{StreamExt as _, pin_mut};
use indicatif::ProgressBar;
use klaxon_model::audit::{Record, Tag, Verifier};
use tokio_postgres::Transaction;
use tokio_postgres::binary_copy::{BinaryCopyOutRow, BinaryCopyOutStream};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::clock::DbTime;
use crate::database::describe;

/// Every column the MAC covers, and the body.
const COLUMNS: &str = "seq, kind, delivery_id, attempt, event_id, event_type, project, subscription_id, channel_id, channel_name,
    channel_kind, status, response_code, error, response_body, duration_ms, attempted_at, worker, detail, chain, key_id, body_hash, mac";

const TYPES: [Type; 23] = [
    Type::INT8,
    Type::TEXT,
    Type::UUID,
    Type::INT4,
    Type::UUID,
    Type::TEXT,
    Type::TEXT,
    Type::INT8,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INT4,
    Type::TEXT,
    Type::TEXT,
    Type::INT4,
    Type::TIMESTAMPTZ,
    Type::UUID,
    Type::TEXT,
    Type::UUID,
    Type::TEXT,
    Type::BYTEA,
    Type::BYTEA,
];

/// Pushes the rows from `first` on into the verifier, in order.
///
/// # Errors
/// Where Postgres does not send them, or sends what the table cannot hold.
pub async fn rows(
    transaction: &Transaction<'_>,
    first: i64,
    verifier: &mut Verifier,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    // COPY takes no parameters; a number needs no quotes.
    let copy = format!(
        "COPY (SELECT {COLUMNS} FROM klaxon.delivery WHERE seq >= {first} ORDER BY seq) TO STDOUT (FORMAT binary)"
    );
    let stream =
        transaction.copy_out(&copy).await.map_err(describe).context("cannot read klaxon.delivery")?;
    let rows = BinaryCopyOutStream::new(stream, &TYPES);
    pin_mut!(rows);
    let mut read = 0u64;
    while let Some(row) = rows.next().await {
        push(&row?, verifier)?;
        read += 1;
        if read.is_multiple_of(4096) {
            progress.set_position(read);
        }
    }
    Ok(())
}

fn push(row: &BinaryCopyOutRow, verifier: &mut Verifier) -> anyhow::Result<()> {
    let id =
        |column| Ok::<_, tokio_postgres::Error>(row.try_get::<Option<Uuid>>(column)?.map(Uuid::into_bytes));
    let hash: Option<&[u8]> = row.try_get(21)?;
    let record = Record {
        seq: row.try_get(0)?,
        kind: row.try_get(1)?,
        delivery_id: id(2)?,
        attempt: row.try_get(3)?,
        event_id: id(4)?,
        event_type: row.try_get(5)?,
        project: row.try_get(6)?,
        subscription_id: row.try_get(7)?,
        channel_id: row.try_get(8)?,
        channel_name: row.try_get(9)?,
        channel_kind: row.try_get(10)?,
        status: row.try_get(11)?,
        response_code: row.try_get(12)?,
        error: row.try_get(13)?,
        duration_ms: row.try_get(15)?,
        attempted_at: row.try_get::<DbTime>(16)?.micros(),
        worker: id(17)?,
        detail: row.try_get(18)?,
        chain: row.try_get::<Uuid>(19)?.into_bytes(),
        key_id: row.try_get(20)?,
        // A hash of another length is not what was written: it encodes as something else.
        body_hash: hash.map(|hash| Tag::try_from(hash).unwrap_or_default()),
    };
    verifier.push(&record, row.try_get(14)?, row.try_get(22)?);
    Ok(())
}
