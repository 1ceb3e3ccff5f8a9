//! A receiver that answers by a rule and writes down what arrives, and when.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::http::request::Parts;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use super::now;
use crate::authority::Authority;
use crate::https::{self, Server};
use crate::limit::within_time;

/// The name in the receiver's certificate.
pub const HOST: &str = "history.test";

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The channel: the path, without its slash.
    pub channel: String,
    /// `webhook-id`.
    pub delivery: Uuid,
    /// The event.
    pub event: Uuid,
    /// The attempt it says it is.
    pub attempt: i32,
    /// Seconds since 1970.
    pub at: f64,
    /// What was answered.
    pub status: u16,
}

#[derive(Deserialize)]
struct Body {
    id: Uuid,
    attempt: i32,
}

/// What has arrived.
#[derive(Default)]
pub struct Log {
    arrivals: Mutex<Vec<Arrival>>,
    count: watch::Sender<usize>,
}

impl Log {
    /// Writes an arrival down.
    pub fn write(&self, arrival: Arrival) {
        let mut arrivals = self.arrivals.lock().expect("no panic while locked");
        arrivals.push(arrival);
        self.count.send_replace(arrivals.len());
    }
}

/// The receiver; it ends with its drop.
pub struct Receiver {
    log: Arc<Log>,
    server: Server,
}

impl Receiver {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// No port, or no certificate.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        let log = Arc::<Log>::default();
        let writes = Arc::clone(&log);
        let server =
            Server::start(authority, &[HOST], move |head, body| receive(Arc::clone(&writes), head, body));
        Ok(Self { log, server: server.await? })
    }

    /// The worker's `connect-to` for it.
    #[must_use]
    pub fn connect_to(&self) -> String {
        self.server.connect_to(HOST)
    }

    /// What has arrived.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.log.arrivals.lock().expect("no panic while locked").clone()
    }

    /// How many have arrived.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.log.count.borrow()
    }

    /// What it writes them down in, for receivers of other manners.
    #[must_use]
    pub fn log(&self) -> Arc<Log> {
        Arc::clone(&self.log)
    }

    /// Waits until so many have arrived.
    ///
    /// # Panics
    /// When they do not within `limit`.
    pub async fn wait_for(&self, limit: Duration, count: usize) {
        let mut counted = self.log.count.subscribe();
        let wait = counted.wait_for(|there| *there >= count);
        within_time(limit, &format!("{count} arrivals"), wait).await.expect("we hold the sender");
    }

    /// Waits until an event that was emitted after the first `from` arrivals has been accepted at so many channels.
    ///
    /// # Panics
    /// When it has not been within `limit`.
    pub async fn wait_for_event(&self, limit: Duration, event: Uuid, channels: usize, from: usize) {
        let (mut counted, mut from, mut at) = (self.log.count.subscribe(), from, HashSet::new());
        within_time(limit, &format!("{event} at {channels} channels"), async {
            loop {
                let there = *counted.borrow_and_update();
                for arrival in &self.log.arrivals.lock().expect("no panic while locked")[from..there] {
                    if arrival.event == event && arrival.status == 200 {
                        at.insert(arrival.channel.clone());
                    }
                }
                from = there;
                if at.len() >= channels {
                    return;
                }
                counted.changed().await.expect("we hold the sender");
            }
        })
        .await;
    }
}

async fn receive(log: Arc<Log>, head: Parts, body: Bytes) -> hyper::Response<http_body_util::Full<Bytes>> {
    let at = now();
    let id = head.headers.get("webhook-id").and_then(|id| Uuid::try_parse_ascii(id.as_bytes()).ok());
    let (Some(delivery), Ok(body)) = (id, serde_json::from_slice::<Body>(&body)) else {
        return https::response(400, "");
    };
    let channel = head.uri.path().trim_start_matches('/').to_owned();
    // By the delivery, so that it is the same whenever and by whomever it is sent.
    let chance = delivery.as_u128() % 8;
    let status = if channel == "flaky" && chance == 0 && body.attempt == 1 { 503 } else { 200 };
    let arrival = Arrival { delivery, event: body.id, attempt: body.attempt, at, status, channel };
    let slow = arrival.channel == "slow";
    log.write(arrival);
    if slow {
        sleep(Duration::from_millis(30 * chance as u64)).await;
    }
    https::response(status, "")
}
