//! Telegram's bot API: `sendMessage` in HTML mode.

use klaxon_model::channel::Telegram;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::message::{Message, cut};
use super::{Answer, Form, Request, Verdict, answer, json_post};
use crate::egress::Reply;

/// Characters of a message, after entities.
const TEXT: usize = 4096;
/// Characters of its first line, and room for the words of the link.
const HEAD: usize = 300;
const LINK: usize = 16;
/// Bytes of the link's address, which is none of the text.
const URL: usize = 2048;

/// Telegram's words for a chat that this bot cannot write to, whatever it writes.
const NO_CHAT: [&str; 5] = [
    "chat not found",
    "upgraded to a supergroup",
    "have no rights to send a message",
    "not enough rights to send",
    "need administrator rights in the channel chat",
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
    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let token = self.bot_token.expose_secret();
        let url = format!("https://api.telegram.org/bot{token}/sendMessage")
            .parse()
            .map_err(|_| "bot_token makes no URL".to_owned())?;
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
        Ok(Request::Http(json_post(url, &body)?))
    }

    fn read(&self, reply: &Reply) -> Answer {
        let said = String::from_utf8_lossy(&reply.body).to_lowercase();
        match reply.status {
            200..=299 => Answer::sent(reply.status.into()),
            // The token is not one any more; the bot was blocked or thrown out.
            401 | 403 | 404 | 410 => answer::failed(reply, Verdict::Dead { disable: true }),
            400 if NO_CHAT.iter().any(|words| said.contains(words)) => {
                answer::failed(reply, Verdict::Dead { disable: true })
            }
            400 => answer::failed(reply, Verdict::Dead { disable: false }),
            429 => {
                let after = answer::json_seconds(&reply.body, &["parameters", "retry_after"])
                    .or_else(|| answer::retry_after(&reply.headers));
                answer::failed(reply, Verdict::Retry { after })
            }
            _ => answer::http(reply),
        }
    }
}
