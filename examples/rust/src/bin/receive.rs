//! Receives webhooks with axum, and believes those that are signed (Standard Webhooks,
//! https://www.standardwebhooks.com).
//!
//! WEBHOOK_SECRET=whsec_… cargo run --bin receive 8080

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Seconds: an old message is somebody's who kept it.
const TOLERANCE: u64 = 300;

struct Receiver {
    key: Vec<u8>,
    /// Of a database, where it is to outlive the process.
    seen: Mutex<HashSet<String>>,
}

fn is_genuine(key: &[u8], headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let header = |name| headers.get(name)?.to_str().ok();
    let (id, sent) = (header("webhook-id")?, header("webhook-timestamp")?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    if now.abs_diff(sent.parse().ok()?) > TOLERANCE {
        return None;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(format!("{id}.{sent}.").as_bytes());
    mac.update(body);
    // While a secret is renewed there is more than one.
    header("webhook-signature")?
        .split(' ')
        .filter_map(|part| STANDARD.decode(part.strip_prefix("v1,")?).ok())
        // In constant time.
        .any(|given| mac.clone().verify_slice(&given).is_ok())
        .then(|| id.to_owned())
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Some(id) = is_genuine(&receiver.key, &headers, &body) else { return StatusCode::UNAUTHORIZED };
    // The same id: the same message, sent again.
    let is_new = receiver.seen.lock().is_ok_and(|mut seen| seen.insert(id));
    if is_new && let Ok(event) = serde_json::from_slice::<serde_json::Value>(&body) {
        println!("received {}", event["type"].as_str().unwrap_or_default());
    }
    StatusCode::NO_CONTENT
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = std::env::var("WEBHOOK_SECRET")?;
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded)?,
        None => secret.into_bytes(),
    };
    let port: u16 = std::env::args().nth(1).ok_or("which port?")?.parse()?;
    let receiver = Arc::new(Receiver { key, seen: Mutex::default() });
    let service = Router::new().route("/", post(receive)).with_state(receiver);
    axum::serve(tokio::net::TcpListener::bind(("127.0.0.1", port)).await?, service).await?;
    Ok(())
}
