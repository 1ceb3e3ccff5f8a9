//! `klaxon audit verify` over a long log, against what it takes to fetch the same table and look at nothing.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, pin_mut};
use klaxon_model::audit::{GENESIS, Key, Record, Tag, body_hash};
use tokio::io::AsyncReadExt as _;
use uuid::Uuid;

use crate::plan::Plan;
use crate::report::{Goal, Report, rates};
use crate::stage::{Stage, preloaded};
use crate::usage;

/// 2026-01-01, in microseconds since 2000-01-01.
const BEGUN: i64 = 820_540_800_000_000;

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let rows: i64 = plan.pick(200_000, 1_000_000);
    let cluster = preloaded("pg_klaxon")?;
    let stage = Stage::set(&cluster).await?;
    let small = write(&stage, rows / 10).await?;
    let (_, little) = verify(&stage, small).await?;
    let rows = write(&stage, rows).await?;
    stage.client.batch_execute("VACUUM ANALYZE klaxon.delivery").await?;
    // Both once without being counted: what is in memory is in memory for both.
    fetch(&stage).await?;
    verify(&stage, rows).await?;

    let (mut fetched, mut verified, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    let (mut at_verify, mut at_postgres) = (Vec::new(), Vec::new());
    let a_row = |seconds: f64| seconds / rows as f64 * 1e6;
    for _ in 0..plan.pick(3, 7) {
        fetched.push(fetch(&stage).await?);
        let (ours, postgres) = (usage::of_ended()?, usage::of_cluster(&cluster)?);
        let (seconds, peak) = verify(&stage, rows).await?;
        at_verify.push(a_row(usage::of_ended()? - ours));
        at_postgres.push(a_row(usage::of_cluster(&cluster)? - postgres));
        verified.push(seconds);
        memory.push(peak);
    }
    report.section(&format!("Verifying an audit log of {rows} rows"));
    report.rate(
        "rows a second of COPY klaxon.delivery TO STDOUT, fetched and not looked at",
        rows as f64,
        &fetched,
    );
    let rates = rates(rows as f64, &verified);
    report.reach(
        "rows a second of audit verify, start of the command included",
        &rates,
        Goal::AtLeast(300_000.0),
    );
    report.ratio("time of audit verify, against that COPY", &verified, &fetched);
    report.row("µs of CPU time of audit verify a row", &at_verify);
    report.row("µs of Postgres' CPU time a row meanwhile", &at_postgres);
    report.row("MB of memory of audit verify", &memory);
    report.row("the same for a tenth of the rows", &[little]);
    Ok(())
}

/// Seconds in which the client that `klaxon` has, too, receives the table.
async fn fetch(stage: &Stage<'_>) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let stream = stage.client.copy_out("COPY klaxon.delivery TO STDOUT").await?;
    pin_mut!(stream);
    let mut bytes = 0;
    while let Some(row) = stream.next().await {
        bytes += row?.len();
    }
    anyhow::ensure!(bytes > 0, "nothing came");
    Ok(begin.elapsed().as_secs_f64())
}

