//! An HTTPS receiver: verifies signatures, records what it got, answers by script.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::authority::Authority;
use crate::limit::{PATIENCE, within_time};
use crate::signature;

/// The name in the receiver's certificate.
pub const HOST: &str = "receiver.test";

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct Request {
    /// As in `POST`.
    pub method: Method,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// Path without query.
    pub path: String,
    /// All of them, names in lower case.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whether the signatures verified; none where the path has no secret.
    pub verified: Option<Result<(), String>>,
    /// What was answered.
    pub status: u16,
}

impl Request {
    /// A header's text, empty where it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// One scripted answer.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    /// An empty answer with this status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }
}

/// How a path behaves. As it begins: answers 200 to everything.
#[derive(Clone, Debug)]
pub struct Hook {
    secret: Option<String>,
    answers: VecDeque<Answer>,
    counting: bool,
    held: Option<watch::Receiver<bool>>,
}

impl Default for Hook {
    fn default() -> Self {
        Self { secret: None, answers: [Answer::status(200)].into(), counting: false, held: None }
    }
}

impl Hook {
    /// Requests must be signed with this secret; others are answered 401 and use up no answer.
    #[must_use]
    pub fn secret(mut self, secret: &str) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// The secret, where there is one.
    #[must_use]
    pub fn signed_with(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    /// Answers in this order; the last repeats.
    #[must_use]
    pub fn answers(mut self, answers: impl IntoIterator<Item = Answer>) -> Self {
        self.answers = answers.into_iter().collect();
        self
    }

    /// As [`Hook::answers`], with nothing but statuses.
    #[must_use]
    pub fn statuses(self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.answers(statuses.into_iter().map(Answer::status))
    }

    /// Keeps only the delivery ids: for hundreds of thousands of requests.
    #[must_use]
    pub fn counting(mut self) -> Self {
        self.counting = true;
        self
    }

    /// Records requests at once, but answers only when the returned sender says `true`.
    #[must_use]
    pub fn held(mut self) -> (Self, watch::Sender<bool>) {
        let (release, held) = watch::channel(false);
        self.held = Some(held);
        (self, release)
    }
}

#[derive(Default)]
struct Records {
    hooks: HashMap<String, Hook>,
    requests: Vec<Request>,
    /// Of the counting hooks: path and `webhook-id`.
    ids: HashMap<String, Vec<u128>>,
}

#[derive(Default)]
struct Shared {
    records: Mutex<Records>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn records(&self) -> std::sync::MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The receiver; it ends with its drop.
pub struct Receiver {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Receiver {
    /// Starts one on a free port, with a certificate for [`HOST`].
    ///
    /// # Errors
    /// No port, or no certificate.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(authority.https(&[HOST])?);
        let shared = Arc::<Shared>::default();
        let accepting = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Ok(Self { shared, address, accepting })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The worker's `connect-to` for it: port 443 of [`HOST`] is here.
    #[must_use]
    pub fn connect_to(&self) -> String {
        format!("{HOST}:443:{}:{}", self.address.ip(), self.address.port())
    }

    /// Says how a path behaves; others are answered 404. Returns the URL to send to.
    pub fn serve(&self, path: &str, hook: Hook) -> String {
        self.shared.records().hooks.insert(path.into(), hook);
        format!("https://{HOST}{path}")
    }

    /// What was received so far, counting hooks aside.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.records().requests.clone()
    }

    /// What was received so far at one path.
    #[must_use]
    pub fn requests_at(&self, path: &str) -> Vec<Request> {
        self.shared.records().requests.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// The first `count` requests at a path, once they are there.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn wait_at(&self, path: &str, count: usize) -> Vec<Request> {
        self.wait(PATIENCE, &format!("{count} requests at {path}"), |records| {
            let found: Vec<_> =
                records.requests.iter().filter(|request| request.path == path).take(count).collect();
            (found.len() == count).then(|| found.into_iter().cloned().collect())
        })
        .await
    }

