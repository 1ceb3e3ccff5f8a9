//! The queues that people would use instead, with a fetch in the handler. Each is a program of `bench/peers`
//! with the same five verbs, so that all are run, filled and checked alike.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use uuid::Uuid;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    Graphile,
    Boss,
    Awa,
}

/// What a peer says of itself.
#[derive(Deserialize)]
pub struct About {
    pub version: String,
    pub tuning: serde_json::Value,
}

/// A peer's enqueueing by SQL, in whoever's transaction: one parameter, of the type text.
#[derive(Clone, Deserialize)]
pub struct Enqueue {
    pub text: String,
    /// With the nil UUID where the event's goes.
    argument: String,
    /// Where its worker listens.
    pub listens: String,
}

impl Enqueue {
    /// The parameter for an event.
    pub fn argument(&self, event: Uuid) -> String {
        self.argument.replace("00000000-0000-0000-0000-000000000000", &event.to_string())
    }
}

impl Peer {
    pub const ALL: [Self; 3] = [Self::Graphile, Self::Boss, Self::Awa];

    /// As its registry names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Graphile => "graphile-worker",
            Self::Boss => "pg-boss",
            Self::Awa => "awa",
        }
    }

    /// True once so many jobs are done and nothing is left of them to do.
    pub fn settled(self, count: usize) -> String {
        match self {
            Self::Graphile => "NOT EXISTS (SELECT FROM graphile_worker._private_jobs)".into(),
            Self::Boss => {
                "NOT EXISTS (SELECT FROM pgboss.job WHERE name = 'post' AND state < 'completed')".into()
            }
            // Its view of all jobs takes minutes to say so.
            Self::Awa => format!(
                "coalesce((SELECT sum(completed_count) FROM awa.receipt_completion_batches), 0) + (SELECT count(*) FROM awa.done_entries) >= {count}"
            ),
        }
    }

    /// Its version, and how it is tuned for so many requests in flight.
    pub async fn about(self, in_flight: usize) -> anyhow::Result<About> {
        Ok(serde_json::from_str(&self.run(&["about", &in_flight.to_string()]).await?)?)
    }

    /// Makes its tables in a database.
    pub async fn install(self, database: &str) -> anyhow::Result<()> {
        self.run(&["install", database]).await.map(drop)
    }

    /// How it enqueues by SQL.
    pub async fn enqueue(self, database: &str) -> anyhow::Result<Enqueue> {
        Ok(serde_json::from_str(&self.run(&["statement", database]).await?)?)
    }

    /// Commits so many jobs, as it does that fastest.
    pub async fn fill(self, database: &str, count: usize) -> anyhow::Result<()> {
        self.run(&["fill", database, &count.to_string()]).await.map(drop)
    }

    /// Starts its worker and waits until it serves.
    pub async fn work(self, database: &str, url: &str, in_flight: usize) -> anyhow::Result<Child> {
        let mut child = self
            .command()
            .args(["work", database, url, &in_flight.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.name()))?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let said = lines.next_line().await?;
        anyhow::ensure!(said.as_deref() == Some("ready"), "{} says {said:?}", self.name());
        // Whatever it prints later has somewhere to go.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(child)
    }

    /// Runs a verb to its end and returns what it printed.
    async fn run(self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command().args(arguments).stderr(Stdio::inherit()).output().await;
        let output =
            output.with_context(|| format!("cannot start {}: make bench installs it", self.name()))?;
        anyhow::ensure!(output.status.success(), "{} {}: {}", self.name(), arguments[0], output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// It ends with the thread that started it, and without it when the handle to it is dropped.
    fn command(self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        match self {
            Self::Graphile => node(&mut command, "graphile.mjs"),
            Self::Boss => node(&mut command, "pgboss.mjs"),
            Self::Awa => command.arg(folder().join("awa/release/klaxon-peer-awa")),
        };
        command.kill_on_drop(true).stdin(Stdio::null());
        command
    }
}

fn node<'c>(command: &'c mut Command, script: &str) -> &'c mut Command {
    // As its page on performance has it: a line a job would be most of the work.
    command.env("NO_LOG_SUCCESS", "1").env("NODE_ENV", "production").env_remove("NODE_OPTIONS");
    command.arg(klaxon_tests::counterpart::folder().join("bin/node")).arg(folder().join(script))
}

/// Where `make bench` has put them.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers")
}
