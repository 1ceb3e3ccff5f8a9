//! What each kind makes of events: requests and mails as they go out.

use std::collections::BTreeMap;

use klaxon_model::channel::{Given, Kind, Rules, check};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::*;
use crate::egress::{Refusal, Step};

const EVENT: &str = "019a0000-0000-7000-8000-000000000001";
const DELIVERY: &str = "019a0000-0000-7000-8000-000000000002";

pub(super) fn channel(kind: Kind, config: Value) -> Channel {
    let checked = check(kind, &config, &Rules::default()).unwrap();
    let secrets: BTreeMap<String, SecretString> = checked
        .secrets
        .into_iter()
        .filter_map(|secret| match secret.value {
            Given::Clear(value) => Some((secret.name, SecretString::from(value.as_str()))),
            _ => None,
        })
        .collect();
    let settings =
        klaxon_model::channel::open(kind, &checked.stored, &secrets).map_err(|error| error.to_string());
    Channel { id: 7, name: "ops".into(), settings }
}

pub(super) fn delivery(event_type: &str, payload: &str) -> Delivery {
    Delivery {
        id: DELIVERY.parse().unwrap(),
        event_id: Some(EVENT.parse().unwrap()),
        event_type: event_type.into(),
        severity: Some(Severity::Error),
        resolves: None,
        project: Some(Arc::new(Project {
            slug: "billing".into(),
            name: Some("Billing".into()),
            url: Some("https://ci.example.com/billing".into()),
        })),
        attempt: 2,
        occurred_at: DbTime::from_unix_micros(1_767_225_600_123_456),
        payload: RawValue::from_string(payload.into()).unwrap(),
        held_back: 0,
        held_for: None,
    }
}

fn render(channel: &Channel, delivery: &Delivery) -> Request {
    let options = CourierOptions::default();
    let settings = channel.settings.as_ref().unwrap();
    form(&settings.target).render(&Message::new(channel, delivery, &options)).unwrap()
}

fn posted(channel: &Channel, delivery: &Delivery) -> (Post, Value) {
    match render(channel, delivery) {
        Request::Http(post) => {
            let body = serde_json::from_slice(&post.body).unwrap();
            (post, body)
        }
        Request::Mail { .. } => panic!("a request"),
    }
}

const RUN: &str = r#"{"run_id": "r1", "branch": "main", "failed_tests": 3, "total_tests": 412, "top_failures": ["\u001b[31mtest_a\u001b[0m: boom", {"name": "test_b", "message": "no"}, "c", "d"]}"#;

#[test]
fn a_webhook_is_signed_twice_and_carries_the_payload_digit_for_digit() {
    let channel = channel(
        Kind::Webhook,
        json!({"url": "https://hooks.example.com/x", "hmac_secret": "whsec_c2VjcmV0", "headers": {"Authorization": "Bearer t"}}),
    );
    let payload = r#"{"n": 12345678901234567890123456789, "e": 1e400, "url": "https://ci.example.com/r/1"}"#;
    let (post, _) = match render(&channel, &delivery("run.failed", payload)) {
        Request::Http(post) => (post, ()),
        Request::Mail { .. } => panic!("a request"),
    };
    let body = std::str::from_utf8(&post.body).unwrap();
    assert_eq!(
        body,
        format!(
            "{{\"id\":\"{EVENT}\",\"type\":\"run.failed\",\"timestamp\":\"2026-01-01T00:00:00.123456Z\",\"project\":\"billing\",\
             \"attempt\":2,\"url\":\"https://ci.example.com/r/1\",\"data\":{payload}}}"
        )
    );
    let header = |name: &str| post.headers[name].to_str().unwrap();
    assert_eq!(header("webhook-id"), DELIVERY);
    let timestamp: i64 = header("webhook-timestamp").parse().unwrap();
    assert_eq!(
        header("webhook-signature"),
        klaxon_model::signature::standard_webhooks("whsec_c2VjcmV0", DELIVERY, timestamp, &post.body)
    );
    assert_eq!(header("x-klaxon-signature"), klaxon_model::signature::plain("whsec_c2VjcmV0", &post.body));
    assert_eq!(header("authorization"), "Bearer t");
    assert!(post.headers["authorization"].is_sensitive());
}

#[test]
fn a_webhook_without_a_secret_is_unsigned_and_one_that_changes_it_signs_with_both() {
    let plain = channel(Kind::Webhook, json!({"url": "https://hooks.example.com/x"}));
    let (post, body) = posted(&plain, &delivery("run.failed", "[1]"));
    assert!(
        !post.headers.contains_key("webhook-signature") && !post.headers.contains_key("x-klaxon-signature")
    );
    assert_eq!((&body["data"], &body["url"]), (&json!([1]), &json!("https://ci.example.com/billing")));
    assert_eq!(body.get("held_back"), None);

    let both = channel(
        Kind::Webhook,
        json!({"url": "https://hooks.example.com/x", "hmac_secret": "new", "previous_hmac_secret": "old", "signature_header": "X-Sig"}),
    );
    let held = Delivery { held_back: 41, ..delivery("run.failed", "{}") };
    let (post, body) = posted(&both, &held);
    assert_eq!(post.headers["webhook-signature"].to_str().unwrap().split(' ').count(), 2);
    assert!(post.headers.contains_key("x-sig") && !post.headers.contains_key("x-klaxon-signature"));
    assert_eq!(body["held_back"], 41);
}

