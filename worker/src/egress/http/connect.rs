//! One connection: made to a judged address, and spoken over in the protocol that was agreed on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Origin, innermost};

/// Bytes of a response's head.
const HEAD: usize = 64 * 1024;
/// How often a connection that is waited on is asked whether it lives, and for how long.
const PING: Duration = Duration::from_secs(5);

/// A connection, of which many requests share one where the other side speaks HTTP/2.
pub(super) enum Connection {
    /// One request at a time.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// As many as there are.
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A request without an answer.
pub(super) struct Unsent {
    /// Whether the other side has certainly seen nothing of it.
    pub(super) certainly: bool,
    /// What went wrong.
    pub(super) error: hyper::Error,
}

impl<T> From<TrySendError<T>> for Unsent {
    fn from(error: TrySendError<T>) -> Self {
        Self { certainly: error.message().is_some(), error: error.into_error() }
    }
}

impl Connection {
    /// Connects to the first address that answers.
    ///
    /// # Errors
    /// What failed, without an address.
    pub(super) async fn open(
        origin: &Origin,
        tls: &Arc<ClientConfig>,
        limit: Duration,
    ) -> Result<Self, String> {
        let opened = async {
            let stream = dial(&origin.addresses, limit).await?;
            if !origin.secure {
                return http1(stream).await;
            }
            let name = origin.host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
            let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
            let stream = stream.map_err(|error| innermost(&error))?;
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => http2(stream).await,
                _ => http1(stream).await,
            }
        };
        match tokio::time::timeout(limit, opened).await {
            Ok(opened) => opened.map_err(|problem| format!("cannot connect: {problem}")),
            Err(_) => Err("the connection timed out".into()),
        }
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Whether a request can be sent now.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    /// Sends a request; its answer's head.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unsent> {
        Ok(match self {
            Self::Http1(sender) => sender.try_send_request(request).await?,
            Self::Http2(sender) => sender.try_send_request(request).await?,
        })
    }

    /// Whether the answer that was read leaves it fit for the next request.
    pub(super) async fn recovers(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }
}

/// Each address has its share of the time, so that one that does not answer leaves some to the others.
async fn dial(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, String> {
    let mut failed = "no address".to_owned();
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A request is one packet or a few; waiting to fill one would be all its time.
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            Ok(Err(error)) => failed = error.to_string(),
            Err(_) => failed = "no answer".into(),
        }
    }
    Err(failed)
}

async fn http1<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<Connection, String> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD);
    let (sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| innermost(&error))?;
    // It ends with its sender, and says there why.
    tokio::spawn(connection);
    Ok(Connection::Http1(sender))
}

async fn http2<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<Connection, String> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // A connection that died without a word would swallow what shares it.
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_header_list_size(64 * 1024);
    let (sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| innermost(&error))?;
    tokio::spawn(connection);
    Ok(Connection::Http2(sender))
}
