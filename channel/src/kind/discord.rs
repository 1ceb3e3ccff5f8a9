//! Discord, through the Slack-compatible form of its webhooks: text alone, which nothing in it can
//! turn into a mention or markup.

use serde_json::{Map, Value, json};

use crate::answer::{Means, Pause, Row, Said};
use crate::config::{Config, ConfigError, Field, Given, Rules, field};
use crate::form::{Form, Request};
use crate::message::Message;
use crate::text::escaped;

/// A Discord webhook.
pub(super) struct Discord {
    /// The URL, which is the secret; `/slack` is appended.
    webhook_url: Given,
}

impl Config for Discord {
    const FIELDS: &'static [Field] = &[Field::secret("webhook_url")];

    fn read(map: &Map<String, Value>, _: &Rules) -> Result<Self, ConfigError> {
        let hosts = ["discord.com", "discordapp.com", "canary.discord.com", "ptb.discord.com"];
        Ok(Self { webhook_url: field::vendor_url(map, "webhook_url", &hosts)? })
    }
}

/// Characters of a message.
const TEXT: usize = 2000;
/// Characters of its link, which is left out rather than cut.
const LINK: usize = 500;

/// discord.com/developers/docs/topics/opcodes-and-status-codes, and "Rate Limits" beside it.
static ANSWERS: [Row; 4] = [
    // Unknown webhook, and invalid webhook token.
    Row::any(Said::Code(&[10015, 50027]), Means::Disable),
    Row::among(&[401, 404, 410], Means::Disable),
    Row::of(400, Means::Dead),
    Row::of(
        429,
        Means::Retry(&[
            Pause::Json(&["retry_after"]),
            Pause::RetryAfter,
            Pause::Seconds("x-ratelimit-reset-after"),
        ]),
    ),
];

impl Form for Discord {
    fn destination(&self) -> Option<String> {
        field::secret_origin(&self.webhook_url)
    }

    fn secrets(&self, strike: &mut dyn FnMut(&str)) {
        crate::form::strike_url(&self.webhook_url, strike);
    }

    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let mut url: url::Url =
            self.webhook_url.clear()?.parse().map_err(|_| "webhook_url is no URL".to_owned())?;
        // Some copy it with that.
        let path = url.path().trim_end_matches('/');
        let path = format!("{}/slack", path.strip_suffix("/slack").unwrap_or(path));
        url.set_path(&path);
        // Within an address an @ could still be a mention; there it has another spelling.
        let link = message.link.as_ref().map(|link| format!("\n{}", link.replace('@', "%40")));
        let link = link.filter(|link| link.len() <= LINK).unwrap_or_default();
        let text = escaped(&message.plain(), TEXT - link.len(), escape) + &link;
        Request::json(url.as_str(), &json!({"text": text, "link_names": 0}))
    }

    fn answers(&self) -> &'static [Row] {
        &ANSWERS
    }
}

/// Markdown is shown, not rendered; a zero-width space keeps an @ from being a mention, and Slack's
/// angle brackets from being one of its links.
fn escape(c: char, escaped: &mut String) {
    match c {
        // A list begins so.
        '-' if escaped.rsplit('\n').next().is_some_and(|line| line.trim().is_empty()) => {
            escaped.push_str("\\-");
        }
        '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '#' | '[' | ']' | '(' | ')' => escaped.extend(['\\', c]),
        '@' => escaped.push_str("@\u{200b}"),
        '<' => escaped.push_str("<\u{200b}"),
        other => escaped.push(other),
    }
}
