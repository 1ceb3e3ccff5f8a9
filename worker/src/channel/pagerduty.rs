//! PagerDuty Events API v2: an incident is triggered, and resolved by the event that ends it.

use klaxon_model::channel::Pagerduty;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::message::{Message, cut};
use super::{Answer, Form, Request, Verdict, answer, json_post};
use crate::egress::Reply;

const ENDPOINT: &str = "https://events.pagerduty.com/v2/enqueue";
/// PagerDuty's limits: characters of a summary and of a key, and room within its 512 kB: a payload
/// travels as a string, in which each of its quotes becomes two characters.
const SUMMARY: usize = 1024;
const KEY: usize = 255;
const DETAILS: usize = 128 * 1024;

impl Form for Pagerduty {
    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let delivery = message.delivery;
        let project = delivery.project.as_deref().map(|project| project.slug.as_str());
        // What an event resolves was triggered under that type.
        let meant = delivery.resolves.as_deref().unwrap_or(&delivery.event_type);
        let mut event = json!({
            "routing_key": self.integration_key.expose_secret(),
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
                "summary": cut(&message.title, SUMMARY),
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
        let url = ENDPOINT.parse().map_err(|_| "the endpoint is no URL".to_owned())?;
        Ok(Request::Http(json_post(url, &event)?))
    }

    fn read(&self, reply: &Reply) -> Answer {
        match reply.status {
            200..=299 => Answer::sent(reply.status.into()),
            // "invalid event": it will be invalid tomorrow as well.
            400 => answer::failed(reply, Verdict::Dead { disable: false }),
            410 => answer::failed(reply, Verdict::Dead { disable: true }),
            _ => answer::http(reply),
        }
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
