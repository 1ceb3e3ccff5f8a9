//! What is measured, under the names that Prometheus reads: `ops/` has a dashboard and alerts of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::sleep;

use crate::observe::Gauges;

/// Attempts, by kind of channel, type of event and outcome.
const ATTEMPTS: &str = "klaxon_attempts_total";
/// How long attempts took, in seconds, by kind of channel.
const DURATION: &str = "klaxon_attempt_duration_seconds";
/// From the emitting transaction to the receiver's answer, in seconds, by kind of channel.
const LATENCY: &str = "klaxon_commit_to_delivery_seconds";
/// Attempts that are being made.
const IN_FLIGHT: &str = "klaxon_in_flight";
/// Shards that this worker owns, of 64 in each database.
const SHARDS: &str = "klaxon_owned_shards";
/// Channels that this worker leaves alone for a while.
const CIRCUITS: &str = "klaxon_open_circuits";
/// Databases that are being served.
const SERVED: &str = "klaxon_databases_served";
/// Always 1, with the version.
const BUILD: &str = "klaxon_build_info";
/// Spans, by what became of them.
const SPANS: &str = "klaxon_spans_total";
/// How often samples become counts: until then each takes memory, and nobody need ever ask for them.
const UPKEEP: Duration = Duration::from_secs(5);

/// What a metric is, as Prometheus and `docs/reference/metrics.md` are told of it.
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it is counted.
    pub kind: Kind,
    /// What it is counted by.
    pub labels: &'static [&'static str],
    /// What it says.
    pub says: &'static str,
}

/// How a metric is counted.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Only up.
    Counter,
    /// By size, in seconds.
    Histogram,
    /// Up and down.
    Gauge,
}

impl Kind {
    /// As Prometheus calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Histogram => "histogram",
            Self::Gauge => "gauge",
        }
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], says: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, says }
}

/// What a worker says of itself.
pub const OWN: [Metric; 9] = [
    Metric {
        name: ATTEMPTS,
        kind: Kind::Counter,
        labels: &["kind", "type", "outcome"],
        says: "Attempts to deliver; outcome is sent, failed (will be tried again) or dead",
    },
    Metric {
        name: DURATION,
        kind: Kind::Histogram,
        labels: &["kind"],
        says: "From resolving the name to the last byte read",
    },
    Metric {
        name: LATENCY,
        kind: Kind::Histogram,
        labels: &["kind"],
        says: "From the beginning of the transaction that wrote a delivery to the answer that it arrived",
    },
    Metric {
        name: SPANS,
        kind: Kind::Counter,
        labels: &["outcome"],
        says: "Spans of attempts that were exported, or dropped; absent where none are",
    },
    gauge(IN_FLIGHT, &[], "Attempts that are being made"),
    gauge(SHARDS, &["database"], "Shards that this worker owns, of 64"),
    gauge(CIRCUITS, &["database"], "Channels that do not answer and are left alone for a while"),
    gauge(SERVED, &[], "Databases that this worker has a session with"),
    gauge(BUILD, &["version"], "Always 1"),
];

/// What the database says of itself, whichever worker is asked.
pub const DATABASE: [Metric; 11] = [
    gauge(
        "klaxon_database_up",
        &["database"],
        "1 where the database answered what the gauges after it were asked of, else 0, and they are NaN",
    ),
    gauge("klaxon_workers_alive", &["database"], "Workers of the database that were heard of within 10 s"),
    gauge("klaxon_pending_deliveries", &["database"], "Deliveries that are pending"),
    gauge("klaxon_oldest_pending_seconds", &["database"], "Since the oldest pending delivery was written"),
    gauge(
        "klaxon_overdue_seconds",
        &["database"],
        "How long the next attempt of an enabled channel is overdue at most",
    ),
    gauge("klaxon_dead_letters", &["database"], "Deliveries that were given up"),
    gauge("klaxon_failing_channels", &["database"], "Channels whose last attempt failed"),
    gauge("klaxon_disabled_channels", &["database"], "Channels that are disabled"),
    gauge("klaxon_audit_head", &["database"], "The last row of the audit log, which counts from 1"),
    gauge(
        "klaxon_audit_unsealed",
        &["database"],
        "Rows of the audit log without a seal, and changes that are not in it yet",
    ),
    gauge(
        "klaxon_notify_queue_usage",
        &["database"],
        "How much of the server's queue of notifications is taken, from 0 to 1: at 1 whoever notifies is refused",
    ),
];

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

    /// Whether all of them are.
    pub fn all(&self, databases: usize) -> bool {
        self.0.load(Ordering::Relaxed) >= databases
    }
}

