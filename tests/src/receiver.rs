//! An HTTPS receiver: verifies signatures, records what it got, answers by script.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Version};
use tokio::sync::watch;
use uuid::Uuid;

use crate::authority::Authority;
use crate::https::{self, Server};
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
    server: Server,
}

impl Receiver {
    /// Starts one on a free port, with a certificate for [`HOST`].
    ///
    /// # Errors
    /// No port, or no certificate.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), authority, &[HOST]).await
    }

    /// Starts one at an address, with a certificate for these names.
    ///
    /// # Errors
    /// Not this port, or no certificate.
    pub async fn start_at(
        address: SocketAddr,
        authority: &Authority,
        names: &[&str],
    ) -> anyhow::Result<Self> {
        let shared = Arc::<Shared>::default();
        let records = Arc::clone(&shared);
        let answer = move |head, body| answer(Arc::clone(&records), head, body);
        Ok(Self { shared, server: Server::start_at(address, authority, names, answer).await? })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The worker's `connect-to` for it: port 443 of [`HOST`] is here.
    #[must_use]
    pub fn connect_to(&self) -> String {
        self.server.connect_to(HOST)
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

async fn answer(shared: Arc<Shared>, head: Parts, body: Bytes) -> hyper::Response<Full<Bytes>> {
    let (answer, held) = record(&shared, &head, body);
    shared.changed.send_modify(|()| ());
    if let Some(mut held) = held {
        // The test that holds has ended: so has the holding.
        let _ = held.wait_for(|released| *released).await;
    }
    response(&answer)
}

fn record(shared: &Shared, head: &Parts, body: Bytes) -> (Answer, Option<watch::Receiver<bool>>) {
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
    let mut response = https::response(answer.status, &answer.body);
    for (name, value) in &answer.headers {
        response.headers_mut().append(
            HeaderName::try_from(name.as_str()).expect("scripted headers are valid"),
            HeaderValue::try_from(value.as_str()).expect("scripted headers are valid"),
        );
    }
    response
}
