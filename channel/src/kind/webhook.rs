//! A signed POST: Standard Webhooks, and the plain signature that older receivers know.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use klaxon_model::signature;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use url::Url;
use uuid::Uuid;

use super::header;
use crate::config::{Config, ConfigError, Field, Given, Rules, field};
use crate::form::{Form, Post, Request};
use crate::message::Message;

/// A signed POST.
pub(super) struct Webhook {
    /// Where to.
    url: Url,
    /// Headers beside ours.
    headers: Vec<(String, Given)>,
    /// What to sign with, and what was signed with before, while receivers change over.
    secrets: Vec<Given>,
    /// Where the plain signature goes.
    signature_header: String,
}

impl Config for Webhook {
    const FIELDS: &'static [Field] = &[
        Field::plain("url"),
        Field::secrets("headers"),
        Field::secret("hmac_secret"),
        Field::secret("previous_hmac_secret"),
        Field::plain("signature_header"),
    ];

    fn read(map: &Map<String, Value>, rules: &Rules) -> Result<Self, ConfigError> {
        let url = field::url("url", field::required(map, "url")?, rules.allow_http)?;
        let signature_header = header::signature(map)?;
        let headers = header::headers(map, &signature_header)?;
        let mut secrets = Vec::new();
        for name in ["hmac_secret", "previous_hmac_secret"] {
            let Some(secret) = field::secret(map, name)? else { continue };
            if let Given::Clear(secret) = &secret {
                signature::check_secret(secret)
                    .map_err(|problem| ConfigError::new(name, problem, "After whsec_ comes base64."))?;
            }
            secrets.push(secret);
        }
        if map.contains_key("previous_hmac_secret") && !map.contains_key("hmac_secret") {
            return Err(ConfigError::new(
                "previous_hmac_secret",
                "needs \"hmac_secret\"",
                "It is the one before it.",
            ));
        }
        Ok(Self { url, headers, secrets, signature_header })
    }
}

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
    fn destination(&self) -> Option<String> {
        Some(field::origin(&self.url))
    }

    fn secrets(&self, strike: &mut dyn FnMut(&str)) {
        self.headers.iter().for_each(|(_, value)| header::strike(value.clear().unwrap_or_default(), strike));
        self.secrets.iter().for_each(|secret| strike(secret.clear().unwrap_or_default()));
    }

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
        let mut headers = HeaderMap::with_capacity(9 + self.headers.len());
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().map_err(|_| format!("header {name} cannot be sent"))?;
            let mut value = plain(value.clear()?)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let id = delivery.id.to_string();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("webhook-id", plain(&id)?);
        headers.insert("webhook-timestamp", message.now.into());
        if let Some(traceparent) = delivery.traceparent {
            headers.insert("traceparent", plain(&traceparent.to_string())?);
        }
        let sign = |secret: &Given| {
            Ok::<_, String>(signature::standard_webhooks(secret.clear()?, &id, message.now, &body))
        };
        if let Some(secret) = self.secrets.first() {
            let signatures = self.secrets.iter().map(sign).collect::<Result<Vec<_>, _>>()?;
            headers.insert("webhook-signature", plain(&signatures.join(" "))?);
            let name: HeaderName =
                self.signature_header.parse().map_err(|_| "signature_header cannot be sent".to_owned())?;
            headers.insert(name, plain(&signature::plain(secret.clear()?, &body))?);
        }
        Ok(Request::Http(Post { url: self.url.clone(), headers, body: body.into() }))
    }
}

fn plain(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "a header's value cannot be sent".to_owned())
}