/// Takes in an attempt: `since_commit` is the time since the transaction that wrote the delivery began, where
/// this attempt delivered it.
pub fn attempt(
    kind: &'static str,
    event_type: &str,
    outcome: &'static str,
    took: Duration,
    since_commit: Option<Duration>,
) {
    metrics::counter!(ATTEMPTS, "kind" => kind, "type" => event_type.to_owned(), "outcome" => outcome)
        .increment(1);
    metrics::histogram!(DURATION, "kind" => kind).record(took.as_secs_f64());
    if let Some(latency) = since_commit {
        metrics::histogram!(LATENCY, "kind" => kind).record(latency.as_secs_f64());
    }
}

/// Takes in spans that were `exported`, or `dropped` for whatever reason. There is nothing of it where none are.
pub fn spans(outcome: &'static str, count: u64) {
    metrics::counter!(SPANS, "outcome" => outcome).increment(count);
}

/// What an engine knows, a heartbeat old at most.
pub fn engine(database: &str, shards: usize, circuits: usize) {
    metrics::gauge!(SHARDS, "database" => database.to_owned()).set(shards as f64);
    metrics::gauge!(CIRCUITS, "database" => database.to_owned()).set(circuits as f64);
}

/// What is read from all of it.
pub struct Recorder(PrometheusHandle);

impl Recorder {
    /// Begins to record. Within a runtime: what is recorded is kept up from time to time.
    ///
    /// # Errors
    /// Where one is there already.
    pub fn install() -> anyhow::Result<Self> {
        let attempts = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        // Up to the last of the usual attempts, which is days later.
        let latencies = [
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0,
            86_400.0,
        ];
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(DURATION.into()), &attempts)?
            .set_buckets_for_metric(Matcher::Full(LATENCY.into()), &latencies)?
            .install_recorder()
            .context("metrics")?;
        for metric in OWN.iter().chain(&DATABASE) {
            match metric.kind {
                Kind::Counter => metrics::describe_counter!(metric.name, metric.says),
                Kind::Histogram => metrics::describe_histogram!(metric.name, Unit::Seconds, metric.says),
                Kind::Gauge => metrics::describe_gauge!(metric.name, metric.says),
            }
        }
        metrics::gauge!(SERVED).set(0.0);
        metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        tokio::spawn({
            let handle = handle.clone();
            async move {
                loop {
                    sleep(UPKEEP).await;
                    handle.run_upkeep();
                }
            }
        });
        Ok(Self(handle))
    }

    /// The text that Prometheus reads. Of a database that did not answer the gauges are NaN: what they were is
    /// not what they are.
    pub fn render(&self, in_flight: usize, databases: &[(&str, Option<Gauges>)]) -> String {
        metrics::gauge!(IN_FLIGHT).set(in_flight as f64);
        for (database, gauges) in databases {
            let up = f64::from(u8::from(gauges.is_some()));
            let values = gauges.as_ref().map_or([f64::NAN; 10], Gauges::values);
            for (metric, value) in DATABASE.iter().zip([up].into_iter().chain(values)) {
                metrics::gauge!(metric.name, "database" => (*database).to_owned()).set(value);
            }
        }
        self.0.run_upkeep();
        self.0.render()
    }
}
