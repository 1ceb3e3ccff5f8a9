//! The batch's rows of the log, chained.

use std::sync::Arc;

use klaxon_model::audit::{Key, Record, Tag, body_hash};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::SettleError;
use super::outcome::Outcome;
use crate::clock::DbTime;
use crate::keyring::Keyring;

/// What this worker signs its records with.
#[derive(Debug)]
pub struct Log {
    worker: Uuid,
    keyring: Arc<Keyring>,
}

/// The end of the chain, as locked.
#[derive(Debug)]
pub struct Head {
    /// The chain.
    pub chain: Uuid,
    /// The last row's `seq`; 0 before the first.
    pub seq: i64,
    /// Its MAC.
    pub mac: Tag,
    /// The key that the next row must be under; none before the first.
    pub key_id: Option<String>,
    /// The database's clock.
    pub now: DbTime,
}

impl Head {
    /// Reads the row of `head.sql`, or the one of `sent.sql` that has no delivery.
    ///
    /// # Errors
    ///
    /// Where its MAC is not 32 bytes.
    pub fn read(row: &Row) -> Result<Self, SettleError> {
        let mac: &[u8] = row.try_get("mac")?;
        let length = mac.len();
        let mac =
            mac.try_into().map_err(|_| SettleError::BadHead(format!("mac of {length} bytes, not 32")))?;
        let (chain, seq, key_id) = (row.try_get("chain")?, row.try_get("seq")?, row.try_get("key_id")?);
        Ok(Self { chain, seq, mac, key_id, now: row.try_get("now")? })
    }
}

impl Head {
    /// The key that the next record must be under: what the last rotation named.
    ///
    /// # Errors
    ///
    /// It is not in the key file.
    pub fn key(&self, keyring: &Keyring) -> Result<Key, SettleError> {
        keyring.audit(self.key_id.as_deref()).ok_or_else(|| {
            let id = self.key_id.as_deref().unwrap_or("none");
            SettleError::MissingKey(id.to_owned())
        })
    }
}

/// Rows for `append.sql`, one array a column.
#[derive(Debug)]
pub struct Lines<'a> {
    head: Head,
    head_mac: Vec<u8>,
    seq: Vec<i64>,
    delivery_id: Vec<Uuid>,
    attempt: Vec<i32>,
    event_id: Vec<Option<Uuid>>,
    event_type: Vec<&'a str>,
    project: Vec<Option<&'a str>>,
    subscription_id: Vec<Option<i64>>,
    channel_id: Vec<i64>,
    channel_name: Vec<Option<&'a str>>,
    channel_kind: Vec<Option<&'a str>>,
    status: Vec<&'static str>,
    response_code: Vec<Option<i32>>,
    error: Vec<Option<&'a str>>,
    response_body: Vec<Option<&'a str>>,
    duration_ms: Vec<Option<i32>>,
    detail: Vec<Option<&'static str>>,
    body_hash: Vec<Option<Vec<u8>>>,
    mac: Vec<Vec<u8>>,
    attempted_at: DbTime,
    worker: Uuid,
    key_id: &'a str,
}

impl Log {
    /// A log that this worker appends to.
    pub fn new(worker: Uuid, keyring: Arc<Keyring>) -> Self {
        Self { worker, keyring }
    }

    /// The key that the next record must be under: what the last rotation named.
    ///
    /// # Errors
    ///
    /// It is not in the key file.
    pub fn key(&self, head: &Head) -> Result<Key, SettleError> {
        head.key(&self.keyring)
    }

