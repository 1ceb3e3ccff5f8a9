//! Microsoft Teams, by a workflow's webhook: an Adaptive Card.

use serde_json::{Map, Value, json};

use crate::answer::{Means, Pause, Row, Said};
use crate::config::{Config, ConfigError, Field, Given, Rules, field};
use crate::form::{Form, Request};
use crate::message::Message;
use crate::text::{cut, escaped};

/// Where Microsoft serves them: connectors, Logic Apps, and the Power Platform that follows both.
const HOSTS: [&str; 3] = ["*.webhook.office.com", "*.logic.azure.com", "*.api.powerplatform.com"];
/// Bytes of a message (learn.microsoft.com, "Limits and specifications for Microsoft Teams").
const SIZE: usize = 28 * 1024;
/// Characters of each text, the most that together fit: the first nearly always do.
const TEXTS: [usize; 4] = [3000, 1000, 300, 100];
/// Bytes of the link.
const URL: usize = 2048;

/// A Teams workflow's webhook.
pub(super) struct Teams {
    /// The URL, which is the secret.
    webhook_url: Given,
}

impl Config for Teams {
    const FIELDS: &'static [Field] = &[Field::secret("webhook_url")];

    fn read(map: &Map<String, Value>, _: &Rules) -> Result<Self, ConfigError> {
        Ok(Self { webhook_url: field::vendor_url(map, "webhook_url", &HOSTS)? })
    }
}

/// A workflow answers 202 and its errors as Logic Apps do; a connector answers 200 and its errors as
/// text ("Rate limiting for connectors").
static ANSWERS: [Row; 6] = [
    Row::saying(200, Said::Text(&["http error 413"]), Means::Dead),
    Row::saying(200, Said::Text(&["http error 404", "http error 410"]), Means::Disable),
    Row::saying(200, Said::Text(&["webhook message delivery failed"]), Means::Retry(&[Pause::RetryAfter])),
    // The signature is not one any more; the workflow was turned off or deleted.
    Row::among(&[401, 403, 404], Means::Disable),
    Row::of(410, Means::Disable),
    Row::among(&[400, 413], Means::Dead),
];

impl Form for Teams {
    fn destination(&self) -> Option<String> {
        field::secret_origin(&self.webhook_url)
    }

    fn secrets(&self, strike: &mut dyn FnMut(&str)) {
        crate::form::strike_url(&self.webhook_url, strike);
        // A workflow's key stands in the query.
        let url = self.webhook_url.clear().unwrap_or_default();
        strike(url.split_once("sig=").map_or("", |(_, rest)| rest.split('&').next().unwrap_or_default()));
    }

    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let [most, less @ ..] = TEXTS;
        let mut card = envelope(message, most);
        for length in less {
            if card.to_string().len() <= SIZE {
                break;
            }
            card = envelope(message, length);
        }
        Request::json(self.webhook_url.clear()?, &card)
    }

    fn answers(&self) -> &'static [Row] {
        &ANSWERS
    }
}

fn envelope(message: &Message<'_>, length: usize) -> Value {
    json!({"type": "message", "attachments": [{
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": null,
        "content": card(message, length),
    }]})
}

/// Every text is a run, in which Teams reads no markup, as it does in a `TextBlock` or a fact.
fn card(message: &Message<'_>, length: usize) -> Value {
    let text = |text: &str| run(text, length);
    let mut body = vec![json!({"type": "RichTextBlock", "inlines": [
        with(text(message.title()), &[("size", "large"), ("weight", "bolder")])
    ]})];
    body.extend(message.facts().iter().map(|(label, value)| {
        let label = with(text(&format!("{label}: ")), &[("weight", "bolder")]);
        json!({"type": "RichTextBlock", "spacing": "small", "inlines": [label, text(value)]})
    }));
    if let Some(words) = &message.body {
        let words = cut(words, length);
        body.extend(
            words
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(|line| json!({"type": "RichTextBlock", "spacing": "small", "inlines": [text(line)]})),
        );
    }
    body.extend(message.entries().iter().map(|entry| {
        let line = text(&format!("• {}", entry.title));
        json!({"type": "RichTextBlock", "spacing": "small", "inlines": [line]})
    }));
    let mut context = vec![message.occurred_at()];
    context.extend(message.held_back());
    let context = with(text(&context.join(" · ")), &[("size", "small")]);
    body.push(json!({"type": "RichTextBlock", "separator": true, "inlines": [context]}));
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
    });
    if let Some(url) = message.link.as_ref().filter(|url| url.len() <= URL) {
        card["actions"] = json!([{"type": "Action.OpenUrl", "title": "Open", "url": url}]);
    }
    card
}

/// Two braces begin a date or a template there, so a zero-width space comes between.
fn run(text: &str, length: usize) -> Value {
    let text = escaped(text, length, |c, text| {
        if c == '{' && text.ends_with('{') {
            text.push('\u{200b}');
        }
        text.push(c);
    });
    json!({"type": "TextRun", "text": text})
}

fn with(mut run: Value, style: &[(&str, &str)]) -> Value {
    style.iter().for_each(|(name, value)| run[*name] = (*value).into());
    run
}