#[test]
fn a_webhook_is_told_of_a_digest_what_the_interface_says() {
    let channel = channel(Kind::Webhook, json!({"url": "https://hooks.example.com/x"}));
    let payload = json!({
        "count": 21, "held_back": 2, "severity": "error",
        "groups": [{"type": "run.failed", "project": "billing", "count": 21}],
        "events": [{"id": EVENT, "type": "run.failed", "project": "billing", "timestamp": "2026-01-01T00:00:00Z",
                    "url": null, "data": {"run_id": "r1"}}],
    });
    let digest = Delivery { event_id: None, held_back: 2, ..delivery(DIGEST, &payload.to_string()) };
    let (post, body) = posted(&channel, &digest);
    assert_eq!(post.headers["webhook-id"], DELIVERY);
    assert_eq!((&body["id"], &body["type"]), (&json!(DELIVERY), &json!("digest")));
    assert_eq!(body["url"], "https://ci.example.com/billing");
    assert_eq!(body.get("held_back"), None, "it is in data");
    assert_eq!(body["data"], json!({"count": 21, "held_back": 2, "events": payload["events"]}));
}

#[test]
fn slack_gets_blocks_in_which_nothing_is_interpreted() {
    let channel = channel(Kind::Slack, json!({"webhook_url": "https://hooks.slack.com/services/T/B/x"}));
    let (_, body) = posted(&channel, &delivery("run.failed", RUN));
    assert_eq!(body["blocks"][0]["text"]["text"], "Test run failed: Billing (main), 3 of 412 tests");
    assert_eq!(body["blocks"][2]["text"]["text"], "• test_a: boom\n• test_b: no\n• c");
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

fn mail(payload: &str) -> String {
    let channel = channel(
        Kind::Email,
        json!({"smtp_host": "smtp.example.com", "from_addr": "klaxon@example.com", "to_addrs": ["ann@example.com", "bob@example.com"]}),
    );
    match render(&channel, &delivery("run.failed", payload)) {
        Request::Mail { server, mail } => {
            assert_eq!((server.port, server.tls), (587, true));
            String::from_utf8(mail.formatted()).unwrap()
        }
        Request::Http(_) => panic!("a mail"),
    }
}

#[test]
fn a_mail_threads_and_says_that_nobody_wrote_it() {
    let text = mail(RUN);
    for header in [
        "From: klaxon <klaxon@example.com>",
        "To: ann@example.com, bob@example.com",
        "Subject: Test run failed: Billing (main), 3 of 412 tests",
        &format!("Message-ID: <{DELIVERY}@example.com>"),
        "Auto-Submitted: auto-generated",
        "List-Id: <billing.klaxon.example.com>",
        "References: <thread.",
        "In-Reply-To: <thread.",
        "multipart/alternative",
    ] {
        assert!(text.contains(header), "{header}\n{text}");
    }
}

#[test]
fn nothing_in_a_payload_becomes_a_header_or_markup() {
    let text = mail(r#"{"title": "a\r\nBcc: eve@example.com\r\n\r\n.\r\n", "exception": "</pre><script>"}"#);
    assert!(text.contains("Subject: a Bcc: eve@example.com ."), "{text}");
    let (_, html) = text.split_once("Content-Type: text/html").unwrap();
    assert!(!text.contains("\r\nBcc:") && !html.contains("<script>"), "{text}");
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
        assert_eq!(form(&settings.target).read(&reply).verdict, verdict, "{} {status} {body}", channel.name);
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
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let reply = Reply { status: 429, headers, body: body.into() };
        let expected = Verdict::Retry { after: Some(Duration::from_secs_f64(seconds)) };
        assert_eq!(
            form(&discord.settings.as_ref().unwrap().target).read(&reply).verdict,
            expected,
            "{name} {value}"
        );
    }
}

#[test]
fn a_mail_servers_no_is_judged_by_what_it_was_said_to() {
    let address = json!({"to_addrs": ["ann@example.com"]});
    let own = json!({"smtp_host": "smtp.example.com", "from_addr": "k@example.com", "to_addrs": ["ann@example.com"]});
    let (shared, own) = (channel(Kind::Email, address), channel(Kind::Email, own));
    let retry = Verdict::Retry { after: None };
    let (dead, disabled) = (Verdict::Dead { disable: false }, Verdict::Dead { disable: true });
    for (channel, step, code, verdict) in [
        (&own, Step::Connect, 554, retry.clone()),
        (&own, Step::Login, 454, retry.clone()),
        (&own, Step::Login, 535, disabled),
        (&shared, Step::Login, 535, retry.clone()),
        (&own, Step::Sender, 550, dead.clone()),
        (&own, Step::Recipient, 550, dead.clone()),
        (&own, Step::Recipient, 451, retry.clone()),
        (&own, Step::Content, 452, retry),
        (&own, Step::Content, 554, dead),
    ] {
        let refusal = Refusal { step, recipient: None, code, permanent: code >= 500, said: "no".into() };
        let form = form(&channel.settings.as_ref().unwrap().target);
        let answer = form.read_mail(Sent::Refused(refusal.clone()));
        assert_eq!((&answer.verdict, answer.code), (&verdict, Some(code)), "{step} {code}");
        let (refused, deferred) = (vec![refusal], Vec::new());
        let partly = form.read_mail(Sent::Accepted { code: 250, reached: 1, refused, deferred });
        assert_eq!((partly.verdict, partly.code, partly.error.is_some()), (Verdict::Sent, Some(250), true));
    }
}
