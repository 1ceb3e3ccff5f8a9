//! A real mail server: Debian's aiosmtpd, which demands STARTTLS and a login as a provider does.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::authority::Authority;
use crate::limit::within;

/// The name in the server's certificate.
pub const HOST: &str = "mail.test";
/// Who may log in.
pub const USER: &str = "klaxon@mail.test";
/// With what.
pub const PASSWORD: &str = "mail secret";

const SCRIPT: &str = include_str!("smtp_server.py");

/// What the server reports, a line each.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Report {
    /// A message it accepted.
    Message(Message),
    /// A message it refused by script.
    Refused {
        /// The answer it gave.
        refused: String,
    },
    /// A refusal was scripted.
    WillRefuse {
        /// The answer it will give.
        will_refuse: String,
    },
    /// A login it refused.
    LoginRefused {
        /// The SASL mechanism that was tried.
        login_refused: String,
    },
    /// It listens.
    Listening {
        /// On this port.
        port: u16,
    },
}

/// An accepted message.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// The envelope's sender.
    pub mail_from: String,
    /// The envelope's recipients.
    pub rcpt_tos: Vec<String>,
    /// Who was logged in.
    pub user: Option<String>,
    /// Whether it came through TLS.
    pub tls: bool,
    /// The headers, names in lower case.
    pub headers: std::collections::BTreeMap<String, String>,
    /// The plain text part.
    pub text: Option<String>,
    /// The HTML part.
    pub html: Option<String>,
}

/// The server; it ends with its drop.
pub struct MailServer {
    port: u16,
    commands: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
    _child: Child,
    _folder: tempfile::TempDir,
}

impl MailServer {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// Python or aiosmtpd is missing.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), authority).await
    }

    /// Starts one at an address.
    ///
    /// # Errors
    /// Python or aiosmtpd is missing.
    pub async fn start_at(address: SocketAddr, authority: &Authority) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("smtp_server.py");
        std::fs::write(&script, SCRIPT)?;
        let (certificate, key) = authority.files(folder.path(), HOST)?;
        let mut child = interpreter(&script)
            .args([&certificate, &key])
            .args([USER, PASSWORD, &address.ip().to_string(), &address.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start /usr/bin/python3")?;
        let commands = child.stdin.take().context("stdin is piped")?;
        let mut reports = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let first = within("the mail server", reports.next_line()).await?;
        let first = first.context("the mail server ended: is python3-aiosmtpd installed?")?;
        let Report::Listening { port } = serde_json::from_str(&first)? else {
            anyhow::bail!("unexpected: {first}")
        };
        Ok(Self { port, commands, reports, _child: child, _folder: folder })
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The worker's `connect-to` for it: port 587 of [`HOST`] is here.
    #[must_use]
    pub fn connect_to(&self) -> String {
        format!("{HOST}:587:127.0.0.1:{}", self.port)
    }

    /// A channel's `config` for it.
    #[must_use]
    pub fn channel(&self, to: &str) -> serde_json::Value {
        serde_json::json!({
            "smtp_host": HOST, "smtp_port": 587, "smtp_user": USER, "smtp_pass": PASSWORD, "to_addrs": [to],
        })
    }

    /// Scripts an answer to a coming message, such as `450 4.7.1 greylisted`.
    ///
    /// # Panics
    /// When the server is gone.
    pub async fn refuse_next(&mut self, answer: &str) {
        self.commands
            .write_all(format!("refuse {answer}\n").as_bytes())
            .await
            .expect("the mail server lives");
        let Report::WillRefuse { .. } = self.next().await else { panic!("unexpected report") };
    }

    /// The next thing that happens at the server.
    ///
    /// # Panics
    /// When nothing does.
    pub async fn next(&mut self) -> Report {
        let line = within("a report of the mail server", self.reports.next_line()).await;
        let line = line.expect("stdout reads").expect("the mail server lives");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The next message it accepts.
    ///
    /// # Panics
    /// When something else happens.
    pub async fn next_message(&mut self) -> Message {
        match self.next().await {
            Report::Message(message) => message,
            other => panic!("not a message: {other:?}"),
        }
    }
}

/// Debian's own Python, which is the one that has Debian's aiosmtpd.
fn interpreter(script: &Path) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script);
    command
}
