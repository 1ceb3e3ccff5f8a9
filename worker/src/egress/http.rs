//! Requests: each goes to the address the guard judged for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use klaxon_channel::form::{Post, Reply};
use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::header::{HOST, HeaderValue};
use reqwest::{Client, redirect};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};

use super::{EgressError, Guard, GuardOptions, Purpose};

/// Clients kept: one a scheme, host and judged addresses.
const CLIENTS: usize = 512;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);

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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Origin {
    secure: bool,
    host: String,
    addresses: Vec<SocketAddr>,
    /// Whether the URL states a port that is not the one dialled.
    elsewhere: bool,
}

/// Resolves nothing: a client dials what was judged for it, or nothing.
struct Unresolving;

impl Resolve for Unresolving {
    fn resolve(&self, _: Name) -> Resolving {
        Box::pin(std::future::ready(Err(EgressError::Unresolved.into())))
    }
}

/// Sends requests.
#[derive(Debug)]
pub struct Http {
    guard: Arc<Guard>,
    tls: ClientConfig,
    clients: Mutex<HashMap<Origin, (Client, Instant)>>,
}

impl Http {
    /// Trusts the public roots and the operator's.
    ///
    /// # Errors
    /// Where the operator's file does not read.
    pub fn new(guard: Arc<Guard>) -> anyhow::Result<Self> {
        let tls = tls(guard.options())?;
        Ok(Self { guard, tls, clients: Mutex::default() })
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
        let Post { mut url, mut headers, body } = post;
        let secure = url.scheme() == "https";
        let purpose = if secure { Purpose::Https } else { Purpose::Http };
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().unwrap_or_default();
        let addresses = self.guard.target(&host, port, purpose).await?;
        // reqwest dials the port that a URL states, whichever it was told. Where another was judged,
        // the URL states none and the Host header does, which HTTP/2 would not read.
        let elsewhere = url.port().is_some() && addresses.iter().any(|address| address.port() != port);
        if elsewhere {
            let authority = HeaderValue::from_str(&format!("{host}:{port}"));
            headers.insert(HOST, authority.map_err(|error| HttpError::Exchange(error.to_string()))?);
            url.set_port(None).map_err(|()| HttpError::Exchange("the URL has no host".into()))?;
        }
        let client = self
            .client(Origin { secure, host, addresses, elsewhere })
            .map_err(|error| HttpError::Exchange(error.to_string()))?;
        let mut response = client.post(url).headers(headers).body(body).send().await.map_err(describe)?;
        let (status, headers) = (response.status().as_u16(), std::mem::take(response.headers_mut()));
        let cap = self.guard.options().response_cap;
        let mut body = Vec::new();
        while body.len() < cap {
            match response.chunk().await.map_err(describe)? {
                Some(chunk) => body.extend_from_slice(&chunk[..chunk.len().min(cap - body.len())]),
                None => break,
            }
        }
        Ok(Reply { status, headers, body })
    }

    /// The client of an origin: its connections go to the judged address and to no other, because a
    /// name that moves makes another origin.
    fn client(&self, origin: Origin) -> reqwest::Result<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((client, used)) = clients.get_mut(&origin) {
            *used = now;
            return Ok(client.clone());
        }
        if clients.len() >= CLIENTS
            && let Some(oldest) =
                clients.iter().min_by_key(|(_, (_, used))| *used).map(|(origin, _)| origin.clone())
        {
            clients.remove(&oldest);
        }
        let name = origin.host.trim_start_matches('[').trim_end_matches(']');
        let options = self.guard.options();
        let mut tls = self.tls.clone();
        if origin.elsewhere {
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Unresolving)
            .resolve_to_addrs(name, &origin.addresses)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(options.connect_timeout)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .user_agent(concat!("klaxon/", env!("CARGO_PKG_VERSION")))
            .build()?;
        clients.insert(origin, (client.clone(), now));
        Ok(client)
    }
}

fn tls(options: &GuardOptions) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = &options.ca_file {
        let read = || format!("ca-file {}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).with_context(read)? {
            roots.add(certificate.with_context(read)?).with_context(read)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The innermost cause, which names what failed and not where.
fn describe(error: reqwest::Error) -> HttpError {
    if error.is_timeout() {
        return HttpError::Exchange("the connection timed out".into());
    }
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let what = if error.is_connect() { "cannot connect: " } else { "" };
    HttpError::Exchange(format!("{what}{cause}"))
}

#[cfg(test)]
mod wire_tests;
