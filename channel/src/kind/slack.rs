//! Slack incoming webhooks: Block Kit within Slack's limits.

use serde_json::{Map, Value, json};

use crate::answer::{Means, Row, Said};
use crate::config::{Config, ConfigError, Field, Given, Rules, field};
use crate::form::{Form, Request};
use crate::message::Message;
use crate::text::escaped;

/// A Slack incoming webhook.
pub(super) struct Slack {
    /// The URL, which is the secret.
    webhook_url: Given,
}

impl Config for Slack {
    const FIELDS: &'static [Field] = &[Field::secret("webhook_url")];

    fn read(map: &Map<String, Value>, _: &Rules) -> Result<Self, ConfigError> {
        let hosts = ["hooks.slack.com", "hooks.slack-gov.com"];
        Ok(Self { webhook_url: field::vendor_url(map, "webhook_url", &hosts)? })
    }
}

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

/// "Handling errors" of the incoming webhooks (docs.slack.dev/messaging/sending-messages-using-incoming-webhooks).
static ANSWERS: [Row; 4] = [
    // Of the channel: nothing will arrive there any more.
    Row::any(
        Said::Word(&[
            "no_service",
            "no_service_id",
            "no_team",
            "team_disabled",
            "channel_not_found",
            "channel_is_archived",
            "no_active_hooks",
            "action_prohibited",
            "posting_to_general_channel_denied",
            "invalid_token",
            "user_not_found",
        ]),
        Means::Disable,
    ),
    // Of the message.
    Row::any(
        Said::Word(&["invalid_payload", "no_text", "too_many_attachments", "invalid_blocks"]),
        Means::Dead,
    ),
    Row::of(410, Means::Disable),
    Row::of(413, Means::Dead),
];

impl Form for Slack {
    fn destination(&self) -> Option<String> {
        field::secret_origin(&self.webhook_url)
    }

    fn secrets(&self, strike: &mut dyn FnMut(&str)) {
        crate::form::strike_url(&self.webhook_url, strike);
    }

    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        Request::json(self.webhook_url.clear()?, &body(message))
    }

    fn answers(&self) -> &'static [Row] {
        &ANSWERS
    }
}

/// Values stand in plain text alone: a payload's asterisks, backticks and colons are its own.
fn body(message: &Message<'_>) -> Value {
    let mut blocks = vec![json!({"type": "header", "text": plain(message.title(), HEADER)})];
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
    let text = escaped(message.title(), TEXT, escape);
    json!({"text": text, "mrkdwn": false, "blocks": blocks, "unfurl_links": false})
}
