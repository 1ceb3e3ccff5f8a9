//! The vendors' servers, all behind one port: each refuses what its documentation says it refuses, in
//! its own words, and knows what it would make of a message beyond showing it.

pub mod bounded;
pub mod discord;
pub mod markdown;
pub mod ntfy;
pub mod pagerduty;
pub mod slack;
pub mod teams;
pub mod telegram;
pub mod telegram_html;

use std::future::ready;
use std::sync::Arc;

use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use serde_json::Value;
use tokio::sync::watch;

use crate::authority::Authority;
use crate::https::{self, Server};
use crate::limit::within;

/// All of them.
pub const ALL: [Vendor; 6] =
    [slack::VENDOR, telegram::VENDOR, pagerduty::VENDOR, discord::VENDOR, teams::VENDOR, ntfy::VENDOR];

/// One vendor's server.
#[derive(Clone, Copy, Debug)]
pub struct Vendor {
    /// The kind of channel that leads to it.
    pub kind: &'static str,
    /// The name in its certificate.
    pub host: &'static str,
    /// The `config` of a channel that it knows.
    pub config: fn() -> Value,
    /// What it answers.
    pub answer: fn(&Request) -> Answer,
    /// What it makes of a body it has accepted.
    pub reading: fn(&Value) -> Reading,
}

/// What a vendor makes of a message beyond showing its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Where a click would lead, where that is not what is shown.
    pub links: Vec<String>,
    /// What would be rendered, replaced or notify somebody.
    pub interpreted: Vec<String>,
}

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct Request {
    /// As in `POST`.
    pub method: Method,
    /// Path without query.
    pub path: String,
    /// What follows the question mark.
    pub query: String,
    /// All of them, names in lower case.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Request {
    fn new(head: Parts, body: Bytes) -> Self {
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        Self { method: head.method, path, query, headers: head.headers, body }
    }

    /// A header's text, empty where it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body, where it was posted as JSON and is.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        let said = self.method == Method::POST && self.header("content-type").starts_with("application/json");
        serde_json::from_slice(&self.body).ok().filter(|_| said)
    }

    /// One as the worker would send it, for the vendors' own tests.
    #[cfg(test)]
    fn post(path: &str, body: &Value) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().expect("it is a header"));
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let body = body.to_string().into();
        Self { method: Method::POST, path: path.into(), query: query.into(), headers, body }
    }
}

/// What a vendor answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// Why, where the vendor's own words do not say it.
    pub why: String,
}

impl Answer {
    /// An answer with this body.
    #[must_use]
    pub fn new(status: u16, body: impl ToString) -> Self {
        Self { status, body: body.to_string(), why: String::new() }
    }

    /// For whoever reads the failed test: what the vendor keeps to itself.
    #[must_use]
    pub fn because(mut self, why: impl ToString) -> Self {
        self.why = why.to_string();
        self
    }

    /// Whether it is a refusal.
    #[must_use]
    pub fn refuses(&self) -> bool {
        !(200..=299).contains(&self.status)
    }
}

/// A request and what became of it.
#[derive(Clone, Debug)]
pub struct Call {
    /// To whom.
    pub vendor: Vendor,
    /// What was asked.
    pub request: Request,
    /// What was answered.
    pub answer: Answer,
}

impl Call {
    /// What the vendor makes of it.
    ///
    /// # Panics
    /// When the body is not even JSON.
    #[must_use]
    pub fn reading(&self) -> Reading {
        (self.vendor.reading)(&self.request.json().expect("the body is JSON"))
    }
}

/// The server of them all; it ends with its drop.
pub struct Vendors {
    server: Server,
    calls: Arc<watch::Sender<Vec<Call>>>,
}

impl Vendors {
    /// Starts it on a free port, with a certificate for every vendor's host.
    ///
    /// # Errors
    /// No port, or no certificate.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        let calls = Arc::<watch::Sender<Vec<Call>>>::default();
        let record = Arc::clone(&calls);
        let hosts = ALL.map(|vendor| vendor.host);
        let server = Server::start(authority, &hosts, move |head, body| {
            // HTTP/2 says the host in the URI, HTTP/1.1 in a header.
            let said =
                head.uri.host().or_else(|| head.headers.get("host").and_then(|host| host.to_str().ok()));
            let vendor = ALL.into_iter().find(|vendor| said == Some(vendor.host));
            let request = Request::new(head, body);
            let answer = vendor.map(|vendor| {
                let answer = (vendor.answer)(&request);
                record.send_modify(|calls| calls.push(Call { vendor, request, answer: answer.clone() }));
                answer
            });
            // Misdirected Request: nobody of that name is here.
            let answer = answer.unwrap_or_else(|| Answer::new(421, ""));
            ready(https::response(answer.status, &answer.body))
        })
        .await?;
        Ok(Self { server, calls })
    }

    /// The worker's `connect-to` for each vendor.
    #[must_use]
    pub fn connect_to(&self) -> Vec<String> {
        ALL.iter().map(|vendor| self.server.connect_to(vendor.host)).collect()
    }

    /// What came so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// What came so far and was refused.
    #[must_use]
    pub fn refused(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.answer.refuses()).collect()
    }

    /// The first `count` calls to a vendor, once they are there.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn wait_for(&self, vendor: &Vendor, count: usize) -> Vec<Call> {
        let to = |calls: &Vec<Call>| -> Vec<Call> {
            calls.iter().filter(|call| call.vendor.kind == vendor.kind).take(count).cloned().collect()
        };
        let mut calls = self.calls.subscribe();
        let what = format!("{count} calls to {}", vendor.host);
        let enough = within(&what, calls.wait_for(|calls| to(calls).len() == count)).await;
        to(&enough.expect("the server lives"))
    }
}
