//! The log's records that are no attempts: rotations of its key, checkpoints, changes of the
//! configuration, removals. Each is a row of the same chain.

use klaxon_model::audit::{Key, Record};
use tokio_postgres::Transaction;
use uuid::Uuid;

use crate::settle::{Head, SettleError};

const LOCK: &str = include_str!("sql/head.sql");
const APPEND: &str = "
    WITH head AS (
        UPDATE klaxon.audit_head SET seq = $1, mac = $2, key_id = $3
    )
    INSERT INTO klaxon.delivery (seq, mac, key_id, kind, detail, attempted_at, worker, chain)
    VALUES ($1, $2, $4, $5, $6, $7, $8, $9)";

impl Head {
    /// Locks the end of the chain.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn lock(transaction: &Transaction<'_>) -> Result<Self, SettleError> {
        let row = transaction.query_opt(LOCK, &[]).await?.ok_or(SettleError::NoHead)?;
        Self::read(&row)
    }

    /// Appends a record under `key`; the next must be under `next`.
    ///
    /// # Errors
    /// Where Postgres refuses it.
    pub async fn append(
        &mut self,
        transaction: &Transaction<'_>,
        (key, next): (&Key, &Key),
        worker: Option<Uuid>,
        kind: &str,
        detail: &str,
    ) -> Result<(), SettleError> {
        let record = Record {
            seq: self.seq + 1,
            kind,
            attempted_at: self.now.micros(),
            worker: worker.map(Uuid::into_bytes),
            detail: Some(detail),
            chain: self.chain.into_bytes(),
            key_id: key.id(),
            ..Record::default()
        };
        let mac = key.seal(&record, &self.mac, &mut Vec::new());
        transaction
            .execute(
                APPEND,
                &[
                    &record.seq,
                    &mac.as_slice(),
                    &next.id(),
                    &key.id(),
                    &kind,
                    &detail,
                    &self.now,
                    &worker,
                    &self.chain,
                ],
            )
            .await?;
        (self.seq, self.mac, self.key_id) = (record.seq, mac, Some(next.id().to_owned()));
        Ok(())
    }
}
