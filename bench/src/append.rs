//! What the log adds to settling: the same deliveries, settled by the worker's own statements, with the append
//! and without it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use klaxon_model::audit::{Key, Record, Tag};
use klaxon_tests::cluster::Cluster;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::emit::insert;
use crate::plan::Plan;
use crate::report::{Report, median};
use crate::stage::{Stage, preloaded};
use crate::usage;

/// Deliveries of a transaction, as many as the worker settles in one.
const BATCH: usize = 500;
/// Batches of which the time is taken for which they hold the end of the log.
const HOLDS: usize = 40;
/// Microseconds from the Unix epoch to 2000-01-01.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

const SENT: &str = include_str!("../../worker/src/sql/sent.sql");
const APPEND: &str = include_str!("../../worker/src/sql/append.sql");
/// What a queue writes that keeps a history and proves nothing: the same rows without the chain's columns.
const PLAIN: &str = "
    INSERT INTO plain_log
        (delivery_id, attempt, event_id, event_type, project, subscription_id, channel_id, channel_name, channel_kind, status,
         response_code, error, response_body, duration_ms, detail, attempted_at, worker)
    SELECT unnest($1::uuid[]), unnest($2::integer[]), unnest($3::uuid[]), unnest($4::text[]), unnest($5::text[]), unnest($6::bigint[]),
           unnest($7::bigint[]), unnest($8::text[]), unnest($9::text[]), unnest($10::text[]), unnest($11::integer[]), unnest($12::text[]),
           unnest($13::text[]), unnest($14::integer[]), unnest($15::text[]), $16::timestamptz, $17::uuid";
/// The plain history: as `klaxon.delivery`, with the same indexes, numbered by a sequence.
const PLAIN_LOG: &str = "
    CREATE TABLE plain_log (LIKE klaxon.delivery INCLUDING INDEXES INCLUDING CONSTRAINTS);
    ALTER TABLE plain_log ALTER kind SET DEFAULT 'attempt', ALTER seq ADD GENERATED ALWAYS AS IDENTITY,
        DROP COLUMN chain, DROP COLUMN key_id, DROP COLUMN mac, DROP COLUMN body_hash";

/// What is settled with a batch.
#[derive(Clone, Copy)]
enum Log {
    /// Deliveries are only deleted.
    None,
    /// A history beside.
    Plain,
    /// The log as it is.
    Chained,
}

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let cluster = preloaded("pg_klaxon")?;
    let stage = Stage::set(&cluster).await?;
    stage.webhook("a", "run.failed").await?;
    stage.client.batch_execute(PLAIN_LOG).await?;
    let settler = Settler::new(&stage).await?;
    let rounds = plan.pick(20, 100);
    insert(&stage.client, "klaxon.event", "run.failed", (3 * BATCH * (rounds + 5)).try_into()?).await?;
    stage.client.batch_execute("ANALYZE; CHECKPOINT").await?;

    let mut seconds = [const { Vec::new() }; 3];
    let mut busy = [0.0; 3];
    for round in 0..rounds + 5 {
        for (at, log) in [Log::None, Log::Plain, Log::Chained].into_iter().enumerate() {
            let pending = settler.pending().await?;
            let (begin, ours) =
                (Instant::now(), usage::of_cluster(&cluster)? + usage::of_process(std::process::id())?);
            settler.settle(&pending, log).await?;
            // The first ones warm up.
            if round >= 5 {
                seconds[at].push(begin.elapsed().as_secs_f64() * 1e3);
                busy[at] += usage::of_cluster(&cluster)? + usage::of_process(std::process::id())? - ours;
            }
        }
    }
    let checked = stage.installation.run(&["audit", "verify"]).await;
    anyhow::ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let [none, plain, chained] = &seconds;
    let a_delivery = |seconds: f64| seconds / (rounds * BATCH) as f64 * 1e6;
    report
        .section("Settling a batch of 500 that were sent: the worker's statements, one transaction, durable");
    report.row("ms where nothing is logged", none);
    report.row("ms with a plain history: the same rows and indexes, no chain", plain);
    report.row("ms with the audit log, hashing included", chained);
    report.ratio("time with the audit log, against the plain history", chained, plain);
    report.ratio("the same, against nothing logged", chained, none);
    report.row("µs of CPU time a delivery where nothing is logged, of both sides", &[a_delivery(busy[0])]);
    report.row("µs with a plain history", &[a_delivery(busy[1])]);
    report.row("µs with the audit log", &[a_delivery(busy[2])]);
    report.row("CPU time with the audit log, against the plain history", &[busy[2] / busy[1]]);
    Ok(())
}

/// Seconds for which a delivery of a full batch holds the end of the log, its part of the COMMIT included.
pub async fn held(cluster: &Cluster) -> anyhow::Result<f64> {
    let stage = Stage::set(cluster).await?;
    stage.webhook("a", "run.failed").await?;
    stage.client.batch_execute(PLAIN_LOG).await?;
    let settler = Settler::new(&stage).await?;
    insert(&stage.client, "klaxon.event", "run.failed", (BATCH * HOLDS).try_into()?).await?;
    stage.client.batch_execute("ANALYZE; CHECKPOINT").await?;
    let mut seconds = Vec::new();
    for _ in 0..HOLDS {
        let pending = settler.pending().await?;
        seconds.push(settler.settle(&pending, Log::Chained).await?.as_secs_f64() / BATCH as f64);
    }
    Ok(median(&seconds))
}

/// A delivery as it was read.
struct Pending {
    ids: Vec<Uuid>,
    channels: Vec<i64>,
    due: Vec<SystemTime>,
    attempts: Vec<i32>,
    events: Vec<Option<Uuid>>,
}

