//! The real worker process: started, listened to, signalled.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::limit::within;
use crate::process;

/// The binary under test: `KLAXON_BIN`, else the release build, else the one beside this program.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("KLAXON_BIN") {
        return path.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let beside = std::env::current_exe().ok().and_then(|path| {
        path.ancestors().find(|folder| folder.join("klaxon").is_file()).map(|f| f.join("klaxon"))
    });
    let release = target.join("release/klaxon");
    if release.is_file() {
        release
    } else {
        beside.expect("klaxon is built: cargo build --release -p klaxon")
    }
}

/// A `klaxon` command without the surroundings' own settings.
#[must_use]
pub fn command() -> Command {
    command_of(&binary())
}

fn command_of(binary: &Path) -> Command {
    // Ends with the thread that started it, should that be killed; `setpriv` replaces itself by the
    // worker, so the process id is the worker's own.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(binary).kill_on_drop(true).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| {
            ["KLAXON_", "OTEL_", "PG"].iter().any(|prefix| name.starts_with(prefix)) && name != "KLAXON_BIN"
        }) {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
    command
}

/// What `klaxon init` writes, in a folder of its own.
pub struct Installation {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Installation {
    /// An empty folder, for `klaxon init` to be run in.
    ///
    /// # Panics
    /// When there is no temporary folder.
    #[must_use]
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), environment: Vec::new() }
    }

    /// A variable for what is run or started from here on.
    pub fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Runs `klaxon init` against a database, as its superuser.
    ///
    /// # Panics
    /// When it fails: with what it said.
    pub async fn init(superuser_url: &str) -> Self {
        let installation = Self::empty();
        let output = installation.run(&["init", "--database-url", superuser_url]).await;
        assert!(output.status.success(), "klaxon init: {}", String::from_utf8_lossy(&output.stderr));
        installation
    }

    /// The configuration's path.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("klaxon.toml")
    }

    /// The folder with the configuration and the keys.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command of `klaxon` with this configuration to its end.
    ///
    /// # Panics
    /// When it does not start or does not end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output();
        within(&format!("klaxon {}", arguments.join(" ")), output).await.expect("klaxon starts")
    }

    /// A command of `klaxon` with this configuration, to be run as the caller pleases.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command.envs(self.environment.iter().cloned());
        command.args(arguments).arg("--config").arg(self.config());
        command
    }

    /// Starts `klaxon run` with this configuration and these flags.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(&self, flags: &[String]) -> Worker {
        self.start_by(&binary(), flags)
    }

    /// The same by another binary than the one under test.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_by(&self, binary: &Path, flags: &[String]) -> Worker {
        let mut command = command_of(binary);
        command.envs(self.environment.iter().cloned());
        command.arg("run").arg("--config").arg(self.config()).args(flags);
        command.args(["--log-format", "json"]);
        // Tests run side by side; nobody scrapes these.
        if !flags.iter().any(|flag| flag.starts_with("--metrics-addr")) {
            command.args(["--metrics-addr", "127.0.0.1:0"]);
        }
        Worker::spawn(command).expect("klaxon starts")
    }
}

/// One line of the worker's log.
#[derive(Clone, Debug)]
pub struct LogLine(pub Value);

impl LogLine {
    /// The event.
    #[must_use]
    pub fn message(&self) -> &str {
        self.field("message").as_str().unwrap_or_default()
    }

    /// A field of the event, null where it has none of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> &Value {
        let fields = self.0.get("fields").unwrap_or(&self.0);
        fields.get(name).unwrap_or(&Value::Null)
    }
}

/// A running `klaxon run`; killed by its drop.
pub struct Worker {
    child: Child,
    pid: u32,
    log: Arc<Mutex<Vec<LogLine>>>,
    /// How many lines there are; closed when stderr is.
    lines: watch::Receiver<usize>,
}

impl Worker {
    fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot start klaxon")?;
        let pid = child.id().context("it has just been started")?;
        let mut stderr = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        let log = Arc::<Mutex<Vec<LogLine>>>::default();
        let (count, lines) = watch::channel(0);
        tokio::spawn({
            let log = Arc::clone(&log);
            async move {
                while let Ok(Some(line)) = stderr.next_line().await {
                    // A refusal to start is said in plain words.
                    let value = serde_json::from_str(&line)
                        .unwrap_or_else(|_| serde_json::json!({ "message": line }));
                    log.lock().expect("no panic while locked").push(LogLine(value));
                    count.send_modify(|count| *count += 1);
                }
            }
        });
        Ok(Self { child, pid, log, lines })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> Vec<LogLine> {
        self.log.lock().expect("no panic while locked").clone()
    }

    /// The first line, logged already or to come, that satisfies the condition.
    ///
    /// # Panics
    /// When the worker ends without it or it does not come: with the log.
    pub async fn wait_for_log(&mut self, what: &str, wanted: impl Fn(&LogLine) -> bool) -> LogLine {
        let mut from = 0;
        let found = within(&format!("the worker to log {what}"), async {
            loop {
                let seen = *self.lines.borrow_and_update();
                if let Some(line) = self.log()[from..].iter().find(|line| wanted(line)) {
                    return Some(line.clone());
                }
                from = seen;
                if self.lines.changed().await.is_err() {
                    return self.log()[from..].iter().find(|line| wanted(line)).cloned();
                }
            }
        })
        .await;
        found.unwrap_or_else(|| panic!("the worker ended without logging {what}:\n{:#?}", self.log()))
    }

    /// Waits until it serves its databases.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ready(&mut self) {
        self.wait_for_log("that it owns shards", |line| line.message() == "owns shards").await;
    }

    /// Sends it a signal, as in `TERM`.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, name: &str) {
        process::signal(self.pid, name).expect("the worker runs");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn wait(&mut self) -> ExitStatus {
        within("the worker to end", self.child.wait()).await.expect("it is our child")
    }

    /// The most memory it ever had resident (`VmHWM` of proc(5)), in bytes.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The memory it has resident now, in bytes.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// How many file descriptors it has open.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("the worker runs").count()
    }

    /// A figure of proc(5)'s `status` that is in kB, in bytes.
    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the worker runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}
