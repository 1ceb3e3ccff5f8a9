//! Spans on their way to where they are collected: over HTTP, as protobuf, gathered.
//!
//! Whoever collects them may be slow or away for as long as they like. What waits is bounded in number, and a
//! span bounded in size, so what is over is dropped and counted; and nothing that delivers waits here.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use klaxon_channel::form::Post;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::mpsc::{self, Receiver};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use url::Url;

use super::otlp::{self, Resource};
use super::{Span, Tracer};
use crate::egress::{Guard, GuardOptions, Http};
use crate::metrics;

/// Spans that wait to be gathered.
const QUEUE: usize = 4096;
/// Spans of one request.
const BATCH: usize = 512;
/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How often a request is made that might succeed another time, and how long it pauses first; twice as long then.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);
/// How long a worker that stops waits for its last spans at most.
const FAREWELL: Duration = Duration::from_secs(3);

/// Where spans go.
pub struct Options {
    /// The collector; `/v1/traces` follows its path.
    pub endpoint: Url,
    /// What it is sent beside them, as [`headers`] reads it.
    pub headers: Option<SecretString>,
    /// Timeouts and certificates, as for channels.
    pub guard: GuardOptions,
    /// Where this worker runs.
    pub host: String,
    /// Whose it is.
    pub deployment: Option<String>,
}

/// What exports until it is told to finish.
pub struct Exporting {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Exports what is left, and drops what is not gone by its time, which is as much as `left` at most.
    pub async fn finish(self, left: Duration) {
        let _ = self.stop.send(true);
        let _ = timeout(FAREWELL.min(left), self.task).await;
    }
}

/// Reads `OTEL_EXPORTER_OTLP_HEADERS`: `name=value,name=value`, the values percent-encoded.
///
/// # Errors
/// Where it is something else; without saying what, for a header is a credential.
pub fn headers(text: &str) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').context("otlp-headers is not name=value,name=value")?;
        let name: HeaderName = name.trim().parse().context("otlp-headers has a name that is no header's")?;
        let value = percent_decode_str(value.trim()).decode_utf8().context("otlp-headers is not UTF-8")?;
        let mut value =
            HeaderValue::from_str(&value).context("otlp-headers has a value that is no header's")?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

impl Tracer {
    /// A tracer whose spans are exported, by a task of its own.
    ///
    /// # Errors
    /// Where certificates, resolver configuration or headers do not read.
    pub fn exporting(options: Options) -> anyhow::Result<(Self, Exporting)> {
        let Options { endpoint, headers: given, guard, host, deployment } = options;
        let mut url = endpoint;
        match url.path_segments_mut() {
            Ok(mut path) => drop(path.pop_if_empty().extend(["v1", "traces"])),
            Err(()) => bail!("otlp-endpoint has no path"),
        }
        // The operator says where spans go, so the policy for what users name does not apply: it is all open.
        let guard = GuardOptions {
            allow_http: true,
            allow_ports: url.port().into_iter().collect(),
            egress_allow: vec!["0.0.0.0/0".parse()?, "::/0".parse()?],
            ..guard
        };
        let mut headers = headers(given.as_ref().map_or("", |given| given.expose_secret()))?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let (spans, receiver) = mpsc::channel(QUEUE);
        let (stop, stopped) = watch::channel(false);
        // So that there is a rate from the first one on.
        metrics::spans("exported", 0);
        metrics::spans("dropped", 0);
        let exporter = Exporter {
            http: Http::new(Arc::new(Guard::new(guard)?))?,
            url,
            headers,
            resource: Resource::new(&host, deployment.as_deref()),
            spans: receiver,
            stop: stopped,
            stopping: false,
            batch: Vec::new(),
            failing: false,
        };
        Ok((Self { spans: Some(spans) }, Exporting { stop, task: tokio::spawn(exporter.run()) }))
    }
}

/// Until it is to stop; whoever could tell being gone is that, too.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

struct Exporter {
    http: Http,
    url: Url,
    headers: HeaderMap,
    resource: Resource,
    spans: Receiver<Span>,
    stop: watch::Receiver<bool>,
    stopping: bool,
    batch: Vec<Span>,
    /// Whether the last request failed: it is logged once, not each time.
    failing: bool,
}

/// Why spans were not taken.
struct Failure {
    reason: String,
    /// Whether it may go by.
    passes: bool,
}

impl Exporter {
    async fn run(mut self) {
        while self.gather().await {
            self.export().await;
        }
    }

    /// Waits for spans, and a while for others with them. Says whether there are any: there are none once it is
    /// to stop and all are gone.
    async fn gather(&mut self) -> bool {
        self.batch.clear();
        let mut until = None;
        while self.batch.len() < BATCH {
            let enough = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                span = self.spans.recv() => match span {
                    None => break,
                    Some(span) => {
                        self.batch.push(span);
                        until.get_or_insert_with(|| Instant::now() + GATHER);
                    }
                },
                () = enough => break,
                () = told(&mut self.stop), if !self.stopping => self.halt(),
            }
        }
        !self.batch.is_empty()
    }

    /// Takes no more, and does not wait any longer.
    fn halt(&mut self) {
        self.stopping = true;
        self.spans.close();
    }

    async fn export(&mut self) {
        let body = bytes::Bytes::from(self.resource.export(&self.batch));
        let count = self.batch.len() as u64;
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            let post = Post { url: self.url.clone(), headers: self.headers.clone(), body: body.clone() };
            match self.post(post).await {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    metrics::spans("exported", count - rejected);
                    metrics::spans("dropped", rejected);
                    if rejected > 0 {
                        tracing::warn!(rejected, "spans were rejected by their collector");
                    }
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("spans are exported again");
                    }
                    return;
                }
                Err(Failure { reason, passes }) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(reason, "spans are not exported");
                    }
                    if !passes || self.stopping || attempt == TRIES {
                        break;
                    }
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = told(&mut self.stop) => self.halt(),
            }
            pause *= 2;
        }
        metrics::spans("dropped", count);
    }

    /// Posts spans; how many were rejected.
    async fn post(&self, post: Post) -> Result<u64, Failure> {
        let reply = self.http.post(post).await;
        let reply = reply.map_err(|error| Failure { reason: error.to_string(), passes: true })?;
        match reply.status {
            200..=299 => Ok(otlp::rejected(&reply.body)),
            // Those of which the protocol's specification says so.
            status @ (429 | 502 | 503 | 504) => {
                Err(Failure { reason: format!("HTTP {status}"), passes: true })
            }
            status => Err(Failure { reason: format!("HTTP {status}"), passes: false }),
        }
    }
}
