//! Telegram's bot API: `sendMessage` in HTML mode.

use serde_json::{Map, Value, json};

use crate::answer::{Means, Pause, Row, Said};
use crate::config::{Config, ConfigError, Field, Given, Rules, field};
use crate::form::{Form, Request};
use crate::message::Message;
use crate::text::cut;

const ORIGIN: &str = "https://api.telegram.org";
/// Characters of a message, after entities.
const TEXT: usize = 4096;
/// Characters of its first line, and room for the words of the link.
const HEAD: usize = 300;
const LINK: usize = 16;
/// Bytes of the link's address, which is none of the text.
const URL: usize = 2048;

/// A Telegram bot.
pub(super) struct Telegram {
    /// The bot's token.
    bot_token: Given,
    /// A signed integer or an @handle.
    chat_id: String,
}

impl Config for Telegram {
    const FIELDS: &'static [Field] = &[Field::secret("bot_token"), Field::plain("chat_id")];

    fn read(map: &Map<String, Value>, _: &Rules) -> Result<Self, ConfigError> {
        let bot_token = field::required_secret(map, "bot_token")?;
        if let Given::Clear(token) = &bot_token
            && !is_token(token)
        {
            return Err(ConfigError::new(
                "bot_token",
                "is no bot token",
                "It looks like 123456:ABC-def, from @BotFather.",
            ));
        }
        let chat_id = match map.get("chat_id") {
            Some(Value::Number(number)) if number.is_i64() => number.to_string(),
            _ => field::required(map, "chat_id")?.to_owned(),
        };
        let handle = chat_id.strip_prefix('@').is_some_and(|name| {
            (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        });
        if !handle && chat_id.parse::<i64>().is_err() {
            return Err(ConfigError::new("chat_id", "is no chat", "It is a signed integer or an @handle."));
        }
        Ok(Self { bot_token, chat_id })
    }
}

fn is_token(token: &str) -> bool {
    token.split_once(':').is_some_and(|(id, key)| {
        !id.is_empty()
            && id.bytes().all(|b| b.is_ascii_digit())
            && !key.is_empty()
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    })
}

/// core.telegram.org/bots/api, "Making requests", "ResponseParameters"; the words are the server's own.
static ANSWERS: [Row; 4] = [
    // The token is not one any more; the bot was blocked or thrown out.
    Row::among(&[401, 403, 404, 410], Means::Disable),
    // A chat that this bot cannot write to, whatever it writes.
    Row::saying(
        400,
        Said::Text(&[
            "chat not found",
            "upgraded to a supergroup",
            "have no rights to send a message",
            "not enough rights to send",
            "need administrator rights in the channel chat",
        ]),
        Means::Disable,
    ),
    Row::of(400, Means::Dead),
    Row::of(429, Means::Retry(&[Pause::Json(&["parameters", "retry_after"]), Pause::RetryAfter])),
];

/// What HTML mode would read as markup (core.telegram.org/bots/api, "HTML style").
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A text of at most `length` characters, in which nobody is mentioned: Telegram makes a mention of
/// an @ without being asked, and a zero-width space keeps it from that. Cut before it is escaped,
/// because an entity counts as the one character it is.
fn shown(text: &str, length: usize) -> String {
    escape(&cut(&text.replace('@', "@\u{200b}"), length))
}

impl Form for Telegram {
    fn destination(&self) -> Option<String> {
        Some(format!("{ORIGIN}:443"))
    }

    fn secrets(&self, strike: &mut dyn FnMut(&str)) {
        let token = self.bot_token.clear().unwrap_or_default();
        strike(token);
        // The number before the colon is the bot's public id.
        strike(token.split_once(':').map_or("", |(_, secret)| secret));
    }

    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let plain = message.plain();
        let (head, rest) = plain.split_once('\n').unwrap_or((&plain, ""));
        let mut html = format!("<b>{}</b>\n{}", shown(head, HEAD), shown(rest, TEXT - HEAD - LINK));
        if let Some(url) = message.link.as_ref().filter(|url| url.len() <= URL) {
            html.push_str(&format!("\n<a href=\"{}\">Open</a>", escape(url)));
        }
        let body = json!({
            "chat_id": self.chat_id.parse::<i64>().map_or_else(|_| json!(self.chat_id), |id| json!(id)),
            "text": html,
            "parse_mode": "HTML",
            "link_preview_options": {"is_disabled": true},
        });
        Request::json(&format!("{ORIGIN}/bot{}/sendMessage", self.bot_token.clear()?), &body)
    }

    fn answers(&self) -> &'static [Row] {
        &ANSWERS
    }
}
