//! Telegram's `sendMessage` (core.telegram.org/bots/api).

use serde_json::{Value, json};

use super::bounded::length;
use super::telegram_html::{kept, parse};
use super::{Answer, Reading, Request, Vendor};

/// The vendor.
pub const VENDOR: Vendor = Vendor { kind: "telegram", host: "api.telegram.org", config, answer, reading };

/// The bot's token.
pub const TOKEN: &str = "123456:secret-token";
/// The chat that the bot is in.
pub const CHAT: i64 = -100_123;

/// Characters of a message, after entities.
const TEXT: usize = 4096;

fn config() -> Value {
    json!({"bot_token": TOKEN, "chat_id": CHAT})
}

fn refusal(status: u16, description: &str) -> Answer {
    Answer::new(status, json!({"ok": false, "error_code": status, "description": description}))
}

fn answer(request: &Request) -> Answer {
    match request.path.strip_prefix("/bot").and_then(|path| path.split_once('/')) {
        Some((TOKEN, "sendMessage")) => {}
        Some((TOKEN, _)) | None => return refusal(404, "Not Found"),
        Some(_) => return refusal(401, "Unauthorized"),
    }
    let Some(body) = request.json() else {
        return refusal(400, "Bad Request: can't parse message JSON object");
    };
    let chat = &body["chat_id"];
    if chat.as_i64().or_else(|| chat.as_str()?.parse().ok()) != Some(CHAT) {
        return refusal(400, "Bad Request: chat not found");
    }
    let text = body["text"].as_str().unwrap_or_default();
    let parsed = match body["parse_mode"].as_str() {
        Some("HTML") => parse(text).map(|parsed| parsed.text),
        None => Ok(text.to_owned()),
        Some(_) => return refusal(400, "Bad Request: unsupported parse_mode"),
    };
    match parsed.as_deref().map(kept) {
        Err(error) => refusal(400, &format!("Bad Request: can't parse entities: {error}")),
        Ok(text) if text.is_empty() => refusal(400, "Bad Request: message text is empty"),
        Ok(text) if length(&text) > TEXT => refusal(400, "Bad Request: message is too long"),
        Ok(text) => {
            let chat = json!({"id": CHAT, "type": "supergroup"});
            let message = json!({"message_id": 1, "date": 0, "chat": chat, "text": text});
            Answer::new(200, json!({"ok": true, "result": message}))
        }
    }
}

fn reading(body: &Value) -> Reading {
    let mut reading = Reading::default();
    if body["link_preview_options"]["is_disabled"] != json!(true) {
        reading.interpreted.push("previews".into());
    }
    let parsed = parse(body["text"].as_str().unwrap_or_default()).unwrap_or_default();
    for entity in parsed.entities {
        match (entity.tag.as_str(), entity.href) {
            // The heading, and the link below: ours.
            ("b", _) if parsed.text.starts_with(&entity.text) => {}
            ("a", Some(href)) if parsed.text.ends_with(&entity.text) => reading.links.push(href),
            (tag, _) => reading.interpreted.push(format!("<{tag}>{}", entity.text)),
        }
    }
    // A name after an @ is a mention, asked for or not.
    let names = parsed.text.split('@').skip(1).filter(|name| name.starts_with(|c: char| c.is_alphanumeric()));
    reading.interpreted.extend(names.map(|name| format!("@{}", name.chars().take(20).collect::<String>())));
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/bot123456:secret-token/sendMessage";

    fn said(path: &str, body: &Value) -> (u16, String) {
        let answer = answer(&Request::post(path, body));
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status, body["description"].as_str().unwrap_or_default().to_owned())
    }

    fn html(text: &str) -> Value {
        json!({"chat_id": CHAT, "text": text, "parse_mode": "HTML"})
    }

    #[test]
    fn what_telegram_refuses_is_refused_in_its_words() {
        for (text, description) in [
            ("<b>fine</b> &amp; &lt;", ""),
            (&"😀".repeat(2048), ""),
            (&"&amp;".repeat(4096), ""),
            (&"&amp;".repeat(4097), "Bad Request: message is too long"),
            (&"😀".repeat(2049), "Bad Request: message is too long"),
            ("", "Bad Request: message text is empty"),
            ("<b> </b>\u{1}", "Bad Request: message text is empty"),
            ("x</pre>", "Bad Request: can't parse entities: Unexpected end tag at byte offset 1"),
        ] {
            let expected = if description.is_empty() { 200 } else { 400 };
            assert_eq!(said(PATH, &html(text)), (expected, description.to_owned()), "{text:.40}");
        }
        let elsewhere = json!({"chat_id": 7, "text": "x"});
        assert_eq!(said(PATH, &elsewhere), (400, "Bad Request: chat not found".into()));
        assert_eq!(said("/bot1:wrong/sendMessage", &html("x")), (401, "Unauthorized".into()));
        assert_eq!(said("/bot123456:secret-token/sendPoem", &html("x")), (404, "Not Found".into()));
    }

    #[test]
    fn what_telegram_would_interpret_is_seen() {
        let read = |text: &str| {
            let mut body = html(text);
            body["link_preview_options"] = json!({"is_disabled": true});
            reading(&body)
        };
        let ours = read("<b>Two &lt;b&gt;</b>\nmail@\u{200b}x\n<a href=\"https://x.example\">Open</a>");
        assert_eq!(ours, Reading { links: vec!["https://x.example".into()], interpreted: Vec::new() });
        for loud in ["<b>a</b> <b>c</b>", "<a href=\"https://x.example\">a</a> b", "<i>a</i>", "@channel"] {
            assert!(!read(loud).interpreted.is_empty(), "{loud}");
        }
        assert!(!reading(&html("a")).interpreted.is_empty());
    }
}
