//! `klaxon status`: whether it works, at a glance.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

use crate::config::Settings;
use crate::database::{Target, describe};

/// How often a watched status is read.
const EVERY: Duration = Duration::from_secs(2);

/// Clears the screen and its scrollback, and goes to its first corner (ECMA-48).
const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";

/// Say whether it works: workers, what is pending, which channels fail
///
/// Reads klaxon.status(), klaxon.channel_health and klaxon.worker of every database. Exits 0 where all is well, 1
/// where something is to be looked at, 2 where a database could not be asked.
#[derive(Args)]
pub struct Status {
    /// Read it again every two seconds, until interrupted
    #[arg(long)]
    watch: bool,
    /// Print an object a database, each on a line of its own
    #[arg(long)]
    json: bool,
}

/// What one database says.
struct Report {
    database: String,
    items: Vec<(String, Option<String>)>,
    workers: Vec<Worker>,
    channels: Vec<Channel>,
}

struct Worker {
    host: String,
    version: String,
    shards: i32,
    silent_for: f64,
}

/// A channel that fails, is disabled or has something pending.
struct Channel {
    name: String,
    kind: String,
    state: String,
    pending: i64,
    dead: i64,
    error: Option<String>,
}

impl Status {
    /// Prints it.
    ///
    /// # Errors
    /// Where a database cannot be asked; while it is watched that is shown instead.
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let targets = Target::all(&settings.database_url)?;
        if !self.watch {
            let reports = read_all(&targets).await?;
            print!("{}", self.shown(&reports));
            let well = reports.iter().all(|report| report.warnings().is_empty());
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
        let mut out = std::io::stdout();
        loop {
            let text = match read_all(&targets).await {
                Ok(reports) => self.shown(&reports),
                Err(error) => format!("{error:#}\n"),
            };
            // Nobody reads any more: that is the end of it.
            if write!(out, "{clear}{text}").and_then(|()| out.flush()).is_err() {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
            }
        }
    }

    fn shown(&self, reports: &[Report]) -> String {
        let show = |report: &Report| if self.json { format!("{}\n", report.json()) } else { report.text() };
        reports.iter().map(show).collect()
    }
}

async fn read_all(targets: &[Target]) -> anyhow::Result<Vec<Report>> {
    let mut reports = Vec::new();
    for target in targets {
        let session = target.connect().await?;
        reports.push(read(target.name(), &session.client).await.map_err(describe)?);
    }
    Ok(reports)
}

async fn read(database: &str, client: &Client) -> Result<Report, tokio_postgres::Error> {
    let items = client.query("SELECT item, value FROM klaxon.status()", &[]).await?;
    let workers = client
        .query(
            "SELECT host, version, cardinality(shards) AS shards,
                    extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS silent_for
             FROM klaxon.worker ORDER BY host, started_at",
            &[],
        )
        .await?;
    let channels = client
        .query(
            "SELECT name, kind, state, pending, dead, last_error FROM klaxon.channel_health
             WHERE state IN ('failing', 'disabled') OR pending > 0",
            &[],
        )
        .await?;
    Ok(Report {
        database: database.to_owned(),
        items: items.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, _>>()?,
        workers: workers
            .iter()
            .map(|row| {
                Ok(Worker {
                    host: row.try_get("host")?,
                    version: row.try_get("version")?,
                    shards: row.try_get("shards")?,
                    silent_for: row.try_get("silent_for")?,
                })
            })
            .collect::<Result<_, _>>()?,
        channels: channels
            .iter()
            .map(|row| {
                let failing: String = row.try_get("state")?;
                let error: Option<String> = row.try_get("last_error")?;
                Ok(Channel {
                    name: row.try_get("name")?,
                    kind: row.try_get("kind")?,
                    // Of a channel that works it is history.
                    error: error.filter(|_| failing == "failing" || failing == "disabled"),
                    state: failing,
                    pending: row.try_get("pending")?,
                    dead: row.try_get("dead")?,
                })
            })
            .collect::<Result<_, _>>()?,
    })
}

impl Report {
    fn warnings(&self) -> Vec<&str> {
        let warnings = self.items.iter().find(|(item, _)| item == "warnings");
        let text = warnings.and_then(|(_, value)| value.as_deref()).unwrap_or_default();
        text.split("; ").filter(|warning| !warning.is_empty()).collect()
    }

    fn json(&self) -> Value {
        let items = self.items.iter().filter(|(item, _)| item != "warnings");
        let status: Map<String, Value> =
            items.map(|(item, value)| (item.clone(), number_or_text(value.as_deref()))).collect();
        let worker = |worker: &Worker| {
            json!({"host": worker.host, "version": worker.version, "shards": worker.shards,
                "silent_for": worker.silent_for})
        };
        let channel = |channel: &Channel| {
            json!({"name": channel.name, "kind": channel.kind, "state": channel.state, "pending": channel.pending,
                "dead": channel.dead, "error": channel.error})
        };
        json!({
            "database": self.database,
            "ok": self.warnings().is_empty(),
            "status": status,
            "warnings": self.warnings(),
            "workers": self.workers.iter().map(worker).collect::<Vec<_>>(),
            "channels": self.channels.iter().map(channel).collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.database);
        let mut items = table(&[]);
        for (item, value) in self.items.iter().filter(|(item, _)| item != "warnings") {
            items
                .add_row(vec![Cell::new(item.replace('_', " ")), Cell::new(value.as_deref().unwrap_or("-"))]);
        }
        text.push_str(&format!("{items}\n"));
        if !self.workers.is_empty() {
            let mut workers = table(&["worker", "version", "shards", "last heard"]);
            for worker in &self.workers {
                // As klaxon.worker has it: one silent for 10 s is taken for dead.
                let color = if worker.silent_for < 10.0 { Color::Green } else { Color::Red };
                workers.add_row(vec![
                    Cell::new(&worker.host),
                    Cell::new(&worker.version),
                    Cell::new(worker.shards),
                    Cell::new(format!("{:.0} s ago", worker.silent_for.max(0.0))).fg(color),
                ]);
            }
            text.push_str(&format!("\n{workers}\n"));
        }
        if !self.channels.is_empty() {
            let mut channels = table(&["channel", "kind", "state", "pending", "dead", "error"]);
            for channel in &self.channels {
                let color = match channel.state.as_str() {
                    "failing" | "disabled" => Color::Red,
                    _ => Color::Reset,
                };
                channels.add_row(vec![
                    Cell::new(&channel.name),
                    Cell::new(&channel.kind),
                    Cell::new(&channel.state).fg(color),
                    Cell::new(channel.pending),
                    Cell::new(channel.dead),
                    Cell::new(channel.error.as_deref().unwrap_or_default()),
                ]);
            }
            text.push_str(&format!("\n{channels}\n"));
        }
        let mut verdict = table(&[]);
        match self.warnings()[..] {
            [] => drop(verdict.add_row(vec![Cell::new("all is well").fg(Color::Green)])),
            ref warnings => warnings.iter().for_each(|warning| {
                verdict.add_row(vec![Cell::new(format!("warning: {warning}")).fg(Color::Yellow)]);
            }),
        }
        text.push_str(&format!("\n{verdict}\n"));
        text
    }
}

/// A table without lines; what is no terminal gets no colours either.
pub(super) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !headings.is_empty() {
        table.set_header(headings.to_vec());
    }
    table
}

fn number_or_text(value: Option<&str>) -> Value {
    match value {
        None => Value::Null,
        Some(text) => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
    }
}
