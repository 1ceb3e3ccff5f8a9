//! A signed POST: Standard Webhooks, and the plain signature that older receivers know.

use bytes::Bytes;
use klaxon_model::channel::Webhook;
use klaxon_model::signature;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use serde::Serialize;
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

impl Form for Webhook {
    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let delivery = message.delivery;
        let body = serde_json::to_vec(&Body {
            id: delivery.event_id,
            r#type: &delivery.event_type,
            timestamp: message.occurred_at(),
            project: delivery.project.as_deref().map(|project| project.slug.as_str()),
            attempt: delivery.attempt,
            held_back: (delivery.held_back > 0).then_some(delivery.held_back),
            url: message.url.as_deref(),
            data: &delivery.payload,
        })
        .map_err(|error| format!("the message cannot be written: {error}"))?;
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
