//! A mail server that costs as little as one can: SMTP in clear, sessions kept, every message taken and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The name it has in a channel's configuration, where port 25 is the one without TLS.
pub const HOST: &str = "mail.test";

/// The server. It ends with the process.
pub struct MailSink {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
    sessions: Arc<AtomicUsize>,
}

impl MailSink {
    /// Starts one on a free port.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let sink = Self { address: listener.local_addr()?, taken: Arc::default(), sessions: Arc::default() };
        let (taken, sessions) = (Arc::clone(&sink.taken), Arc::clone(&sink.sessions));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                sessions.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(converse(stream, Arc::clone(&taken)));
            }
        });
        Ok(sink)
    }

    /// The worker's `connect-to` for it.
    pub fn connect_to(&self) -> String {
        format!("{HOST}:25:{}", self.address)
    }

    /// Messages it has taken so far.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Sessions it has had so far.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }
}

async fn converse(stream: TcpStream, taken: Arc<AtomicUsize>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mail.test ESMTP\r\n").await?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let answer: &[u8] = match &verb[..] {
            b"EHLO" => b"250-mail.test\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
            b"DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                while line != b".\r\n" {
                    line.clear();
                    if stream.read_until(b'\n', &mut line).await? == 0 {
                        return Ok(());
                    }
                }
                taken.fetch_add(1, Ordering::Relaxed);
                b"250 taken\r\n"
            }
            b"QUIT" => return stream.write_all(b"221 bye\r\n").await,
            _ => b"250 ok\r\n",
        };
        stream.write_all(answer).await?;
    }
}
