//! `klaxon audit`: verify, checkpoint, head.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use klaxon_model::audit::{Adoption, Checkpoint, Finding, FindingKind, Tag, Verdict, Verifier};
use tokio_postgres::{Client, GenericClient, IsolationLevel, Transaction};
use uuid::Uuid;

use crate::config::Settings;
use crate::database::{Target, describe};
use crate::keys;

mod stream;

/// Examine the audit log
#[derive(Subcommand)]
pub enum Audit {
    /// Read the whole log and say what was altered, removed or added, and where
    ///
    /// Exits 0 where nothing was found, 1 with findings, 2 where it could not be verified.
    Verify {
        /// A checkpoint, as "audit checkpoint --json" printed it, kept outside the database; of a file with
        /// several, such as checkpoint-file, the last one of this log
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print a signed checkpoint of the log's end, to be kept outside the database
    Checkpoint {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the log's end
    Head {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

const NO_LOG: &str = "the database has no audit log yet: run \"klaxon init\"";

/// It may take long, and comes as it is read from the index: sorting would write it all to a disk first, and nothing
/// else speeds up what is one column after the other.
const SESSION: &str = "
    SET LOCAL statement_timeout = 0;
    SET LOCAL idle_in_transaction_session_timeout = 0;
    SET LOCAL enable_sort = off;
    SET LOCAL max_parallel_workers_per_gather = 0;
    SET LOCAL jit = off";

/// The end of the log, as the database has it.
struct Head {
    chain: Uuid,
    seq: i64,
    mac: Tag,
    at: String,
}

impl Audit {
    /// Runs it on the one database the settings name.
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let session = Target::only(&settings.database_url)?.connect().await?;
        match self {
            Self::Verify { checkpoint, json } => verify(session.client, settings, checkpoint, json).await,
            Self::Checkpoint { json } => {
                let checkpoint = checkpoint(session.client, settings).await?;
                if json {
                    println!("{}", serde_json::to_string(&checkpoint)?);
                } else {
                    println!(
                        "chain      {}\nseq        {}\nmac        {}\nat         {}\nsignature  {}",
                        checkpoint.chain, checkpoint.seq, checkpoint.mac, checkpoint.at, checkpoint.signature
                    );
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Head { json } => {
                let head = head(&session.client).await?.context(NO_LOG)?;
                if json {
                    println!(
                        "{}",
                        serde_json::json!({"chain": head.chain, "seq": head.seq, "mac": hex::encode(head.mac), "at": head.at})
                    );
                } else {
                    println!("chain  {}\nseq    {}\nmac    {}", head.chain, head.seq, hex::encode(head.mac));
                }
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

async fn head(client: &impl GenericClient) -> anyhow::Result<Option<Head>> {
    let row = client
        .query_opt(
            "SELECT chain, seq, mac, pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
             FROM klaxon.audit_head",
            &[],
        )
        .await
        .map_err(describe)?;
    let Some(row) = row else { return Ok(None) };
    let mac: Vec<u8> = row.try_get(2)?;
    Ok(Some(Head {
        chain: row.try_get(0)?,
        seq: row.try_get(1)?,
        // Of another length it is nobody's MAC, and fits no row.
        mac: Tag::try_from(mac.as_slice()).unwrap_or([0xff; 32]),
        at: row.try_get(3)?,
    }))
}

/// What the log says of the deployments that wrote it before: few records, among many rows.
async fn adoptions(transaction: &Transaction<'_>) -> anyhow::Result<Vec<Adoption>> {
    let rows = transaction
        .query("SELECT seq, detail FROM klaxon.delivery WHERE kind = 'adoption' AND detail IS NOT NULL", &[])
        .await
        .map_err(describe)?;
    let read = rows.iter().map(|row| Ok(Adoption::read(row.try_get(0)?, row.try_get(1)?)));
    Ok(read.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// One snapshot for the rows and the head, while the worker goes on appending.
async fn snapshot(client: &mut Client) -> anyhow::Result<Transaction<'_>> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(describe)?;
    transaction.batch_execute(SESSION).await.map_err(describe)?;
    Ok(transaction)
}

/// Signs the log's end. Only an end that is this deployment's own is signed: what the database says
/// of itself would otherwise become what it is later judged by.
async fn checkpoint(mut client: Client, settings: &Settings) -> anyhow::Result<Checkpoint> {
    let keys = keys::audit_keys(settings)?;
    let key = keys.first().context("no audit key")?.clone();
    let transaction = snapshot(&mut client).await?;
    let head = head(&transaction).await?.context(NO_LOG)?;
    let mut verifier = Verifier::new(keys, *head.chain.as_bytes(), None, adoptions(&transaction).await?);
    stream::rows(&transaction, head.seq - 1, &mut verifier, &ProgressBar::hidden()).await?;
    let range = verifier.range();
    let (_, mut findings) = verifier.finish(Some((head.seq, head.mac)));
    if range.is_some_and(|(first, _)| first == head.seq - 1) {
        // Nothing before that row was read, so nothing before it is missing.
        findings.retain(|found| found.kind != FindingKind::Missing || found.seq >= head.seq - 1);
    }
    if let Some(found) = findings.first() {
        bail!(
            "the log's end is not as it was written ({} at row {}): run \"klaxon audit verify\"",
            found.kind,
            found.seq
        );
    }
    Ok(Checkpoint::sign(&key, &head.chain.to_string(), head.seq, &head.mac, &head.at))
}

async fn verify(
    mut client: Client,
    settings: &Settings,
    file: Option<PathBuf>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let keys = keys::audit_keys(settings)?;
    let text = match &file {
        None => None,
        Some(path) => {
            Some(std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?)
        }
    };
    let transaction = snapshot(&mut client).await?;
    let head = head(&transaction).await?;
    let mut bad_checkpoint = None;
    let checkpoint = text.and_then(|text| {
        let kept = Checkpoint::last_of(&text, head.as_ref().map(|head| head.chain.to_string()).as_deref());
        Checkpoint::read(kept, &keys)
            .map_err(|error| {
                bad_checkpoint =
                    Some(Finding { kind: FindingKind::BadCheckpoint, seq: 0, detail: error.to_string() });
            })
            .ok()
    });
    let chain = match (&head, &checkpoint) {
        (Some(head), _) => head.chain,
        (None, Some(checkpoint)) => checkpoint.chain.parse()?,
        (None, None) => transaction
            .query_opt("SELECT chain FROM klaxon.delivery ORDER BY seq LIMIT 1", &[])
            .await
            .map_err(describe)?
            .context(NO_LOG)?
            .try_get(0)?,
    };
    let progress = progress(head.as_ref().map_or(0, |head| head.seq), json);
    let adoptions = adoptions(&transaction).await?;
    let begin = || Verifier::new(keys.clone(), *chain.as_bytes(), checkpoint.clone(), adoptions.clone());
    let mut verifier = begin();
    stream::rows(&transaction, i64::MIN, &mut verifier, &progress).await?;
    if stream::count(&transaction).await? != verifier.rows() {
        // There are rows that the index does not lead to, and that whoever reads the table may still find.
        transaction
            .batch_execute("SET LOCAL enable_sort = on; SET LOCAL enable_indexscan = off")
            .await
            .map_err(describe)?;
        verifier = begin();
        stream::rows(&transaction, i64::MIN, &mut verifier, &progress).await?;
    }
    progress.finish_and_clear();
    let (rows, range, not_ours) = (verifier.rows(), verifier.range(), verifier.not_ours());
    let (mut verdict, mut findings) = verifier.finish(head.as_ref().map(|head| (head.seq, head.mac)));
    if head.is_none() {
        let detail = "klaxon.audit_head, which says where the log ends, is empty".into();
        findings.push(Finding { kind: FindingKind::Missing, seq: range.map_or(0, |range| range.1), detail });
        verdict = Verdict::Tampered;
    }
    if let Some(finding) = bad_checkpoint {
        findings.insert(0, finding);
        verdict = Verdict::Tampered;
    }
    let ok = verdict.is_ok() && findings.is_empty();
    if json {
        let mut said = serde_json::json!({"ok": ok, "verdict": verdict, "chain": chain, "rows": rows,
            "first_seq": range.map(|r| r.0), "last_seq": range.map(|r| r.1), "findings": findings});
        if let Some((first, last)) = not_ours {
            said["not_ours"] = serde_json::json!({"first_seq": first, "last_seq": last});
        }
        println!("{said}");
    } else {
        report(verdict, rows, range, &findings);
        if let Some((first, last)) = not_ours {
            println!(
                "rows {first} to {last} were sealed by the deployment that had the database before it was adopted, under a key that \
                 is not in audit-key-file: whether they are as they were written, that deployment's keys can say"
            );
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(verdict: Verdict, rows: u64, range: Option<(i64, i64)>, findings: &[Finding]) {
    let extent = range.map(|(first, last)| format!(", {first} to {last}")).unwrap_or_default();
    println!("{rows} rows{extent}");
    for finding in findings {
        println!("{:<14} at row {:<8} {}", finding.kind.to_string(), finding.seq, finding.detail);
    }
    println!(
        "{}",
        match verdict {
            Verdict::Clean => "clean: the chain is whole and holds the checkpoint",
            Verdict::Unanchored =>
                "whole, but unanchored: without a checkpoint kept outside, a cut tail cannot be excluded",
            Verdict::Rewound =>
                "rewound: the chain is whole, and was older than the checkpoint: a backup was restored, or a standby promoted",
            Verdict::Tampered => "tampered",
        }
    );
}

fn progress(rows: i64, json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "verifying {bar:40} {human_pos}/{human_len} rows, {per_sec}, {eta} left",
    );
    let bar = ProgressBar::new(u64::try_from(rows).unwrap_or_default());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