    /// The request number `index`, counted from 0 over all paths, once it is there.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn nth(&self, index: usize) -> Request {
        self.wait(PATIENCE, &format!("request {}", index + 1), |records| records.requests.get(index).cloned())
            .await
    }

    /// The delivery ids a counting hook received, once there are `count` of them.
    ///
    /// # Panics
    /// When they do not come within `limit`.
    pub async fn wait_ids(&self, limit: Duration, path: &str, count: usize) -> Vec<u128> {
        self.wait(limit, &format!("{count} deliveries at {path}"), |records| {
            records.ids.get(path).filter(|ids| ids.len() >= count).cloned()
        })
        .await
    }

    /// The delivery ids a counting hook has received.
    #[must_use]
    pub fn ids(&self, path: &str) -> Vec<u128> {
        self.shared.records().ids.get(path).cloned().unwrap_or_default()
    }

    async fn wait<T>(&self, limit: Duration, what: &str, mut found: impl FnMut(&Records) -> Option<T>) -> T {
        // Subscribed before looking, so that what arrives in between is not missed.
        let mut changed = self.shared.changed.subscribe();
        within_time(limit, what, async {
            loop {
                if let Some(value) = found(&self.shared.records()) {
                    return value;
                }
                changed.changed().await.expect("the receiver lives");
            }
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    // Aborting this drops the set, and with it every connection.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(converse(stream, acceptor.clone(), Arc::clone(&shared)));
    }
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    // Answers are small; waiting to fill a packet would be all their time.
    let _ = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
    // A worker that was killed leaves connections torn; that is what the test is about.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: hyper::Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // Cut off in the middle: not a request.
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return Ok(response(&Answer::status(400)));
    };
    let (answer, held) = record(&shared, &head, body);
    shared.changed.send_modify(|()| ());
    if let Some(mut held) = held {
        // The test that holds has ended: so has the holding.
        let _ = held.wait_for(|released| *released).await;
    }
    Ok(response(&answer))
}

fn record(
    shared: &Shared,
    head: &hyper::http::request::Parts,
    body: Bytes,
) -> (Answer, Option<watch::Receiver<bool>>) {
    let path = head.uri.path();
    let secret = shared.records().hooks.get(path).and_then(|hook| hook.secret.clone());
    let verified = secret.map(|secret| signature::check(&secret, &head.headers, &body));
    let mut records = shared.records();
    let (mut answer, mut held, mut counting) = (Answer::status(404), None, false);
    if let Some(hook) = records.hooks.get_mut(path) {
        if matches!(verified, Some(Err(_))) {
            answer = Answer::status(401);
        } else {
            answer = match hook.answers.len() {
                0 | 1 => hook.answers.front().cloned(),
                _ => hook.answers.pop_front(),
            }
            .unwrap_or_else(|| Answer::status(200));
            (held, counting) = (hook.held.clone(), hook.counting);
        }
    }
    if counting {
        let id = head.headers.get("webhook-id").and_then(|id| Uuid::try_parse_ascii(id.as_bytes()).ok());
        records.ids.entry(path.into()).or_default().push(id.map_or(0, |id| id.as_u128()));
    } else {
        records.requests.push(Request {
            method: head.method.clone(),
            version: head.version,
            path: path.into(),
            headers: head.headers.clone(),
            body,
            verified,
            status: answer.status,
        });
    }
    (answer, held)
}

fn response(answer: &Answer) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::new(Bytes::from(answer.body.clone())));
    *response.status_mut() = StatusCode::from_u16(answer.status).expect("scripted statuses are valid");
    for (name, value) in &answer.headers {
        response.headers_mut().append(
            HeaderName::try_from(name.as_str()).expect("scripted headers are valid"),
            HeaderValue::try_from(value.as_str()).expect("scripted headers are valid"),
        );
    }
    response
}
