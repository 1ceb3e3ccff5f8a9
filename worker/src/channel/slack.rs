//! Slack incoming webhooks: Block Kit within Slack's limits.

use klaxon_model::channel::Slack;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::message::{Message, escaped};
use super::{Answer, Form, Request, Verdict, answer, json_post};
use crate::egress::Reply;

/// Slack's limits: characters of a header, a field and a text, fields of a section.
const HEADER: usize = 150;
const FIELD: usize = 2000;
const TEXT: usize = 3000;
const FIELDS: usize = 10;

/// Slack's own three characters (api.slack.com, "Escaping text"), where text is read as mrkdwn.
fn escape(c: char, escaped: &mut String) {
    match c {
        '&' => escaped.push_str("&amp;"),
        '<' => escaped.push_str("&lt;"),
        '>' => escaped.push_str("&gt;"),
        other => escaped.push(other),
    }
}

/// Text in which Slack reads no markup. A zero-width space keeps what follows a bracket from ever
/// being taken for a mention or a link, by whatever else reads the message.
fn plain(text: &str, length: usize) -> Value {
    let text = escaped(text, length, |c, text| {
        text.push(c);
        if c == '<' {
            text.push('\u{200b}');
        }
    });
    json!({"type": "plain_text", "text": text, "emoji": false})
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
                | "channel_is_archived"
                | "no_active_hooks",
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

/// Values stand in plain text alone: a payload's asterisks, backticks and colons are its own.
fn body(message: &Message<'_>) -> Value {
    let mut blocks = vec![json!({"type": "header", "text": plain(&message.title, HEADER)})];
    let facts = message.facts();
    let fields: Vec<Value> =
        facts.iter().take(FIELDS).map(|(label, value)| plain(&format!("{label}\n{value}"), FIELD)).collect();
    if !fields.is_empty() {
        blocks.push(json!({"type": "section", "fields": fields}));
    }
    if let Some(body) = &message.body {
        blocks.push(json!({"type": "section", "text": plain(body, TEXT)}));
    }
    let entries = message.entries();
    if !entries.is_empty() {
        let list: Vec<String> = entries.iter().map(|entry| format!("• {}", entry.title)).collect();
        blocks.push(json!({"type": "section", "text": plain(&list.join("\n"), TEXT)}));
    }
    let mut context = vec![message.occurred_at()];
    context.extend(message.held_back());
    blocks.push(json!({"type": "context", "elements": [plain(&context.join(" · "), TEXT)]}));
    if let Some(url) = message.link.as_ref().filter(|url| url.len() <= TEXT) {
        blocks.push(json!({"type": "actions", "elements": [
            {"type": "button", "text": plain("Open", HEADER), "url": url}
        ]}));
    }
    let text = escaped(&message.title, TEXT, escape);
    json!({"text": text, "mrkdwn": false, "blocks": blocks, "unfurl_links": false})
}
