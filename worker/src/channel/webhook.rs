//! A signed POST: Standard Webhooks, and the plain signature that older receivers know.

use bytes::Bytes;
use klaxon_model::channel::Webhook;
use klaxon_model::signature;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::message::Message;
use super::{Form, Request, sensitive};
use crate::egress::Post;

/// What is posted. The payload is carried as Postgres printed it, digit for digit.
#[derive(Serialize)]
struct Body<'a> {
    id: Uuid,
    r#type: &'a str,
    timestamp: String,
    project: Option<&'a str>,
    attempt: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_back: Option<i64>,
    url: Option<&'a str>,
    data: &'a RawValue,
}

/// What a receiver is told of a digest: its payload without what is for people's eyes.
#[derive(Deserialize, Serialize)]
struct Digest<'a> {
    #[serde(borrow)]
    count: &'a RawValue,
    #[serde(borrow)]
    held_back: &'a RawValue,
    #[serde(borrow)]
    events: &'a RawValue,
}

fn digest(payload: &RawValue) -> serde_json::Result<Box<RawValue>> {
    let digest: Digest<'_> = serde_json::from_str(payload.get())?;
    serde_json::value::to_raw_value(&digest)
}

impl Form for Webhook {
    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let delivery = message.delivery;
        let unwritable = |error| format!("the message cannot be written: {error}");
        let is_digest = delivery.is_digest();
        let digest = is_digest.then(|| digest(&delivery.payload)).transpose().map_err(unwritable)?;
        let body = serde_json::to_vec(&Body {
            // A digest is no event: its delivery is what it is known by.
            id: delivery.event_id.unwrap_or(delivery.id),
            r#type: &delivery.event_type,
            timestamp: message.occurred_at(),
            project: delivery.project.as_deref().map(|project| project.slug.as_str()),
            attempt: delivery.attempt,
            held_back: (delivery.held_back > 0 && !is_digest).then_some(delivery.held_back),
            url: message.url.as_deref(),
            data: digest.as_deref().unwrap_or(&delivery.payload),
        })
        .map_err(unwritable)?;
        let mut headers = HeaderMap::with_capacity(8 + self.headers.len());
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().map_err(|_| format!("header {name} cannot be sent"))?;
            headers.insert(name, sensitive(value)?);
        }
        let id = delivery.id.to_string();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("webhook-id", plain(&id)?);
        headers.insert("webhook-timestamp", message.now.into());
        if let Some(secret) = &self.hmac_secret {
            let mut signatures =
                vec![signature::standard_webhooks(secret.expose_secret(), &id, message.now, &body)];
            if let Some(previous) = &self.previous_hmac_secret {
                signatures.push(signature::standard_webhooks(
                    previous.expose_secret(),
                    &id,
                    message.now,
                    &body,
                ));
            }
            headers.insert("webhook-signature", plain(&signatures.join(" "))?);
            let name: HeaderName =
                self.signature_header.parse().map_err(|_| "signature_header cannot be sent".to_owned())?;
            headers.insert(name, plain(&signature::plain(secret.expose_secret(), &body))?);
        }
        Ok(Request::Http(Post { url: self.url.clone(), headers, body: Bytes::from(body) }))
    }
}

fn plain(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "a header's value cannot be sent".to_owned())
}
