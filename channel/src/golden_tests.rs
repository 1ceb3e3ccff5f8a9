//! What each kind makes of every built-in event type, as it goes out: one golden file a kind, so that
//! a change of words or looks is seen as one.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::delivery::{Channel, DIGEST, Delivery, Options};
use crate::form::Request;
use crate::kind::Kind;
use crate::message::Message;
use crate::sample;
use crate::tests::{channel, delivery};

/// A payload such as an application sends, and failures as a terminal shows them.
fn payload(event_type: &str) -> Value {
    let mut payload = sample::payload(event_type);
    if payload.get("top_failures").is_some() {
        payload["top_failures"] = json!([
            "\u{1b}[31mtests/test_invoice.py::test_rounding\u{1b}[0m: assert 0.1 + 0.2 == 0.3",
            {"name": "test_refund", "message": "timeout after 30 s"},
            "test_<b>markup</b> & \"quotes\" *stars* `ticks`",
            "the fourth is not shown"
        ]);
    }
    payload
}

/// The built-in types as the extension has them: `('name', 'description', 'severity', resolves, …`.
fn built_in() -> Vec<Delivery> {
    let rows = include_str!("../../sql/event_type.sql").lines().map(str::trim);
    let of = |row: &str| {
        let row = row.replace("''", "’");
        let texts: Vec<&str> = row.split('\'').collect();
        let [_, name, _, _, _, severity, _, rest @ ..] = &texts[..] else { panic!("{row}") };
        Delivery {
            severity: Some(severity.parse().unwrap()),
            resolves: (rest.len() > 1).then(|| rest[0].to_owned()),
            held_back: if *name == "task.failed" { 41 } else { 0 },
            ..delivery(name, &payload(name).to_string())
        }
    };
    rows.filter(|row| row.starts_with("('")).map(of).chain([digest()]).collect()
}

fn digest() -> Delivery {
    Delivery {
        event_id: None,
        severity: Some(klaxon_model::event_type::Severity::Error),
        ..delivery(DIGEST, &payload(DIGEST).to_string())
    }
}

/// All that goes out, with the time of sending and what is random held still.
fn rendered(channel: &Channel) -> String {
    let options = Options::default();
    let mut all = String::new();
    let deliveries = built_in();
    assert_eq!(deliveries.len(), 15);
    for delivery in deliveries {
        let message = Message { now: 1_767_225_601, ..Message::new(channel, &delivery, &options) };
        writeln!(all, "=== {}", delivery.event_type).unwrap();
        match channel.settings.as_ref().unwrap().target.render(&message).unwrap() {
            Request::Http(post) => {
                let body: Value = serde_json::from_slice(&post.body).unwrap();
                writeln!(all, "POST {}", post.url).unwrap();
                let mut headers: Vec<String> = post
                    .headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                    .collect();
                headers.sort();
                writeln!(all, "{}\n{}", headers.join("\n"), serde_json::to_string_pretty(&body).unwrap())
                    .unwrap();
            }
            Request::Mail { server, mail } => {
                writeln!(all, "{}:{} tls={}", server.host, server.port, server.tls).unwrap();
                let text = String::from_utf8(mail.formatted()).unwrap().replace("\r\n", "\n");
                let (_, boundary) = text.split_once("boundary=\"").unwrap();
                let boundary = boundary.split('"').next().unwrap().to_owned();
                for line in text.replace(&boundary, "BOUNDARY").lines() {
                    let line = if line.starts_with("Date: ") { "Date: NOW" } else { line };
                    writeln!(all, "{}", line.trim_end()).unwrap();
                }
            }
        }
    }
    all
}

fn golden(kind: Kind, config: Value) {
    insta::assert_snapshot!(kind.as_str(), rendered(&channel(kind, config)));
}

#[test]
fn webhook() {
    golden(
        Kind::Webhook,
        json!({"url": "https://hooks.example.com/x", "hmac_secret": "whsec_c2VjcmV0", "headers": {"X-Team": "ops"}}),
    );
}

#[test]
fn email() {
    let server = json!({"smtp_host": "smtp.example.com", "from_addr": "klaxon@example.com", "to_addrs": ["ann@example.com"]});
    golden(Kind::Email, server);
}

#[test]
fn slack() {
    golden(Kind::Slack, json!({"webhook_url": "https://hooks.slack.com/services/T/B/x"}));
}

#[test]
fn telegram() {
    golden(Kind::Telegram, json!({"bot_token": "12:Ab", "chat_id": "-100"}));
}

#[test]
fn pagerduty() {
    golden(Kind::Pagerduty, json!({"integration_key": "0123456789abcdef0123456789abcdef"}));
}

#[test]
fn discord() {
    golden(Kind::Discord, json!({"webhook_url": "https://discord.com/api/webhooks/1/x"}));
}

#[test]
fn teams() {
    let url = "https://prod-01.westeurope.logic.azure.com:443/workflows/1/triggers/manual/paths/invoke?sig=x";
    golden(Kind::Teams, json!({"webhook_url": url}));
}

#[test]
fn ntfy() {
    golden(Kind::Ntfy, json!({"url": "https://ntfy.example.com", "topic": "ops", "token": "tk_abc"}));
}

#[test]
fn a_template_speaks_in_every_kind_but_a_webhooks() {
    let template =
        json!({"title": "{{ data.task_name }} broke", "body": "Look at <{{ data.queue }}> & {{ severity }}"});
    let with = |mut config: Value| {
        config["template"] = template.clone();
        config
    };
    for (kind, config, said) in [
        (Kind::Slack, json!({"webhook_url": "https://hooks.slack.com/services/T/B/x"}), "& error"),
        (Kind::Telegram, json!({"bot_token": "12:Ab", "chat_id": "-100"}), "&lt;payments&gt; &amp; error"),
        (
            Kind::Discord,
            json!({"webhook_url": "https://discord.com/api/webhooks/1/x"}),
            "payments\\\\> & error",
        ),
        (
            Kind::Teams,
            json!({"webhook_url": "https://example.webhook.office.com/webhookb2/x"}),
            "Look at <payments> & error",
        ),
        (
            Kind::Ntfy,
            json!({"url": "https://ntfy.example.com", "topic": "ops"}),
            "Look at <payments> & error",
        ),
        (
            Kind::Pagerduty,
            json!({"integration_key": "0123456789abcdef0123456789abcdef"}),
            "Look at <payments> & error",
        ),
        (
            Kind::Email,
            json!({"smtp_host": "smtp.example.com", "from_addr": "klaxon@example.com", "to_addrs": ["ann@example.com"]}),
            "&lt;payments&gt; &amp; error",
        ),
    ] {
        let all = rendered(&channel(kind, with(config)));
        let (_, message) = all.split_once("=== task.failed").unwrap();
        let (message, _) = message.split_once("\n=== ").unwrap();
        assert!(message.contains("billing.tasks.charge broke"), "{kind:?}: {message}");
        assert!(message.contains(said), "{kind:?}: {message}");
        assert!(!message.contains("Queue"), "{kind:?}: the text stands in the place of the facts: {message}");
    }
    let webhook = rendered(&channel(Kind::Webhook, with(json!({"url": "https://hooks.example.com/x"}))));
    assert!(!webhook.contains("broke"), "a webhook's body is for programs");
}
