//! A collector of spans: takes OTLP over HTTPS, and reads it by OpenTelemetry's own definitions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use crate::authority::Authority;
use crate::counterpart::{SPANS, Script};
use crate::https::{self, Server};
use crate::limit::within;

/// The name in its certificate.
pub const HOST: &str = "collector.test";
/// Where it takes spans: the worker adds `/v1/traces` to the path that it is given.
pub const ENDPOINT: &str = "https://collector.test/otlp";
/// The header it asks for, as the worker is told of it.
pub const HEADERS: &str = "authorization=Bearer%20opensesame";

/// The collector; it ends with its drop.
pub struct Collector {
    server: Server,
    script: Script,
    state: Arc<Mutex<State>>,
    /// How many requests there were.
    requests: watch::Receiver<usize>,
    /// What was read of those looked at.
    spans: Vec<Value>,
    read: usize,
}

#[derive(Default)]
struct State {
    bodies: Vec<Bytes>,
    answers: VecDeque<u16>,
    /// Requests that were not as the protocol has them.
    wrong: Vec<String>,
}

impl Collector {
    /// Starts one that answers with these statuses, and 200 after them.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(authority: &Authority, answers: &[u16]) -> Self {
        let state = Arc::new(Mutex::new(State { answers: answers.to_vec().into(), ..State::default() }));
        let (count, requests) = watch::channel(0);
        let answer = {
            let state = Arc::clone(&state);
            move |head: hyper::http::request::Parts, body: Bytes| {
                let mut state = state.lock().expect("no panic while locked");
                let header = |name| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
                let said =
                    [head.method.as_str(), head.uri.path(), header("content-type"), header("authorization")];
                if said != ["POST", "/otlp/v1/traces", "application/x-protobuf", "Bearer opensesame"] {
                    state.wrong.push(said.join(" "));
                }
                let status = state.answers.pop_front().unwrap_or(200);
                if status == 200 {
                    state.bodies.push(body);
                }
                count.send_modify(|count| *count += 1);
                std::future::ready(https::response(status, ""))
            }
        };
        let server = Server::start(authority, &[HOST], answer).await.expect("the collector starts");
        let script = Script::start(SPANS).unwrap_or_else(|error| panic!("{error:#}"));
        Self { server, script, state, requests, spans: Vec::new(), read: 0 }
    }

    /// The worker's `connect-to` for it.
    #[must_use]
    pub fn connect_to(&self) -> String {
        self.server.connect_to(HOST)
    }

    /// The spans that it was sent in `count` requests or more, refused ones not among them.
    ///
    /// # Panics
    /// When they do not come, or a request was not as the protocol has it.
    pub async fn spans_of(&mut self, count: usize) -> Vec<Value> {
        let waited = self.requests.wait_for(|requests| *requests >= count);
        within("requests to the collector", waited).await.expect("it lives");
        self.look().await
    }

    /// Waits for `count` spans; all there are then.
    ///
    /// # Panics
    /// As [`Collector::spans_of`].
    pub async fn spans(&mut self, count: usize) -> Vec<Value> {
        loop {
            let seen = *self.requests.borrow_and_update();
            if self.look().await.len() >= count {
                return self.spans.clone();
            }
            if seen == *self.requests.borrow() {
                within("more spans", self.requests.changed()).await.expect("it lives");
            }
        }
    }

    async fn look(&mut self) -> Vec<Value> {
        let bodies = {
            let state = self.state.lock().expect("no panic while locked");
            assert!(state.wrong.is_empty(), "{:?}", state.wrong);
            state.bodies[self.read..].to_vec()
        };
        for body in bodies {
            self.read += 1;
            let read = self.script.ask(&STANDARD.encode(body).into()).await;
            self.spans.extend(read.as_array().expect("a list").iter().cloned());
        }
        self.spans.clone()
    }
}
