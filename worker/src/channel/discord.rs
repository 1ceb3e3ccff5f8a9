//! Discord, through the Slack-compatible form of its webhooks: text alone, which nothing in it can
//! turn into a mention or markup.

use klaxon_model::channel::Discord;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::message::{Message, escaped};
use super::{Answer, Form, Request, Verdict, answer, json_post};
use crate::egress::Reply;

/// Characters of a message.
const TEXT: usize = 2000;
/// Characters of its link, which is left out rather than cut.
const LINK: usize = 500;

impl Form for Discord {
    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let mut url: url::Url =
            self.webhook_url.expose_secret().parse().map_err(|_| "webhook_url is no URL".to_owned())?;
        let path = format!("{}/slack", url.path().trim_end_matches('/'));
        url.set_path(&path);
        // Within an address an @ could still be a mention; there it has another spelling.
        let link = message.link.as_ref().map(|link| format!("\n{}", link.replace('@', "%40")));
        let link = link.filter(|link| link.len() <= LINK).unwrap_or_default();
        let text = escaped(&message.plain(), TEXT - link.len(), escape) + &link;
        Ok(Request::Http(json_post(url, &json!({"text": text, "link_names": 0}))?))
    }

    fn read(&self, reply: &Reply) -> Answer {
        let code = serde_json::from_slice::<serde_json::Value>(&reply.body)
            .ok()
            .and_then(|body| body["code"].as_i64());
        match (reply.status, code) {
            (200..=299, _) => Answer::sent(reply.status.into()),
            // Unknown webhook, and invalid webhook token.
            (401 | 404 | 410, _) | (_, Some(10015 | 50027)) => {
                answer::failed(reply, Verdict::Dead { disable: true })
            }
            (400, _) => answer::failed(reply, Verdict::Dead { disable: false }),
            (429, _) => {
                let after = answer::json_seconds(&reply.body, &["retry_after"])
                    .or_else(|| answer::retry_after(&reply.headers))
                    .or_else(|| answer::header_seconds(&reply.headers, "x-ratelimit-reset-after"));
                answer::failed(reply, Verdict::Retry { after })
            }
            _ => answer::http(reply),
        }
    }
}

/// Markdown is shown, not rendered; a zero-width space keeps an @ from being a mention, and Slack's
/// angle brackets from being one of its links.
fn escape(c: char, escaped: &mut String) {
    match c {
        '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '#' | '[' | ']' | '(' | ')' => escaped.extend(['\\', c]),
        '@' => escaped.push_str("@\u{200b}"),
        '<' => escaped.push_str("<\u{200b}"),
        other => escaped.push(other),
    }
}
