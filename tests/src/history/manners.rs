//! A receiver without manners: it writes down what arrives as the other does, and answers as it is told to.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use super::arrivals::{Arrival, Log};
use super::now;
use crate::authority::Authority;

/// The name in its certificate.
pub const HOST: &str = "ill.test";

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Good,
    /// Not at all, and keeps the connection.
    Hang,
    /// Byte by byte.
    Drip,
    /// By resetting the connection.
    Reset,
    /// 500.
    Fail,
    /// What is no HTTP.
    Garbage,
}

/// The receiver; it ends with its drop.
pub struct Mannered {
    address: SocketAddr,
    manner: watch::Sender<Manner>,
    accepting: JoinHandle<()>,
}

impl Mannered {
    /// Starts one on a free port, that writes into this log.
    ///
    /// # Errors
    /// No port, or no certificate.
    pub async fn start(authority: &Authority, log: Arc<Log>) -> anyhow::Result<Self> {
        let mut config = (*authority.https(&[HOST])?).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (manner, told) = watch::channel(Manner::Good);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log, told) = (acceptor.clone(), Arc::clone(&log), told.clone());
                // However a conversation ends, it is over.
                connections.spawn(async move { drop(converse(stream, acceptor, log, told).await) });
            }
        });
        Ok(Self { address, manner, accepting })
    }

    /// The worker's `connect-to` for it.
    #[must_use]
    pub fn connect_to(&self) -> String {
        format!("{HOST}:443:{}:{}", self.address.ip(), self.address.port())
    }

    /// From here on it answers so.
    pub fn behave(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }
}

impl Drop for Mannered {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Deserialize)]
struct Body {
    id: Uuid,
    attempt: i32,
}

async fn converse(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    log: Arc<Log>,
    told: watch::Receiver<Manner>,
) -> anyhow::Result<()> {
    let mut stream = BufReader::new(acceptor.accept(stream).await?);
    loop {
        let (mut line, mut path, mut delivery, mut length) = (String::new(), String::new(), None, 0);
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            if path.is_empty() {
                line.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').clone_into(&mut path);
            } else if let Some((name, value)) = line.split_once(": ") {
                match name.to_ascii_lowercase().as_str() {
                    "webhook-id" => delivery = value.trim().parse().ok(),
                    "content-length" => length = value.trim().parse()?,
                    _ => {}
                }
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let Body { id: event, attempt } = serde_json::from_slice(&body)?;
        let manner = *told.borrow();
        let status = match manner {
            Manner::Good => 200,
            Manner::Fail => 500,
            _ => 0,
        };
        let delivery = delivery.unwrap_or_default();
        log.write(Arrival { channel: path.clone(), delivery, event, attempt, at: now(), status });
        match manner {
            Manner::Good => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?,
            Manner::Fail => {
                stream.write_all(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n").await?;
            }
            Manner::Hang => std::future::pending().await,
            Manner::Drip => {
                for byte in
                    b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n".iter().chain([b'x'; 1_000].iter())
                {
                    stream.write_all(&[*byte]).await?;
                    stream.flush().await?;
                    sleep(Duration::from_millis(100)).await;
                }
            }
            Manner::Reset => {
                let stream = stream.into_inner().into_inner().0;
                // What has been received and not read makes it a reset rather than an end.
                stream.set_zero_linger()?;
                return Ok(());
            }
            Manner::Garbage => {
                stream.write_all(b"\x00\xff\xfeSSH-2.0-not\x01this\r\n\r\n\xc3\x28{\"\"]\r\n").await?;
                stream.flush().await?;
                return Ok(());
            }
        }
        stream.flush().await?;
    }
}