/// The session that settles.
struct Settler<'s> {
    client: &'s Client,
    key: Key,
    worker: Uuid,
    sent: Statement,
    append: Statement,
    plain: Statement,
}

impl<'s> Settler<'s> {
    async fn new(stage: &'s Stage<'_>) -> anyhow::Result<Self> {
        let file = std::fs::read_to_string(stage.installation.folder().join("audit.key"))?;
        let client = &stage.client;
        client.batch_execute("SET search_path = pg_catalog, public; SET synchronous_commit = on").await?;
        Ok(Self {
            client,
            key: Key::from_base64(file.lines().next().context("a key")?)?,
            worker: Uuid::now_v7(),
            sent: client.prepare(SENT).await?,
            append: client.prepare(APPEND).await?,
            plain: client.prepare(PLAIN).await?,
        })
    }

    async fn pending(&self) -> anyhow::Result<Pending> {
        let rows = self
            .client
            .query(
                "SELECT id, channel_id, due_at, attempts, event_id FROM klaxon.outbox LIMIT $1",
                &[&i64::try_from(BATCH)?],
            )
            .await?;
        anyhow::ensure!(rows.len() == BATCH, "{} deliveries are left", rows.len());
        Ok(Pending {
            ids: rows.iter().map(|row| row.get(0)).collect(),
            channels: rows.iter().map(|row| row.get(1)).collect(),
            due: rows.iter().map(|row| row.get(2)).collect(),
            attempts: rows.iter().map(|row| row.get(3)).collect(),
            events: rows.iter().map(|row| row.get(4)).collect(),
        })
    }

    /// Settles them; how long the end of the log was held.
    async fn settle(&self, pending: &Pending, log: Log) -> anyhow::Result<Duration> {
        self.client.batch_execute("BEGIN").await?;
        let settled = self
            .client
            .query(&self.sent, &[&pending.ids, &pending.channels, &pending.due, &pending.attempts])
            .await?;
        let begin = Instant::now();
        anyhow::ensure!(settled.len() == BATCH + 1, "{} were settled", settled.len());
        let head = settled.iter().find(|row| row.get::<_, Option<Uuid>>("id").is_none()).context("a head")?;
        self.log(pending, log, head).await?;
        self.client.batch_execute("COMMIT").await?;
        Ok(begin.elapsed())
    }

    async fn log(&self, pending: &Pending, log: Log, head: &tokio_postgres::Row) -> anyhow::Result<()> {
        let count = pending.ids.len();
        let now: SystemTime = head.get("now");
        let attempt: Vec<i32> = pending.attempts.iter().map(|attempts| attempts + 1).collect();
        let (kinds, project, subscription) =
            (vec!["run.failed"; count], vec![None::<&str>; count], vec![Some(1i64); count]);
        let (names, kind, status, code) = (
            vec![Some("a"); count],
            vec![Some("webhook"); count],
            vec!["sent"; count],
            vec![Some(200i32); count],
        );
        let (none, duration) = (vec![None::<&str>; count], vec![Some(12i32); count]);
        let row: [&(dyn ToSql + Sync); 15] = [
            &pending.ids,
            &attempt,
            &pending.events,
            &kinds,
            &project,
            &subscription,
            &pending.channels,
            &names,
            &kind,
            &status,
            &code,
            &none,
            &none,
            &duration,
            &none,
        ];
        match log {
            Log::None => {}
            Log::Plain => {
                let now: [&(dyn ToSql + Sync); 2] = [&now, &self.worker];
                self.client.execute(&self.plain, &[&row[..], &now].concat()).await?;
            }
            Log::Chained => {
                let (chain, first): (Uuid, i64) = (head.get("chain"), head.get("seq"));
                let mut mac: Tag = head.get::<_, &[u8]>("mac").try_into()?;
                let micros = i64::try_from(now.duration_since(UNIX_EPOCH)?.as_micros())? - POSTGRES_EPOCH;
                let (mut seqs, mut macs, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
                for at in 0..count {
                    let record = Record {
                        seq: first + 1 + i64::try_from(at)?,
                        kind: "attempt",
                        delivery_id: Some(pending.ids[at].into_bytes()),
                        attempt: Some(attempt[at]),
                        event_id: pending.events[at].map(Uuid::into_bytes),
                        event_type: Some(kinds[at]),
                        subscription_id: subscription[at],
                        channel_id: Some(pending.channels[at]),
                        channel_name: names[at],
                        channel_kind: kind[at],
                        status: Some(status[at]),
                        response_code: code[at],
                        duration_ms: duration[at],
                        attempted_at: micros,
                        worker: Some(self.worker.into_bytes()),
                        chain: chain.into_bytes(),
                        key_id: self.key.id(),
                        ..Record::default()
                    };
                    mac = self.key.seal(&record, &mac, &mut buffer);
                    seqs.push(record.seq);
                    macs.push(mac.to_vec());
                }
                let last = first + i64::try_from(count)?;
                let (hashes, head) = (vec![None::<Vec<u8>>; count], mac.to_vec());
                // The channel's standing is written by settling, whatever is logged: here by none of the three.
                let fared =
                    (Vec::<i64>::new(), Vec::<bool>::new(), Vec::<i64>::new(), Vec::<Option<&str>>::new());
                let end: [&(dyn ToSql + Sync); 3] = [&last, &head, &seqs];
                let rest: [&(dyn ToSql + Sync); 10] = [
                    &hashes,
                    &macs,
                    &now,
                    &self.worker,
                    &chain,
                    &self.key.id(),
                    &fared.0,
                    &fared.1,
                    &fared.2,
                    &fared.3,
                ];
                self.client.query(&self.append, &[&end[..], &row, &rest].concat()).await?;
            }
        }
        Ok(())
    }
}
