//! Slack incoming webhooks: Block Kit within Slack's limits.

use klaxon_model::channel::Slack;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::message::{Message, cut};
use super::{Answer, Form, Request, Verdict, answer, json_post};
use crate::egress::Reply;

/// Slack's limits: characters of a header and of a text, fields of a section.
const HEADER: usize = 150;
const TEXT: usize = 3000;
const FIELDS: usize = 10;

/// Slack's own three characters (api.slack.com, "Escaping text"); with them gone no mention, link or
/// channel can be made of a value.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Form for Slack {
    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let url = self.webhook_url.expose_secret().parse().map_err(|_| "webhook_url is no URL".to_owned())?;
        Ok(Request::Http(json_post(url, &body(message))?))
    }

    fn read(&self, reply: &Reply) -> Answer {
        match (reply.status, std::str::from_utf8(&reply.body).unwrap_or_default().trim()) {
            (200..=299, _) => Answer::sent(reply.status.into()),
            // "Handling errors" of the incoming webhooks: these are said of the channel.
            (
                _,
                "no_service"
                | "no_service_id"
                | "no_team"
                | "team_disabled"
                | "channel_not_found"
                | "channel_is_archived",
            )
            | (
                _,
                "action_prohibited"
                | "posting_to_general_channel_denied"
                | "invalid_token"
                | "user_not_found",
            )
            | (410, _) => answer::failed(reply, Verdict::Dead { disable: true }),
            // And these of the message.
            (_, "invalid_payload" | "no_text" | "too_many_attachments" | "invalid_blocks") | (413, _) => {
                answer::failed(reply, Verdict::Dead { disable: false })
            }
            _ => answer::http(reply),
        }
    }
}

fn body(message: &Message<'_>) -> Value {
    let text = |text: &str| json!({"type": "mrkdwn", "text": cut(text, TEXT)});
    let mut blocks = vec![json!({
        "type": "header",
        "text": {"type": "plain_text", "text": cut(&message.title, HEADER), "emoji": false}
    })];
    let fields: Vec<Value> = message
        .facts()
        .into_iter()
        .take(FIELDS)
        .map(|(label, value)| text(&format!("*{label}*\n{}", escape(&cut(&value, 1900)))))
        .collect();
    if !fields.is_empty() {
        blocks.push(json!({"type": "section", "fields": fields}));
    }
    let failures = message.failures();
    if !failures.is_empty() {
        let list: Vec<String> = failures.iter().map(|failure| format!("• {}", escape(failure))).collect();
        blocks.push(json!({"type": "section", "text": text(&list.join("\n"))}));
    }
    let mut context = vec![message.occurred_at()];
    context.extend(message.held_back());
    blocks.push(json!({"type": "context", "elements": [text(&context.join(" · "))]}));
    if let Some(url) = message.url.as_ref().filter(|url| url.len() <= TEXT) {
        blocks.push(json!({"type": "actions", "elements": [
            {"type": "button", "text": {"type": "plain_text", "text": "Open"}, "url": url}
        ]}));
    }
    json!({"text": escape(&message.title), "blocks": blocks, "unfurl_links": false})
}
