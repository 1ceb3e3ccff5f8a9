//! Requests: each goes to an address the guard judged for it, over a connection that is kept.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Uri, Version};
use klaxon_channel::form::{Post, Reply};
use rustls::ClientConfig;

use super::trust::Trust;
use super::{EgressError, Guard, GuardOptions, Purpose};

mod connect;
mod pool;

use connect::{Connection, Unsent};
use pool::Pool;

/// Why there is no reply. Says neither URL nor address.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The guard refused.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// It took longer than it may.
    #[error("no answer within {0:.1?}")]
    Timeout(Duration),
    /// The connection or the exchange failed.
    #[error("{0}")]
    Exchange(String),
}

/// Whose connections they are. A name that moves, or another name at the same address, is another
/// origin: a connection never carries what was not judged for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Origin {
    secure: bool,
    host: String,
    port: u16,
    addresses: Vec<SocketAddr>,
}

/// Sends requests.
#[derive(Debug)]
pub struct Http {
    guard: Arc<Guard>,
    tls: Arc<ClientConfig>,
    pool: Pool,
}

impl Http {
    /// Trusts the public roots and the operator's.
    ///
    /// # Errors
    /// Where the operator's file does not read.
    pub fn new(guard: Arc<Guard>) -> anyhow::Result<Self> {
        let tls = Arc::new(tls(guard.options())?);
        Ok(Self { guard, tls, pool: Pool::default() })
    }

    /// Posts, and reads the answer up to the cap. From resolving to the last byte it takes no
    /// longer than the timeout.
    ///
    /// # Errors
    /// Where the guard refuses, or there is no whole answer in time.
    pub async fn post(&self, post: Post) -> Result<Reply, HttpError> {
        let limit = self.guard.options().http_timeout;
        match tokio::time::timeout(limit, self.exchange(post)).await {
            Ok(reply) => reply,
            Err(_) => Err(HttpError::Timeout(limit)),
        }
    }

    async fn exchange(&self, post: Post) -> Result<Reply, HttpError> {
        let secure = post.url.scheme() == "https";
        let purpose = if secure { Purpose::Https } else { Purpose::Http };
        let host = post.url.host_str().unwrap_or_default().to_owned();
        let port = post.url.port_or_known_default().unwrap_or_default();
        let addresses = self.guard.target(&host, port, purpose).await?;
        let origin = Origin { secure, host, port, addresses };
        let (mut connection, kept) = self.connection(&origin).await?;
        let response = match connection.send(request(&post, &connection)?).await {
            Ok(response) => response,
            // The other side had closed it, and has seen nothing of this.
            Err(Unsent { certainly: true, .. }) if kept => {
                connection = self.dial(&origin).await?;
                let again = connection.send(request(&post, &connection)?).await;
                again.map_err(|unsent| exchange_failed(&unsent.error))?
            }
            Err(unsent) => return Err(exchange_failed(&unsent.error)),
        };
        let (reply, whole) = self.read(response).await?;
        // Before the reply is handed on: who sends next would otherwise open another one.
        if whole {
            self.pool.keep(&origin, connection).await;
        }
        Ok(reply)
    }

    /// A connection, and whether it was used before. Until it is known which protocol an origin
    /// speaks, one connection is made at a time: of HTTP/2 there is need of no more.
    async fn connection(&self, origin: &Origin) -> Result<(Connection, bool), HttpError> {
        if let Some(connection) = self.pool.take(origin) {
            return Ok((connection, true));
        }
        let mut turn = None;
        if let Some(first) = self.pool.first(origin) {
            turn = Some(first.lock_owned().await);
            if let Some(connection) = self.pool.take(origin) {
                return Ok((connection, true));
            }
        }
        // Whoever had the turn before has met a protocol that many connections are made for.
        if self.pool.first(origin).is_none() {
            turn = None;
        }
        let connection = self.dial(origin).await?;
        drop(turn);
        Ok((connection, false))
    }

    async fn dial(&self, origin: &Origin) -> Result<Connection, HttpError> {
        let limit = self.guard.options().connect_timeout;
        // Apart: what a handshake needs would be carried along by every request over a kept connection.
        let opened = Box::pin(Connection::open(origin, &self.tls, limit)).await;
        let connection = opened.map_err(HttpError::Exchange)?;
        self.pool.met(origin, &connection);
        Ok(connection)
    }

    /// The reply, and whether all of it was read.
    async fn read(&self, response: Response<Incoming>) -> Result<(Reply, bool), HttpError> {
        let (head, mut incoming) = response.into_parts();
        let cap = self.guard.options().response_cap;
        let mut body = Vec::new();
        let mut whole = true;
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(|error| exchange_failed(&error))?.into_data() else { continue };
            body.extend_from_slice(&data[..data.len().min(cap - body.len())]);
            if body.len() == cap {
                // The rest is nobody's, and nobody waits for it.
                whole = incoming.is_end_stream();
                break;
            }
        }
        Ok((Reply { status: head.status.as_u16(), headers: head.headers, body }, whole))
    }
}

/// As the connection's protocol has it: HTTP/1.1 names the host in a header, HTTP/2 in the target.
fn request(post: &Post, connection: &Connection) -> Result<Request<Full<hyper::body::Bytes>>, HttpError> {
    let invalid = |error: &dyn Error| HttpError::Exchange(format!("the request cannot be written: {error}"));
    let host = post.url.host_str().unwrap_or_default();
    let authority = match post.url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let path = &post.url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut request = Request::new(Full::new(post.body.clone()));
    *request.method_mut() = Method::POST;
    *request.headers_mut() = post.headers.clone();
    let headers = request.headers_mut();
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!("klaxon/", env!("CARGO_PKG_VERSION"))));
    let target = if connection.is_http2() {
        Uri::builder().scheme(post.url.scheme()).authority(authority).path_and_query(path).build()
    } else {
        headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|error| invalid(&error))?);
        Uri::builder().path_and_query(path).build()
    };
    *request.uri_mut() = target.map_err(|error| invalid(&error))?;
    if connection.is_http2() {
        *request.version_mut() = Version::HTTP_2;
    }
    Ok(request)
}

fn exchange_failed(error: &dyn Error) -> HttpError {
    HttpError::Exchange(innermost(error))
}

/// The innermost cause, which names what failed and not where.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Trusts the public roots and the operator's.
fn tls(options: &GuardOptions) -> anyhow::Result<ClientConfig> {
    let mut config = Arc::new(Trust::read(options.ca_file.as_deref())?).tls()?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod wire_tests;
