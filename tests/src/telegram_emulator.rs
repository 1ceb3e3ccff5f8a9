//! Telegram's Bot API as somebody else plays it: `telegram-test-api`, behind TLS of ours.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::cluster::free_port;
use crate::counterpart;
use crate::limit::within;
use crate::vendor::telegram::VENDOR;

const SCRIPT: &str = include_str!("telegram_emulator.js");

/// The emulator; it ends with its drop.
pub struct Emulator {
    plain: SocketAddr,
    encrypted: SocketAddr,
    terminating: JoinHandle<()>,
    _child: Child,
}

impl Emulator {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// The counterparts are not installed.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        let plain = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut child = counterpart::command("node")
            .args(["-e", SCRIPT, "--", &plain.port().to_string()])
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot start Node of target/counterparts: make setup installs it")?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        if within("the emulator", lines.next_line()).await?.is_none() {
            bail!("the emulator ended");
        }
        let mut tls = (*authority.https(&[VENDOR.host])?).clone();
        // All that the emulator speaks.
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let encrypted = listener.local_addr()?;
        let terminating = tokio::spawn(terminate(listener, TlsAcceptor::from(Arc::new(tls)), plain));
        Ok(Self { plain, encrypted, terminating, _child: child })
    }

    /// The worker's `connect-to` for it.
    #[must_use]
    pub fn connect_to(&self) -> String {
        format!("{}:443:{}:{}", VENDOR.host, self.encrypted.ip(), self.encrypted.port())
    }

    /// Everything that the bot with this token has sent, as the emulator keeps it.
    ///
    /// # Errors
    /// The emulator does not answer.
    pub async fn messages(&self, token: &str) -> anyhow::Result<Vec<Value>> {
        let question = json!({ "token": token }).to_string();
        let mut stream = TcpStream::connect(self.plain).await?;
        let head = "POST /getUpdatesHistory HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length";
        stream.write_all(format!("{head}: {}\r\n\r\n{question}", question.len()).as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let mut history: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
        let updates = history["result"].as_array_mut().context("no list")?;
        updates.sort_by_key(|update| update["messageId"].as_i64());
        Ok(updates.iter_mut().map(|update| update["message"].take()).collect())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.terminating.abort();
    }
}

/// Hands on what comes encrypted in the clear.
async fn terminate(listener: TcpListener, acceptor: TlsAcceptor, to: SocketAddr) {
    // Aborting this drops the set, and with it every connection.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let Ok(mut plain) = TcpStream::connect(to).await else { return };
            // Either side may go first; what it said has arrived by then.
            let _ = copy_bidirectional(&mut stream, &mut plain).await;
        });
    }
}
