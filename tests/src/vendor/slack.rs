//! Slack's incoming webhooks (docs.slack.dev, "Block Kit reference" and "Sending messages using
//! incoming webhooks").

use serde::Deserialize;
use serde_json::{Value, json};

use super::bounded::{Link, List, Text, length};
use super::{Answer, Reading, Request, Vendor};

/// The vendor.
pub const VENDOR: Vendor = Vendor { kind: "slack", host: "hooks.slack.com", config, answer, reading };

const PATH: &str = "/services/T0KLAXON0/B0KLAXON0/secret";
/// Characters of the text beside the blocks, which notifications show. Slack cuts a longer one: what
/// it would cut, the sender should have.
const TEXT: usize = 40_000;

/// What stands between `<` and `>` is a mention, a channel, a date or a link. Ours contain no `<` that
/// anything follows.
const OPENERS: [&str; 6] = ["<!", "<@", "<#", "<http", "<mailto", "<tel"];

fn config() -> Value {
    json!({"webhook_url": format!("https://{}{PATH}", VENDOR.host)})
}

#[derive(Deserialize)]
struct Message {
    text: Option<String>,
    blocks: Option<List<Block, 50>>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[expect(dead_code, reason = "what reads is valid")]
enum Block {
    Header { text: Plain<150>, block_id: Option<Text<255>> },
    Section { text: Option<Words<3000>>, fields: Option<List<Words<2000>, 10>>, block_id: Option<Text<255>> },
    Context { elements: List<Words<3000>, 10>, block_id: Option<Text<255>> },
    Actions { elements: List<Button, 25>, block_id: Option<Text<255>> },
    Divider { block_id: Option<Text<255>> },
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[expect(dead_code, reason = "what reads is valid")]
enum Words<const MAX: usize> {
    PlainText { text: Text<MAX>, emoji: Option<bool> },
    Mrkdwn { text: Text<MAX>, verbatim: Option<bool> },
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[expect(dead_code, reason = "what reads is valid")]
enum Plain<const MAX: usize> {
    PlainText { text: Text<MAX>, emoji: Option<bool> },
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[expect(dead_code, reason = "what reads is valid")]
enum Button {
    Button {
        text: Plain<75>,
        url: Option<Link<3000>>,
        action_id: Option<Text<255>>,
        value: Option<Text<2000>>,
        style: Option<Style>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Style {
    Primary,
    Danger,
}

fn answer(request: &Request) -> Answer {
    if request.path != PATH {
        return Answer::new(404, "no_service");
    }
    let Some(body) = request.json().filter(Value::is_object) else {
        return Answer::new(400, "invalid_payload");
    };
    let message = match serde_json::from_value::<Message>(body) {
        Ok(message) => message,
        Err(error) => return Answer::new(400, "invalid_blocks").because(error),
    };
    let bare = |block: &Block| matches!(block, Block::Section { text: None, fields: None, .. });
    if message.blocks.as_ref().is_some_and(|blocks| blocks.0.iter().any(bare)) {
        return Answer::new(400, "invalid_blocks").because("a section has neither text nor fields");
    }
    match message.text.unwrap_or_default() {
        text if length(&text) > TEXT => Answer::new(400, "msg_too_long"),
        // Blocks alone arrive, but notifications then say nothing.
        text if text.trim().is_empty() => Answer::new(400, "no_text"),
        _ => Answer::new(200, "ok"),
    }
}

fn reading(body: &Value) -> Reading {
    let mut reading = Reading::default();
    if body["mrkdwn"] != json!(false) {
        reading.interpreted.push("the text's mrkdwn".into());
    }
    // Both make mentions of bare names.
    if body["parse"] == "full" || ["link_names", "unfurl_media"].iter().any(|field| body[field] == true) {
        reading.interpreted.push("bare names and addresses".into());
    }
    let text = body["text"].as_str().unwrap_or_default();
    let entities = text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
    reading.interpreted.extend(entities.contains(['<', '>', '&']).then(|| format!("markup in {text}")));
    walk(body, &mut reading);
    reading
}

fn walk(value: &Value, reading: &mut Reading) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| walk(value, reading)),
        Value::Object(fields) => {
            if fields.get("type") == Some(&json!("mrkdwn")) {
                reading.interpreted.push(format!("mrkdwn: {value}"));
            }
            if fields.get("type") == Some(&json!("plain_text")) && fields.get("emoji") != Some(&json!(false))
            {
                reading.interpreted.push(format!("emoji: {value}"));
            }
            reading.links.extend(fields.get("url").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| walk(value, reading));
        }
        Value::String(text) => {
            let opener = OPENERS.iter().find(|opener| text.contains(**opener));
            reading.interpreted.extend(opener.map(|opener| format!("{opener} in {text}")));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(length: usize) -> Value {
        json!({"type": "plain_text", "text": "x".repeat(length), "emoji": false})
    }

    fn said(body: &Value) -> (u16, String) {
        let answer = answer(&Request::post(PATH, body));
        (answer.status, answer.body)
    }

    fn button(title: usize, url: &str) -> Value {
        json!({"type": "actions", "elements": [{"type": "button", "text": plain(title), "url": url}]})
    }

    #[test]
    fn blocks_beyond_their_bounds_are_refused() {
        let long = format!("https://x.example/{}", "x".repeat(3000));
        for (block, valid) in [
            (json!({"type": "header", "text": plain(150)}), true),
            (json!({"type": "header", "text": plain(151)}), false),
            (json!({"type": "header", "text": plain(0)}), false),
            (json!({"type": "header", "text": {"type": "mrkdwn", "text": "x"}}), false),
            (json!({"type": "header", "text": plain(1), "style": "big"}), false),
            (json!({"type": "section", "text": plain(3000)}), true),
            (json!({"type": "section", "text": plain(3001)}), false),
            (json!({"type": "section", "text": "bare"}), false),
            (json!({"type": "section", "fields": vec![plain(2000); 10]}), true),
            (json!({"type": "section", "fields": vec![plain(2000); 11]}), false),
            (json!({"type": "section", "fields": [plain(2001)]}), false),
            (json!({"type": "section"}), false),
            (json!({"type": "context", "elements": vec![plain(1); 10]}), true),
            (json!({"type": "context", "elements": vec![plain(1); 11]}), false),
            (button(75, "https://ci.example.com"), true),
            (button(76, "https://ci.example.com"), false),
            (button(4, "javascript:alert(1)"), false),
            (button(4, &long), false),
            (json!({"type": "poem"}), false),
        ] {
            let expected = if valid { (200, "ok") } else { (400, "invalid_blocks") };
            let (status, body) = said(&json!({"text": "x", "blocks": [block]}));
            assert_eq!((status, body.as_str()), expected, "{block}");
        }
        let divider = json!({"type": "divider"});
        assert_eq!(said(&json!({"text": "x", "blocks": vec![&divider; 50]})).0, 200);
        assert_eq!(said(&json!({"text": "x", "blocks": vec![&divider; 51]})).1, "invalid_blocks");
    }

    #[test]
    fn a_message_is_json_with_a_text() {
        assert_eq!(said(&json!({"text": "hello"})), (200, "ok".into()));
        assert_eq!(said(&json!({"blocks": [{"type": "divider"}]})).1, "no_text");
        assert_eq!(said(&json!({"text": "x".repeat(40_001)})).1, "msg_too_long");
        assert_eq!(said(&json!("hello")).1, "invalid_payload");
        assert_eq!(answer(&Request::post("/services/T/B/other", &json!({}))).body, "no_service");
        let mut form = Request::post(PATH, &json!({"text": "hello"}));
        form.headers.insert("content-type", "text/plain".parse().unwrap());
        assert_eq!(answer(&form).body, "invalid_payload");
    }

    #[test]
    fn what_slack_would_interpret_is_seen() {
        let quiet = |text: &str| json!({"text": text, "mrkdwn": false});
        assert_eq!(reading(&quiet("a &lt;b&gt; &amp; c")), Reading::default());
        for body in [
            json!({"text": "*a*"}),
            quiet("<!channel>"),
            quiet("a & b"),
            json!({"text": "a", "mrkdwn": false, "link_names": true}),
            json!({"text": "a", "mrkdwn": false, "blocks": [{"text": {"type": "mrkdwn", "text": "x"}}]}),
            json!({"text": "a", "mrkdwn": false, "blocks": [{"text": {"type": "plain_text", "text": ":x:"}}]}),
            json!({"text": "a", "mrkdwn": false, "blocks": [{"text": {"text": "<https://evil|x>"}}]}),
        ] {
            assert!(!reading(&body).interpreted.is_empty(), "{body}");
        }
        assert_eq!(
            reading(&json!({"blocks": [button(4, "https://x.example")]})).links,
            ["https://x.example"]
        );
    }
}
