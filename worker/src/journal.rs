//! The log's records that are no attempts: rotations of its key, checkpoints, changes of the
//! configuration, removals. Each is a row of the same chain.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use klaxon_model::audit::{Adoption, Checkpoint, Key, Record};
use tokio_postgres::{Client, GenericClient, Transaction};
use uuid::Uuid;

use crate::keyring::Keyring;
use crate::settle::{Head, SettleError};

/// Changes that one transaction takes: it holds the log's end, and settling waits for it.
const BATCH: i64 = 500;

const LOCK: &str = include_str!("sql/head.sql");
const APPEND: &str = include_str!("sql/journal.sql");
const CHANGES: &str = "
    DELETE FROM klaxon.config_change AS c
    WHERE c.id = ANY (ARRAY(SELECT id FROM klaxon.config_change ORDER BY id LIMIT $1))
    RETURNING c.id, c.detail";
const TIME: &str = "SELECT to_char($1::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), klaxon.checkpoint_is_due()";

impl Head {
    /// Locks the end of the chain.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn lock(client: &impl GenericClient) -> Result<Self, SettleError> {
        let row = client.query_opt(LOCK, &[]).await?.ok_or(SettleError::NoHead)?;
        Self::read(&row)
    }

    /// Appends records under `key`; the next must be under `next`.
    ///
    /// # Errors
    /// Where Postgres refuses it.
    pub async fn append(
        &mut self,
        client: &impl GenericClient,
        (key, next): (&Key, &Key),
        worker: Option<Uuid>,
        kind: &str,
        details: &[String],
    ) -> Result<(), SettleError> {
        let (mut seqs, mut macs, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
        for detail in details {
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
            (self.seq, self.mac) = (record.seq, key.seal(&record, &self.mac, &mut buffer));
            seqs.push(self.seq);
            macs.push(self.mac.to_vec());
        }
        self.key_id = Some(next.id().to_owned());
        client
            .execute(
                APPEND,
                &[
                    &self.seq,
                    &self.mac.as_slice(),
                    &next.id(),
                    &seqs,
                    &macs,
                    &details,
                    &key.id(),
                    &kind,
                    &self.now,
                    &worker,
                    &self.chain,
                ],
            )
            .await?;
        Ok(())
    }
}

/// Goes on with the log of a database that is another deployment's, or nobody's, as a chain of its own, under the newest
/// of `keys`: first in it stands a record of what was there before. A log that is nobody's and under a key of ours
/// goes on as it is.
///
/// # Errors
/// Where Postgres refuses it.
pub async fn take_over(
    transaction: &Transaction<'_>,
    former: Option<&str>,
    keys: &[Key],
) -> anyhow::Result<()> {
    let newest = keys.first().context("no audit key")?;
    let mut head = Head::lock(transaction).await?;
    if former.is_none() && head.key_id.as_ref().is_none_or(|id| keys.iter().any(|key| key.id() == id)) {
        return Ok(());
    }
    let was = (head.chain, head.key_id.take());
    head.chain = Uuid::new_v4();
    if let (chain, Some(key_id)) = was {
        let deployment = former.map(str::to_owned);
        let (chain, mac) = (chain.to_string(), hex::encode(head.mac));
        let detail = Adoption { deployment, chain, seq: head.seq, mac, key_id }.detail();
        head.append(transaction, (newest, newest), None, "adoption", &[detail]).await?;
    }
    transaction
        .execute("UPDATE klaxon.audit_head SET chain = $1", &[&head.chain])
        .await
        .map_err(crate::database::describe)?;
    Ok(())
}

/// What was written.
#[derive(Debug)]
pub struct Kept {
    /// Whether there is more to write.
    pub more: bool,
    /// The checkpoint among it.
    pub checkpoint: Option<Checkpoint>,
}

/// Writes what the log has to say of itself, some of it: changes of the configuration in their order, a
/// checkpoint where one is due, and the record of a removal.
///
/// # Errors
/// Nothing is written then.
pub async fn keep(client: &Client, keyring: &Keyring, worker: Uuid) -> Result<Kept, SettleError> {
    client.batch_execute("BEGIN").await?;
    let result = transact(client, keyring, worker).await;
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    if !client.is_closed() {
        client.batch_execute(end).await?;
    }
    result
}

async fn transact(client: &Client, keyring: &Keyring, worker: Uuid) -> Result<Kept, SettleError> {
    let mut head = Head::lock(client).await?;
    let key = head.key(keyring)?;
    let keys = (&key, &key);
    let mut changes = client
        .query(CHANGES, &[&BATCH])
        .await?
        .iter()
        .map(|row| Ok((row.try_get::<_, i64>(0)?, row.try_get::<_, String>(1)?)))
        .collect::<Result<Vec<_>, tokio_postgres::Error>>()?;
    changes.sort_unstable();
    let mut more = changes.len() as i64 == BATCH;
    let details: Vec<String> = changes.into_iter().map(|(_, detail)| detail).collect();
    if !details.is_empty() {
        head.append(client, keys, Some(worker), "config", &details).await?;
    }
    let row = client.query_one(TIME, &[&head.now]).await?;
    let (at, due): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
    let mut checkpoint = None;
    if due {
        let signed = Checkpoint::sign(&key, &head.chain.to_string(), head.seq, &head.mac, &at);
        let detail = serde_json::to_string(&signed).expect("texts and a number are JSON");
        head.append(client, keys, Some(worker), "checkpoint", &[detail]).await?;
        checkpoint = Some(signed);
    }
    let removed = client.query_one("SELECT through, mac FROM klaxon.remove_deliveries()", &[]).await?;
    if let (Some(through), Some(mac)) =
        (removed.try_get::<_, Option<i64>>(0)?, removed.try_get::<_, Option<Vec<u8>>>(1)?)
    {
        let detail = serde_json::json!({"through": through, "mac": hex::encode(mac)}).to_string();
        head.append(client, keys, Some(worker), "prune", &[detail]).await?;
        more = true;
    }
    Ok(Kept { more, checkpoint })
}

/// Appends a checkpoint, a line, to the file where the operator keeps them.
///
/// # Errors
/// Where the file cannot be written.
pub fn keep_outside(path: &Path, checkpoint: &Checkpoint) -> std::io::Result<()> {
    let line = serde_json::to_string(checkpoint)? + "\n";
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    // One write, so that several workers' lines do not mix.
    file.write_all(line.as_bytes())?;
    file.sync_data()
}
