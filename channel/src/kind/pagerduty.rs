//! PagerDuty Events API v2: an incident is triggered, and resolved by the event that ends it.

use std::collections::BTreeMap;

use klaxon_model::event_type::{Severity, is_name};
use serde_json::{Map, Value, json};

use crate::answer::{Means, Row};
use crate::config::{Config, ConfigError, Field, Given, Rules, field};
use crate::form::{Form, Request};
use crate::message::Message;
use crate::text::cut;

const ORIGIN: &str = "https://events.pagerduty.com";
/// PagerDuty's limits: characters of a summary and of a key, and room within its 512 kB: a payload
/// travels as a string, in which each of its quotes becomes two characters.
const SUMMARY: usize = 1024;
const KEY: usize = 255;
const DETAILS: usize = 128 * 1024;

/// PagerDuty Events v2.
pub(super) struct Pagerduty {
    /// The service's key.
    integration_key: Given,
    /// Where neither the map nor the event type says.
    severity_default: Severity,
    /// From event type or severity to severity.
    severity_map: BTreeMap<String, Severity>,
}

impl Config for Pagerduty {
    const FIELDS: &'static [Field] =
        &[Field::secret("integration_key"), Field::plain("severity_default"), Field::plain("severity_map")];

    fn read(map: &Map<String, Value>, _: &Rules) -> Result<Self, ConfigError> {
        let integration_key = field::required_secret(map, "integration_key")?;
        if let Given::Clear(key) = &integration_key
            && (key.len() != 32 || !key.bytes().all(|b| b.is_ascii_alphanumeric()))
        {
            return Err(ConfigError::new(
                "integration_key",
                "is not 32 letters and digits",
                "It is the service's Events API v2 key.",
            ));
        }
        let severity_default = match field::text(map, "severity_default")? {
            Some(word) => severity("severity_default", word)?,
            None => Severity::Warning,
        };
        Ok(Self { integration_key, severity_default, severity_map: severity_map(map)? })
    }
}

fn severity_map(map: &Map<String, Value>) -> Result<BTreeMap<String, Severity>, ConfigError> {
    let Some(value) = map.get("severity_map") else { return Ok(BTreeMap::new()) };
    let Value::Object(entries) = value else {
        return Err(ConfigError::new(
            "severity_map",
            "must be an object",
            "It maps an event type or severity to a severity.",
        ));
    };
    let read = |(from, to): (&String, &Value)| {
        if !is_name(from) {
            return Err(ConfigError::new(
                "severity_map",
                format!("maps \"{}\", which is no event type", field::shown(from)),
                "Keys are event types or severities.",
            ));
        }
        Ok((from.clone(), severity("severity_map", to.as_str().unwrap_or_default())?))
    };
    entries.iter().map(read).collect()
}

fn severity(field: &str, word: &str) -> Result<Severity, ConfigError> {
    word.parse().map_err(|_| {
        ConfigError::new(field, "is no severity", "There are critical, error, warning and info.")
    })
}

/// developer.pagerduty.com/docs/events-api-v2-overview, "Response Codes & Retry Logic".
static ANSWERS: [Row; 1] = [
    // "invalid event": it will be invalid tomorrow as well.
    Row::of(400, Means::Dead),
];

impl Form for Pagerduty {
    fn destination(&self) -> Option<String> {
        Some(format!("{ORIGIN}:443"))
    }

    fn secrets(&self, strike: &mut dyn FnMut(&str)) {
        strike(self.integration_key.clear().unwrap_or_default());
    }

    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let delivery = message.delivery;
        let project = delivery.project.as_deref().map(|project| project.slug.as_str());
        // What an event resolves was triggered under that type.
        let meant = delivery.resolves.as_deref().unwrap_or(&delivery.event_type);
        let mut event = json!({
            "routing_key": self.integration_key.clear()?,
            "event_action": if delivery.resolves.is_some() { "resolve" } else { "trigger" },
            "dedup_key": dedup_key(project, meant, message),
        });
        if delivery.resolves.is_none() {
            let severity = self
                .severity_map
                .get(&delivery.event_type)
                .copied()
                .or_else(|| {
                    delivery.severity.and_then(|severity| self.severity_map.get(severity.as_str()).copied())
                })
                .or(delivery.severity)
                .unwrap_or(self.severity_default);
            event["payload"] = json!({
                "summary": cut(message.title(), SUMMARY),
                "source": project.unwrap_or("pg_klaxon"),
                "severity": severity.as_str(),
                "timestamp": message.occurred_at(),
                "class": delivery.event_type,
                "custom_details": details(message),
            });
            if let Some(url) = &message.link {
                event["links"] = json!([{"href": url, "text": "Open"}]);
            }
        }
        Request::json(&format!("{ORIGIN}/v2/enqueue"), &event)
    }

    fn answers(&self) -> &'static [Row] {
        &ANSWERS
    }
}

/// The same for all firings of one thing: project, type, and task, agent, run or cluster. One that is
/// too long ends in the hash of the whole, so that things that begin alike remain two.
fn dedup_key(project: Option<&str>, event_type: &str, message: &Message<'_>) -> String {
    let thing = message.thing().unwrap_or_default();
    let key = [project.unwrap_or_default(), event_type, &thing].join("/");
    if key.encode_utf16().count() <= KEY {
        return key;
    }
    let hash = hex::encode(klaxon_model::audit::body_hash(&key));
    cut(&key, KEY - hash.len()) + &hash
}

fn details(message: &Message<'_>) -> serde_json::Value {
    let mut details = serde_json::Map::new();
    for (label, value) in message.facts() {
        details.insert(label.to_lowercase(), value.into());
    }
    if let Some(body) = &message.body {
        details.insert("text".into(), body.as_str().into());
    }
    let entries: Vec<String> = message.entries().into_iter().map(|entry| entry.title).collect();
    if !entries.is_empty() {
        let label = if message.digest.is_some() { "events" } else { "failures" };
        details.insert(label.into(), entries.into());
    }
    if message.delivery.held_back > 0 {
        details.insert("held_back".into(), message.delivery.held_back.into());
    }
    let payload = message.delivery.payload.get();
    if payload.len() <= DETAILS {
        details.insert("payload".into(), payload.into());
    }
    details.into()
}