/// Seconds of `klaxon audit verify`, and the most megabytes it had.
async fn verify(stage: &Stage<'_>, rows: i64) -> anyhow::Result<(f64, f64)> {
    let mut command = stage.installation.command(&["audit", "verify", "--json"]);
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let pid = child.id().context("it has just been started")?;
    let mut stdout = child.stdout.take().context("stdout is piped")?;
    let mut said = String::new();
    let mut peak = 0;
    {
        let reading = stdout.read_to_string(&mut said);
        pin_mut!(reading);
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                read = &mut reading => {
                    read?;
                    break;
                }
                _ = ticks.tick() => peak = peak.max(usage::peak_memory(pid)),
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let verdict: serde_json::Value = serde_json::from_str(&said)?;
    anyhow::ensure!(
        child.wait().await?.success() && verdict["rows"] == rows && verdict["verdict"] == "unanchored",
        "{verdict}"
    );
    Ok((seconds, peak as f64 / 1e6))
}

/// Writes a log of so many rows, as a worker that delivers to four channels would: one attempt in ten fails, with
/// an answer.
async fn write(stage: &Stage<'_>, rows: i64) -> anyhow::Result<i64> {
    let file = std::fs::read_to_string(stage.installation.folder().join("audit.key"))?;
    let key = Key::from_base64(file.lines().next().context("a key")?)?;
    stage.client.batch_execute("TRUNCATE klaxon.delivery").await?;
    let chain: Uuid = stage.client.query_one("SELECT chain FROM klaxon.audit_head", &[]).await?.get(0);
    let sink = stage.client.copy_in("COPY klaxon.delivery FROM STDIN").await?;
    pin_mut!(sink);
    let (mut mac, mut buffer, worker) = (GENESIS, Vec::new(), Uuid::now_v7());
    for first in (1..=rows).step_by(1000) {
        let mut text = String::new();
        for seq in first..(first + 1000).min(rows + 1) {
            let failed = seq % 10 == 0;
            let body = failed.then(|| format!("upstream {seq} is overloaded, try again"));
            let (delivery, event, name) = (Uuid::now_v7(), Uuid::now_v7(), format!("channel {}", seq % 4));
            let record = Record {
                seq,
                kind: "attempt",
                delivery_id: Some(delivery.into_bytes()),
                attempt: Some(1),
                event_id: Some(event.into_bytes()),
                event_type: Some("run.failed"),
                project: Some("billing"),
                subscription_id: Some(1),
                channel_id: Some(seq % 4),
                channel_name: Some(&name),
                channel_kind: Some("webhook"),
                status: Some(if failed { "failed" } else { "sent" }),
                response_code: Some(if failed { 503 } else { 200 }),
                error: failed.then_some("HTTP 503"),
                duration_ms: Some(12),
                attempted_at: BEGUN + seq * 1000,
                worker: Some(worker.into_bytes()),
                detail: None,
                chain: chain.into_bytes(),
                key_id: key.id(),
                body_hash: body.as_deref().map(body_hash),
            };
            mac = key.seal(&record, &mac, &mut buffer);
            line(&mut text, &record, body.as_deref(), &mac);
        }
        sink.as_mut().send(Bytes::from(text)).await?;
    }
    sink.finish().await?;
    stage
        .client
        .execute(
            "UPDATE klaxon.audit_head SET seq = $1, mac = $2, key_id = $3",
            &[&rows, &mac.as_slice(), &key.id()],
        )
        .await?;
    Ok(rows)
}

/// The row as COPY reads it, in the order of the table's columns.
fn line(out: &mut String, row: &Record<'_>, body: Option<&str>, mac: &Tag) {
    let id = |id: Option<[u8; 16]>| id.map(|id| Uuid::from_bytes(id).to_string());
    let bytes = |bytes: &[u8]| format!("\\\\x{}", hex::encode(bytes));
    let millis = (row.attempted_at - BEGUN) / 1000;
    let at = format!(
        "2026-01-01 {:02}:{:02}:{:02}.{:03}+00",
        millis / 3_600_000,
        millis / 60_000 % 60,
        millis / 1000 % 60,
        millis % 1000
    );
    let columns = [
        Some(row.seq.to_string()),
        Some(row.kind.to_owned()),
        id(row.delivery_id),
        row.attempt.map(|attempt| attempt.to_string()),
        id(row.event_id),
        row.event_type.map(str::to_owned),
        row.project.map(str::to_owned),
        row.subscription_id.map(|id| id.to_string()),
        row.channel_id.map(|id| id.to_string()),
        row.channel_name.map(str::to_owned),
        row.channel_kind.map(str::to_owned),
        row.status.map(str::to_owned),
        row.response_code.map(|code| code.to_string()),
        row.error.map(str::to_owned),
        body.map(str::to_owned),
        row.duration_ms.map(|duration| duration.to_string()),
        Some(at),
        id(row.worker),
        row.detail.map(str::to_owned),
        id(Some(row.chain)),
        Some(row.key_id.to_owned()),
        row.body_hash.map(|hash| bytes(&hash)),
        Some(bytes(mac)),
    ];
    let columns: Vec<String> = columns.into_iter().map(|column| column.unwrap_or("\\N".into())).collect();
    out.push_str(&columns.join("\t"));
    out.push('\n');
}
