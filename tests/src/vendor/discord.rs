//! Discord's Slack-compatible webhooks (docs.discord.com, "Execute Slack-Compatible Webhook" and
//! "Message Formatting").

use serde_json::{Value, json};

use super::bounded::length;
use super::markdown::signs;
use super::{Answer, Reading, Request, Vendor};

/// The vendor.
pub const VENDOR: Vendor = Vendor { kind: "discord", host: "discord.com", config, answer, reading };

const PATH: &str = "/api/webhooks/1100000000000000000/secret";
/// Characters of a message.
const TEXT: usize = 2000;

/// Emphasis, strikethrough, code, spoilers, links with other words.
const MARKUP: [&str; 7] = ["*", "_", "~~", "`", "||", "](", "[<"];
/// Quotations, headings and small print, at the beginning of a line. (A numbered list shows its numbers
/// as they are written.)
const OPENERS: [&str; 6] = ["> ", ">>> ", "# ", "## ", "### ", "-# "];

fn config() -> Value {
    json!({"webhook_url": format!("https://{}{PATH}", VENDOR.host)})
}

fn answer(request: &Request) -> Answer {
    if request.path.strip_suffix("/slack") != Some(PATH) {
        return Answer::new(404, json!({"message": "Unknown Webhook", "code": 10015}));
    }
    let Some(body) = request.json() else {
        return Answer::new(
            400,
            json!({"message": "The request body contains invalid JSON.", "code": 50109}),
        );
    };
    match body["text"].as_str().map(str::trim) {
        None | Some("") => {
            Answer::new(400, json!({"message": "Cannot send an empty message", "code": 50006}))
        }
        Some(text) if length(text) > TEXT => {
            Answer::new(400, json!({"content": [format!("Must be {TEXT} or fewer in length.")]}))
        }
        Some(_) => Answer::new(200, "ok"),
    }
}

fn reading(body: &Value) -> Reading {
    let text = body["text"].as_str().unwrap_or_default();
    let mut interpreted: Vec<String> = signs(text, &MARKUP).into_iter().map(str::to_owned).collect();
    interpreted
        .extend(["@everyone", "@here"].into_iter().filter(|name| text.contains(name)).map(str::to_owned));
    // Mentions, channels, emoji, times, commands; and Slack's links, which Discord makes its own of.
    let angles = text.split('<').skip(1).filter(|after| {
        after.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '@' | '#' | ':' | '/' | '!' | '&'))
    });
    interpreted.extend(angles.map(|after| format!("<{}", after.chars().take(20).collect::<String>())));
    let opens =
        |line: &str, openers: &[&str]| openers.iter().any(|opener| line.trim_start().starts_with(opener));
    interpreted.extend(text.lines().filter(|line| opens(line, &OPENERS)).map(str::to_owned));
    // The third paragraph is a list of ours; heading and facts are none.
    let (heading, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let others = heading.lines().chain(rest.split("\n\n").next().unwrap_or_default().lines());
    interpreted.extend(others.filter(|line| opens(line, &["- "])).map(str::to_owned));
    if body["link_names"].as_bool() == Some(true) || body["link_names"].as_i64().is_some_and(|n| n != 0) {
        interpreted.push("bare names".into());
    }
    Reading { links: Vec::new(), interpreted }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, body: &Value) -> (u16, String) {
        let answer = answer(&Request::post(path, body));
        (answer.status, answer.body)
    }

    #[test]
    fn only_a_known_webhooks_text_of_up_to_2000_is_taken() {
        let path = format!("{PATH}/slack");
        assert_eq!(said(&path, &json!({"text": "😀".repeat(1000)})), (200, "ok".into()));
        assert_eq!(said(&path, &json!({"text": "x".repeat(2001)})).0, 400);
        assert_eq!(said(&path, &json!({"text": "😀".repeat(1001)})).0, 400);
        for empty in [json!({}), json!({"text": ""}), json!({"text": " \n"}), json!({"text": 7})] {
            assert!(said(&path, &empty).1.contains("50006"), "{empty}");
        }
        for path in [PATH, "/api/webhooks/1/other/slack", "/"] {
            let (status, body) = said(path, &json!({"text": "x"}));
            assert_eq!((status, body.contains("Unknown Webhook")), (404, true), "{path}");
        }
    }

    #[test]
    fn what_discord_would_interpret_is_seen() {
        let read = |text: &str| reading(&json!({"text": text})).interpreted;
        for quiet in [
            "Two tests failed\n\nProject: a - b\n\n- one\n- two\nhttps://ci.example.com/a_b_c",
            "@\u{200b}everyone <\u{200b}@1> a < b",
            r"\*a\* \_b\_ \`c\` \[d\]\(https://evil\) \> \#",
        ] {
            assert!(read(quiet).is_empty(), "{quiet}: {:?}", read(quiet));
        }
        for loud in [
            "@everyone",
            "@here",
            "<@1>",
            "<@&1>",
            "<#1>",
            "<t:1>",
            "<:x:1>",
            "</run:1>",
            "<!channel>",
            "<https://evil|x>",
            "*a*",
            "a\n# b",
            "a\n> b",
            "-# a",
            "- a",
            "a\n\n- b",
            "[text](https://evil)",
            "||a||",
            "~~a~~",
            "`a`",
        ] {
            assert!(!read(loud).is_empty(), "{loud}");
        }
        assert!(!reading(&json!({"text": "a", "link_names": 1})).interpreted.is_empty());
    }
}
