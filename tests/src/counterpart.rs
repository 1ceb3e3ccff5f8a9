//! Programs of other ecosystems, as their users run them: `make setup` installs them, in exactly the
//! versions of `tests/counterparts`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::limit::within;

/// Says which of the blocks of a message `slack_sdk` objects to.
pub const SLACK_BLOCKS: &str = include_str!("slack_blocks.py");
/// Opens a sealed value by libsodium, through `PyNaCl`.
pub const SEALED_BOX: &str = include_str!("sealed_box.py");
/// Says whether a webhook verifies by the `standardwebhooks` of Python.
pub const WEBHOOK: &str = include_str!("webhook.py");

/// Reads spans as OpenTelemetry's own protobuf definitions have them.
pub const SPANS: &str = include_str!("spans.py");

/// Where they are.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/counterparts")
}

/// A command for a program of theirs: `python` or `node`. It ends with the handle to it.
#[must_use]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(folder().join("bin").join(program));
    // As a user has it who has set nothing.
    command.env_remove("PYTHONPATH").env_remove("NODE_PATH").env_remove("NODE_OPTIONS");
    command.current_dir(folder()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// A Python script that answers questions, a line of JSON each. It ends with its drop.
pub struct Script {
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Script {
    /// Starts one.
    ///
    /// # Errors
    /// The counterparts are not installed.
    pub fn start(source: &str) -> anyhow::Result<Self> {
        let mut child = command("python")
            .args(["-c", source])
            .spawn()
            .context("cannot start Python of target/counterparts: make setup installs it")?;
        let questions = child.stdin.take().context("stdin is piped")?;
        let answers = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        Ok(Self { questions, answers, _child: child })
    }

    /// The answer to a question.
    ///
    /// # Panics
    /// When there is none: what Python said stands on stderr.
    pub async fn ask(&mut self, question: &Value) -> Value {
        self.questions.write_all(format!("{question}\n").as_bytes()).await.expect("the script lives");
        let answer = within("a script's answer", self.answers.next_line()).await;
        let answer = answer.expect("stdout reads").expect("the script lives");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}
