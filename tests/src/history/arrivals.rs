//! A receiver that answers by a rule and writes down what arrives, and when.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::http::request::Parts;
use serde::Deserialize;
use tokio::time::sleep;
use uuid::Uuid;

use super::now;
use crate::authority::Authority;
use crate::https::{self, Server};

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

/// The receiver; it ends with its drop.
pub struct Receiver {
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    server: Server,
}

impl Receiver {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// No port, or no certificate.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        let arrivals = Arc::<Mutex<Vec<Arrival>>>::default();
        let log = Arc::clone(&arrivals);
        let server =
            Server::start(authority, &[HOST], move |head, body| receive(Arc::clone(&log), head, body));
        Ok(Self { arrivals, server: server.await? })
    }

    /// The worker's `connect-to` for it.
    #[must_use]
    pub fn connect_to(&self) -> String {
        self.server.connect_to(HOST)
    }

    /// What has arrived.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().expect("no panic while locked").clone()
    }
}

async fn receive(
    log: Arc<Mutex<Vec<Arrival>>>,
    head: Parts,
    body: Bytes,
) -> hyper::Response<http_body_util::Full<Bytes>> {
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
    log.lock().expect("no panic while locked").push(arrival);
    if slow {
        sleep(Duration::from_millis(30 * chance as u64)).await;
    }
    https::response(status, "")
}
