//! What Prometheus and an orchestrator ask of the worker: `/metrics`, `/healthz`, `/readyz`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Attempts, by kind of channel and outcome.
const ATTEMPTS: &str = "klaxon_attempts_total";
/// How long attempts took, in seconds, by kind of channel.
const DURATION: &str = "klaxon_attempt_duration_seconds";
/// Databases that are being served.
const SERVED: &str = "klaxon_databases_served";
/// How often samples become counts: until then each takes memory, and nobody need ever ask for them.
const UPKEEP: Duration = Duration::from_secs(5);

/// How many of the databases are being served.
#[derive(Debug, Default)]
pub struct Served(AtomicUsize);

impl Served {
    /// A session with one of them begins.
    pub fn begin(&self) {
        let served = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        metrics::gauge!(SERVED).set(served as f64);
    }

    /// It ended.
    pub fn end(&self) {
        let served = self.0.fetch_sub(1, Ordering::Relaxed) - 1;
        metrics::gauge!(SERVED).set(served as f64);
    }

    fn all(&self, databases: usize) -> bool {
        self.0.load(Ordering::Relaxed) >= databases
    }
}

/// Counts an attempt.
pub fn attempt(kind: &'static str, outcome: &'static str, took: Duration) {
    metrics::counter!(ATTEMPTS, "kind" => kind, "outcome" => outcome).increment(1);
    metrics::histogram!(DURATION, "kind" => kind).record(took.as_secs_f64());
}

/// Serves the three paths until the process ends. That the address is taken, by another worker on
/// this host perhaps, is a warning: deliveries do not depend on it.
///
/// # Errors
/// Where the recorder is there already.
pub async fn serve(address: SocketAddr, served: Arc<Served>, databases: usize) -> anyhow::Result<()> {
    let buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(DURATION.into()), &buckets)?
        .install_recorder()
        .context("metrics")?;
    metrics::describe_counter!(ATTEMPTS, "Attempts to deliver");
    metrics::describe_histogram!(
        DURATION,
        metrics::Unit::Seconds,
        "From resolving the name to the last byte read"
    );
    metrics::describe_gauge!(SERVED, "Databases that are being served");
    metrics::gauge!(SERVED).set(0.0);
    tokio::spawn({
        let handle = handle.clone();
        async move {
            loop {
                sleep(UPKEEP).await;
                handle.run_upkeep();
            }
        }
    });
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%address, %error, "metrics are not served");
            return Ok(());
        }
    };
    tracing::info!(address = %listener.local_addr()?, "serving metrics");
    tokio::spawn(async move {
        loop {
            // A connection that broke before it was accepted is its client's affair.
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (handle, served) = (handle.clone(), Arc::clone(&served));
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer = answer(&request, &handle, served.all(databases));
                    async move { Ok::<_, Infallible>(answer) }
                });
                // What a client does to its own connection needs no line in the log.
                let _ = hyper::server::conn::http1::Builder::new()
                    .header_read_timeout(None)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(())
}

fn answer(request: &Request<Incoming>, metrics: &PrometheusHandle, ready: bool) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            metrics.run_upkeep();
            (StatusCode::OK, metrics.render())
        }
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".into()),
        (&Method::GET | &Method::HEAD, "/readyz") if ready => (StatusCode::OK, "ok\n".into()),
        (&Method::GET | &Method::HEAD, "/readyz") => {
            (StatusCode::SERVICE_UNAVAILABLE, "not every database is being served\n".into())
        }
        _ => (StatusCode::NOT_FOUND, "/metrics, /healthz and /readyz are here\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}