    /// Chains `outcomes`, each with its attempt, to `head`; all were attempted at its time.
    pub fn continue_from<'a>(
        &'a self,
        key: &'a Key,
        head: Head,
        outcomes: impl Iterator<Item = &'a Outcome>,
    ) -> Lines<'a> {
        let now = head.now;
        let mut lines = Lines::new(head, now, self.worker, key.id());
        let mut buffer = Vec::new();
        for outcome in outcomes {
            let Some(attempt) = &outcome.attempt else { continue };
            let hash = attempt.body.as_deref().map(body_hash);
            let record = Record {
                chain: lines.head.chain.into_bytes(),
                key_id: key.id(),
                seq: lines.head.seq + 1,
                kind: "attempt",
                delivery_id: Some(outcome.ticket.id.into_bytes()),
                attempt: Some(outcome.attempts + outcome.made()),
                event_id: outcome.event_id.map(Uuid::into_bytes),
                event_type: Some(&outcome.event_type),
                project: outcome.project.as_deref(),
                subscription_id: outcome.subscription_id,
                channel_id: Some(outcome.ticket.channel_id),
                channel_name: outcome.channel.as_ref().map(|channel| channel.name.as_str()),
                channel_kind: outcome.channel.as_ref().map(|channel| channel.kind),
                status: Some(outcome.status()),
                response_code: attempt.code,
                error: attempt.error.as_deref(),
                duration_ms: Some(attempt.duration_ms),
                attempted_at: now.micros(),
                worker: Some(self.worker.into_bytes()),
                detail: outcome.replayed.then_some("replayed"),
                body_hash: hash,
            };
            let mac = key.seal(&record, &lines.head.mac, &mut buffer);
            lines.push(&record, outcome, mac);
        }
        lines.head_mac = lines.head.mac.to_vec();
        lines
    }
}

impl<'a> Lines<'a> {
    fn new(head: Head, attempted_at: DbTime, worker: Uuid, key_id: &'a str) -> Self {
        Self {
            head,
            head_mac: Vec::new(),
            seq: Vec::new(),
            delivery_id: Vec::new(),
            attempt: Vec::new(),
            event_id: Vec::new(),
            event_type: Vec::new(),
            project: Vec::new(),
            subscription_id: Vec::new(),
            channel_id: Vec::new(),
            channel_name: Vec::new(),
            channel_kind: Vec::new(),
            status: Vec::new(),
            response_code: Vec::new(),
            error: Vec::new(),
            response_body: Vec::new(),
            duration_ms: Vec::new(),
            detail: Vec::new(),
            body_hash: Vec::new(),
            mac: Vec::new(),
            attempted_at,
            worker,
            key_id,
        }
    }

    fn push(&mut self, record: &Record<'a>, outcome: &'a Outcome, mac: Tag) {
        self.head.seq = record.seq;
        self.head.mac = mac;
        self.seq.push(record.seq);
        self.delivery_id.push(outcome.ticket.id);
        self.attempt.push(outcome.attempts + outcome.made());
        self.event_id.push(outcome.event_id);
        self.event_type.push(&outcome.event_type);
        self.project.push(record.project);
        self.subscription_id.push(record.subscription_id);
        self.channel_id.push(outcome.ticket.channel_id);
        self.channel_name.push(record.channel_name);
        self.channel_kind.push(record.channel_kind);
        self.status.push(outcome.status());
        self.response_code.push(record.response_code);
        self.error.push(record.error);
        self.response_body.push(outcome.attempt.as_ref().and_then(|attempt| attempt.body.as_deref()));
        self.duration_ms.push(record.duration_ms);
        self.detail.push(outcome.replayed.then_some("replayed"));
        self.body_hash.push(record.body_hash.map(Vec::from));
        self.mac.push(mac.to_vec());
    }

    /// Whether there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.seq.is_empty()
    }

    /// The arguments of `append.sql` up to the channels, in its order.
    pub fn columns(&self) -> [&(dyn ToSql + Sync); 24] {
        [
            &self.head.seq,
            &self.head_mac,
            &self.seq,
            &self.delivery_id,
            &self.attempt,
            &self.event_id,
            &self.event_type,
            &self.project,
            &self.subscription_id,
            &self.channel_id,
            &self.channel_name,
            &self.channel_kind,
            &self.status,
            &self.response_code,
            &self.error,
            &self.response_body,
            &self.duration_ms,
            &self.detail,
            &self.body_hash,
            &self.mac,
            &self.attempted_at,
            &self.worker,
            &self.head.chain,
            &self.key_id,
        ]
    }
}
