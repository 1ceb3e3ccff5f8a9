//! An HTTPS server on a free loopback port: what the receivers are made of.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;

/// The server; it ends with its drop.
pub struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts one with a certificate for these names, which answers each whole request.
    ///
    /// # Errors
    /// No port, or no certificate.
    pub async fn start<A, F>(authority: &Authority, names: &[&str], answer: A) -> anyhow::Result<Self>
    where
        A: Fn(Parts, Bytes) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), authority, names, answer).await
    }

    /// As [`Server::start`], at an address.
    ///
    /// # Errors
    /// Not this port, or no certificate.
    pub async fn start_at<A, F>(
        address: SocketAddr,
        authority: &Authority,
        names: &[&str],
        answer: A,
    ) -> anyhow::Result<Self>
    where
        A: Fn(Parts, Bytes) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(authority.https(names)?);
        Ok(Self { address, accepting: tokio::spawn(accept(listener, acceptor, answer)) })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The worker's `connect-to` for it: port 443 of `host` is here.
    #[must_use]
    pub fn connect_to(&self, host: &str) -> String {
        format!("{host}:443:{}:{}", self.address.ip(), self.address.port())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A response with this status and body.
///
/// # Panics
/// When the status is none.
#[must_use]
pub fn response(status: u16, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_owned())));
    *response.status_mut() = StatusCode::from_u16(status).expect("scripted statuses are valid");
    response
}

async fn accept<A, F>(listener: TcpListener, acceptor: TlsAcceptor, answer: A)
where
    A: Fn(Parts, Bytes) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    // Aborting this drops the set, and with it every connection.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(converse(stream, acceptor.clone(), answer.clone()));
    }
}

async fn converse<A, F>(stream: TcpStream, acceptor: TlsAcceptor, answer: A)
where
    A: Fn(Parts, Bytes) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    // Answers are small; waiting to fill a packet would be all their time.
    let _ = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            Ok::<_, Infallible>(match body.collect().await {
                Ok(body) => answer(head, body.to_bytes()).await,
                // Cut off in the middle: not a request.
                Err(_) => response(400, ""),
            })
        }
    });
    // A worker that was killed leaves connections torn; that is what the test is about.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}
