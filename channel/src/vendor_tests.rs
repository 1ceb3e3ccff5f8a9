//! What the vendors' kinds make of events, within each vendor's limits.

use std::time::Duration;

use serde_json::{Value, json};

use crate::answer::{Verdict, read};
use crate::delivery::{DIGEST, Delivery};
use crate::form::Reply;
use crate::kind::Kind;
use crate::tests::{RUN, channel, delivery, posted};

#[test]
fn slack_gets_blocks_in_which_nothing_is_interpreted() {
    let channel = channel(Kind::Slack, json!({"webhook_url": "https://hooks.slack.com/services/T/B/x"}));
    let (_, body) = posted(&channel, &delivery("run.failed", RUN));
    assert_eq!(body["blocks"][0]["text"]["text"], "Test run failed: Billing (main), 3 of 412 tests");
    assert_eq!(body["blocks"][2]["text"]["text"], "• test_a: boom\n• test_b: no\n• c\n• and 1 more");
    assert_eq!(
        body["blocks"].as_array().unwrap().last().unwrap()["elements"][0]["url"],
        "https://ci.example.com/billing"
    );

    let (_, body) =
        posted(&channel, &delivery("task.failed", r#"{"task_name": "<!channel> <https://evil|x> &"}"#));
    // Whatever a payload holds stands where Slack reads no markup.
    assert_eq!((&body["mrkdwn"], mrkdwn(&body)), (&json!(false), 0), "{body}");
    let text = body.to_string();
    assert!(!text.contains("<!channel>") && !text.contains("<https"), "{text}");

    for url in ["https://x @everyone/", "not a url", "https://bank.example@evil.example/", "https://"] {
        let (_, body) = posted(&channel, &delivery("task.failed", &json!({"url": url}).to_string()));
        let blocks = body["blocks"].as_array().unwrap();
        let button = &blocks.last().unwrap()["elements"][0]["url"];
        assert_eq!(button, "https://ci.example.com/billing", "{url}");
    }

    let long = format!(r#"{{"title": "{}", "exception": "{}"}}"#, "é".repeat(400), "x".repeat(9000));
    let (_, body) = posted(&channel, &delivery("task.failed", &long));
    assert!(body["blocks"][0]["text"]["text"].as_str().unwrap().chars().count() <= 150);
}

/// Texts that Slack would read as markup.
fn mrkdwn(value: &Value) -> usize {
    match value {
        Value::Object(fields) => {
            usize::from(fields.get("type") == Some(&json!("mrkdwn")))
                + fields.values().map(mrkdwn).sum::<usize>()
        }
        Value::Array(values) => values.iter().map(mrkdwn).sum(),
        _ => 0,
    }
}

#[test]
fn discord_pings_nobody_and_fits() {
    let channel = channel(Kind::Discord, json!({"webhook_url": "https://discord.com/api/webhooks/1/x"}));
    let (post, body) = posted(
        &channel,
        &delivery("task.failed", r#"{"task_name": "@everyone **b** <@1>", "exception": "x"}"#),
    );
    assert_eq!(post.url.as_str(), "https://discord.com/api/webhooks/1/x/slack");
    for url in ["https://discord.com/api/webhooks/1/x/slack", "https://discord.com/api/webhooks/1/x/slack/"] {
        let whole = self::channel(Kind::Discord, json!({"webhook_url": url}));
        let (post, _) = posted(&whole, &delivery("task.failed", "{}"));
        assert_eq!(post.url.as_str(), "https://discord.com/api/webhooks/1/x/slack", "as it was copied");
    }
    let text = body["text"].as_str().unwrap();
    assert!(text.ends_with("https://ci.example.com/billing"), "{text}");
    let url = r#"{"url": "https://ci.example.com/@everyone"}"#;
    let (_, linked) = posted(&channel, &delivery("task.failed", url));
    assert!(linked["text"].as_str().unwrap().ends_with("\nhttps://ci.example.com/%40everyone"), "{linked}");
    assert!(!text.contains("@everyone") && !text.contains("**b**") && !text.contains("<@"), "{text}");
    let long =
        format!(r#"{{"title": "{}", "top_failures": ["{}", "b", "c"]}}"#, "@".repeat(190), "*".repeat(3000));
    let (_, body) = posted(&channel, &delivery("task.failed", &long));
    assert!(body["text"].as_str().unwrap().chars().count() <= 2000);
}

#[test]
fn telegram_gets_escaped_html() {
    let channel = channel(Kind::Telegram, json!({"bot_token": "12:Ab", "chat_id": "-100"}));
    let (post, body) = posted(
        &channel,
        &delivery("task.failed", r#"{"task_name": "</b><a href='x'>", "exception": "a & b"}"#),
    );
    assert_eq!(post.url.as_str(), "https://api.telegram.org/bot12:Ab/sendMessage");
    assert_eq!(body["chat_id"], -100);
    let text = body["text"].as_str().unwrap();
    assert!(text.starts_with("<b>Task failed: &lt;/b&gt;") && text.contains("a &amp; b"), "{text}");
    let (_, body) = posted(&channel, &delivery("task.failed", r#"{"exception": "ask @admin"}"#));
    assert!(!body["text"].as_str().unwrap().contains("@admin"), "{body}");
    // Characters that are two in UTF-16, and as many of them as there can be.
    let long = json!({"title": "😀".repeat(200), "top_failures": ["<".repeat(3000), "😀".repeat(3000), "&"], "signature": "😀".repeat(900), "exception": "😀".repeat(900), "queue": "😀".repeat(900), "branch": "😀".repeat(900), "status": "😀".repeat(900), "run_id": "😀".repeat(900)});
    let (_, body) = posted(&channel, &delivery("task.failed", &long.to_string()));
    let text = body["text"].as_str().unwrap();
    let shown = text.replace("&lt;", "<").replace("&amp;", "&").replace("&gt;", ">");
    assert!(shown.encode_utf16().count() <= 4096 && text.ends_with("Open</a>"), "{text}");
}

#[test]
fn teams_gets_a_card_that_fits_and_shows_what_it_was_given() {
    let config = |template: Value| json!({"webhook_url": "https://x.webhook.office.com/webhookb2/y", "template": template});
    let plain = channel(Kind::Teams, config(Value::Null));
    let (_, body) =
        posted(&plain, &delivery("task.failed", r#"{"task_name": "{{DATE(2026-01-01)}} [a](b) **c**"}"#));
    let card = &body["attachments"][0]["content"];
    assert_eq!((&card["type"], &card["version"]), (&json!("AdaptiveCard"), &json!("1.4")));
    let text = body.to_string();
    assert!(!text.contains("{{") && text.contains("[a](b) **c**"), "{text}");
    assert_eq!(text.matches("\"TextBlock\"").count(), 0, "whose text would be markup");

    // As large as each part can be, in characters that are four bytes or are escaped in JSON.
    for c in ["😀", "\"", "é", "x"] {
        let long = c.repeat(900);
        let payload = json!({
            "title": long, "branch": long, "run_id": long, "task_name": long, "queue": long, "agent_name": long,
            "signature": long, "status": long, "exception": long, "top_failures": [long, long, long],
        });
        let event = json!({"type": "task.failed", "project": null, "data": payload});
        let group = json!({"type": long, "project": long, "count": 9});
        let digest = json!({"count": 900, "groups": vec![group; 20], "events": vec![event; 20]});
        let digest = Delivery { event_id: None, ..delivery(DIGEST, &digest.to_string()) };
        let body = format!("{}\n{{{{ data.exception }}}}", "{{ title }}\n".repeat(300));
        let templated = channel(Kind::Teams, config(json!({"body": body})));
        let event = delivery("task.failed", &payload.to_string());
        for (channel, delivery) in [(&plain, &event), (&plain, &digest), (&templated, &event)] {
            let (post, _) = posted(channel, delivery);
            assert!(post.body.len() <= 28 * 1024, "{c}: {}", post.body.len());
        }
    }
}

#[test]
fn ntfy_gets_what_is_no_file() {
    let ntfy =
        channel(Kind::Ntfy, json!({"url": "https://ntfy.example.com", "topic": "ops", "token": "tk_abc"}));
    let long = "😀".repeat(900);
    let payload = json!({
        "title": long, "branch": long, "run_id": long, "task_name": long, "queue": long, "signature": long,
        "status": long, "exception": long, "top_failures": [long, long]
    });
    let (_, body) = posted(&ntfy, &delivery("task.failed", &payload.to_string()));
    let text = body["message"].as_str().unwrap();
    assert!(text.len() <= 4096 && text.len() > 4090 && text.ends_with('…'), "{}", text.len());
    let quotes = payload.to_string().replace('😀', "\\\"");
    let far = format!("https://x.example.com/{}", "a".repeat(1900));
    let quotes = quotes.replacen('{', &format!(r#"{{"url": "{far}", "#), 1);
    let (post, encoded) = posted(&ntfy, &delivery("task.failed", &quotes));
    assert!(post.body.len() <= 8192 && encoded["click"] == far.as_str(), "{}", post.body.len());
    let (_, encoded) = posted(&ntfy, &delivery("task.failed", r#"{"title": "=?UTF-8?B?eA==?="}"#));
    assert!(!encoded["title"].as_str().unwrap().contains("=?"), "{encoded}");
    assert_eq!((&body["priority"], &body["topic"]), (&json!(4), &json!("ops")));
    assert_eq!(post.headers["authorization"], "Bearer tk_abc");
    assert!(post.headers["authorization"].is_sensitive());
    let online = Delivery { resolves: Some("agent.offline".into()), ..delivery("agent.online", "{}") };
    assert_eq!(posted(&ntfy, &online).1["tags"], json!(["white_check_mark"]));
    let open = channel(Kind::Ntfy, json!({"url": "https://ntfy.example.com", "topic": "ops"}));
    assert!(!posted(&open, &online).0.headers.contains_key("authorization"));
}

#[test]
fn pagerduty_is_triggered_and_resolved_under_one_key() {
    let channel = channel(
        Kind::Pagerduty,
        json!({"integration_key": "0123456789abcdef0123456789abcdef", "severity_map": {"agent.offline": "critical"}}),
    );
    let payload = r#"{"agent_id": "a1"}"#;
    let (_, fired) = posted(&channel, &delivery("agent.offline", payload));
    assert_eq!(
        (&fired["event_action"], &fired["payload"]["severity"]),
        (&json!("trigger"), &json!("critical"))
    );
    assert_eq!(fired["dedup_key"], "billing/agent.offline/a1");
    let online = Delivery { resolves: Some("agent.offline".into()), ..delivery("agent.online", payload) };
    let (_, ended) = posted(&channel, &online);
    assert_eq!((&ended["event_action"], &ended["dedup_key"]), (&json!("resolve"), &fired["dedup_key"]));
    assert_eq!(ended.get("payload"), None);

    // Two things whose names begin alike are two, within the limit.
    let keys: Vec<String> = ["a", "b"]
        .map(|end| format!(r#"{{"task_id": "{}{end}"}}"#, "é".repeat(400)))
        .iter()
        .map(|payload| {
            posted(&channel, &delivery("task.failed", payload)).1["dedup_key"].as_str().unwrap().into()
        })
        .collect();
    assert!(keys[0] != keys[1] && keys.iter().all(|key| key.chars().count() <= 255), "{keys:?}");
    let quotes = format!(r#"{{"x": "{}"}}"#, r#"\""#.repeat(65_000));
    let (post, _) = posted(&channel, &delivery("task.failed", &quotes));
    assert!(post.body.len() <= 512_000, "{}", post.body.len());
}

#[test]
fn a_template_that_comes_to_nothing_is_left_aside() {
    let config = json!({
        "webhook_url": "https://hooks.slack.com/services/T/B/x",
        "template": {"title": "{{ data.title }}", "body": "{{ data.body }}"}
    });
    let channel = channel(Kind::Slack, config);
    let payload = r#"{"title": "\u0001", "body": "\u0002\r\u001b[31m", "task_name": "report"}"#;
    let (_, body) = posted(&channel, &delivery("task.failed", payload));
    assert_eq!(body["blocks"][0]["text"]["text"], "Task failed: report");
    assert!(body.to_string().contains("report") && !body.to_string().contains("u0002"), "{body}");
}

#[test]
fn a_line_of_a_payload_is_no_list_in_discord() {
    let channel = channel(
        Kind::Discord,
        json!({"webhook_url": "https://discord.com/api/webhooks/1/x", "template": {"body": "one\n - {{ data.x }}"}}),
    );
    let (_, body) = posted(&channel, &delivery("task.failed", r#"{"title": "- item", "x": "a-b"}"#));
    let text = body["text"].as_str().unwrap();
    assert!(text.starts_with("\\- item\n") && text.contains("\n \\- a-b"), "{text}");
}

#[test]
fn vendors_answers_mean_what_their_documentation_says() {
    let slack = channel(Kind::Slack, json!({"webhook_url": "https://hooks.slack.com/services/T/B/x"}));
    let discord = channel(Kind::Discord, json!({"webhook_url": "https://discord.com/api/webhooks/1/x"}));
    let telegram = channel(Kind::Telegram, json!({"bot_token": "12:Ab", "chat_id": "-100"}));
    let pagerduty = channel(Kind::Pagerduty, json!({"integration_key": "0123456789abcdef0123456789abcdef"}));
    let retry = |after: Option<u64>| Verdict::Retry { after: after.map(Duration::from_secs) };
    let (dead, disabled) = (Verdict::Dead { disable: false }, Verdict::Dead { disable: true });
    for (channel, status, body, verdict) in [
        (&slack, 200, "ok", Verdict::Sent),
        (&slack, 404, "no_service", disabled.clone()),
        (&slack, 410, "channel_is_archived", disabled.clone()),
        (&slack, 403, "action_prohibited", disabled.clone()),
        (&slack, 404, "no_active_hooks", disabled.clone()),
        (&slack, 400, "invalid_payload", dead.clone()),
        (&slack, 500, "rollup_error", retry(None)),
        (&discord, 204, "", Verdict::Sent),
        (&discord, 404, r#"{"code": 10015}"#, disabled.clone()),
        (&discord, 401, r#"{"code": 50027, "message": "Invalid Webhook Token"}"#, disabled.clone()),
        (&discord, 400, "{}", dead.clone()),
        (&discord, 429, r#"{"retry_after": 2}"#, retry(Some(2))),
        (&discord, 502, "", retry(None)),
        (&telegram, 200, r#"{"ok": true}"#, Verdict::Sent),
        (&telegram, 401, r#"{"description": "Unauthorized"}"#, disabled.clone()),
        (&telegram, 403, r#"{"description": "Forbidden: bot was blocked by the user"}"#, disabled.clone()),
        (&telegram, 400, r#"{"description": "Bad Request: chat not found"}"#, disabled.clone()),
        (
            &telegram,
            400,
            r#"{"description": "Bad Request: not enough rights to send text messages to the chat"}"#,
            disabled.clone(),
        ),
        (&telegram, 400, r#"{"description": "Bad Request: can't parse entities"}"#, dead.clone()),
        (&telegram, 429, r#"{"parameters": {"retry_after": 30}}"#, retry(Some(30))),
        (&pagerduty, 202, "", Verdict::Sent),
        (&pagerduty, 400, "", dead),
        (&pagerduty, 429, "", retry(None)),
    ] {
        let reply = Reply { status, headers: Default::default(), body: body.as_bytes().to_vec() };
        let settings = channel.settings.as_ref().unwrap();
        assert_eq!(read(&*settings.target, &reply).verdict, verdict, "{} {status} {body}", channel.name);
    }
}

#[test]
fn discords_pauses_are_believed_wherever_they_stand() {
    let discord = channel(Kind::Discord, json!({"webhook_url": "https://discord.com/api/webhooks/1/x"}));
    for (name, value, body, seconds) in [
        ("retry-after", "3", "", 3.0),
        ("x-ratelimit-reset-after", "1.5", "", 1.5),
        ("x-ratelimit-reset-after", "9", r#"{"retry_after": 0.5}"#, 0.5),
        ("x-ratelimit-reset-after", "1e9", "", 3600.0),
    ] {
        let mut headers = http::HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let reply = Reply { status: 429, headers, body: body.into() };
        let expected = Verdict::Retry { after: Some(Duration::from_secs_f64(seconds)) };
        assert_eq!(
            read(&*discord.settings.as_ref().unwrap().target, &reply).verdict,
            expected,
            "{name} {value}"
        );
    }
}
