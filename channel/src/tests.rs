//! What each kind makes of events: requests and mails as they go out.

use std::collections::BTreeMap;
use std::sync::Arc;

use klaxon_model::event_type::Severity;
use klaxon_model::signature;
use secrecy::SecretString;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::answer::{Verdict, read_mail};
use crate::config::{self, Given, Rules, check};
use crate::delivery::{Channel, DIGEST, Delivery, Options, Project};
use crate::form::{Post, Refusal, Request, Sent, Step};
use crate::kind::Kind;
use crate::message::Message;

const EVENT: &str = "019a0000-0000-7000-8000-000000000001";
const DELIVERY: &str = "019a0000-0000-7000-8000-000000000002";

pub(crate) fn channel(kind: Kind, config: Value) -> Channel {
    let checked = check(kind, &config, &Rules::default()).unwrap();
    let secrets: BTreeMap<String, SecretString> = checked
        .secrets
        .into_iter()
        .filter_map(|secret| match secret.value {
            Given::Clear(value) => Some((secret.name, SecretString::from(value.as_str()))),
            _ => None,
        })
        .collect();
    let settings = config::open(kind, &checked.stored, &secrets).map_err(|error| error.to_string());
    Channel { id: 7, name: "ops".into(), settings }
}

pub(crate) fn delivery(event_type: &str, payload: &str) -> Delivery {
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
        occurred_at: 1_767_225_600_123_456,
        made_at: 1_767_225_601_999_999,
        payload: RawValue::from_string(payload.into()).unwrap(),
        held_back: 0,
        held_for: None,
        traceparent: None,
    }
}

fn render(channel: &Channel, delivery: &Delivery) -> Request {
    let options = Options::default();
    let settings = channel.settings.as_ref().unwrap();
    settings.target.render(&Message::new(channel, delivery, &options)).unwrap()
}

pub(crate) fn posted(channel: &Channel, delivery: &Delivery) -> (Post, Value) {
    match render(channel, delivery) {
        Request::Http(post) => {
            let body = serde_json::from_slice(&post.body).unwrap();
            (post, body)
        }
        Request::Mail { .. } => panic!("a request"),
    }
}

pub(crate) const RUN: &str = r#"{"run_id": "r1", "branch": "main", "failed_tests": 3, "total_tests": 412, "top_failures": ["\u001b[31mtest_a\u001b[0m: boom", {"name": "test_b", "message": "no"}, "c", "d"]}"#;

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
    assert_eq!(header("webhook-timestamp"), "1767225601", "whole seconds of the moment of the attempt");
    let timestamp: i64 = header("webhook-timestamp").parse().unwrap();
    assert_eq!(
        header("webhook-signature"),
        signature::standard_webhooks("whsec_c2VjcmV0", DELIVERY, timestamp, &post.body)
    );
    assert_eq!(header("x-klaxon-signature"), signature::plain("whsec_c2VjcmV0", &post.body));
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
#[rustfmt::skip]
fn a_line_of_a_digest_names_the_run_or_task() {
    for (event_type, data, line) in [
        ("run.failed", json!({"run_id": 3}), "Test run failed: Billing, run 3"),
        ("run.failed", json!({"run_id": 3, "failed_tests": 3, "branch": "main"}), "Test run failed: Billing (main), 3 tests, run 3"),
        ("run.failed", json!({"title": "Nightly is red", "run_id": "r7"}), "Nightly is red, run r7"),
        ("task.failed", json!({"task_name": "mail.send", "run_id": "r7", "exception": "x"}), "Task failed: mail.send, x"),
        ("task.failed", json!({"title": "No mail", "task_id": "9f1c"}), "No mail, task 9f1c"),
        ("order.paid", json!({}), "order.paid: Billing"),
    ] {
        let payload = json!({"count": 1, "events": [{"type": event_type, "project": "billing", "url": null, "data": data}]});
        let delivery = Delivery { event_id: None, ..delivery(DIGEST, &payload.to_string()) };
        let digest = crate::digest::Digest::read(&delivery.payload, delivery.project.as_deref());
        assert_eq!(digest.entries[0].title, line);
    }
    let long = json!({"count": 1, "events": [{"type": "run.failed", "data": {"title": "x".repeat(300), "run_id": "r7"}}]});
    let long = delivery(DIGEST, &long.to_string());
    let title = &crate::digest::Digest::read(&long.payload, None).entries[0].title;
    assert!(title.ends_with("…, run r7") && title.chars().count() <= 200, "{title}");
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
    let encoded = mail(r#"{"title": "=?utf-8?q?From_the_bank?="}"#);
    let subject = encoded.lines().find(|line| line.starts_with("Subject: ")).unwrap();
    assert!(!subject.contains("q?From"), "{subject}");
    let (_, html) = text.split_once("Content-Type: text/html").unwrap();
    assert!(!text.contains("\r\nBcc:") && !html.contains("<script>"), "{text}");
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
        let form = &*channel.settings.as_ref().unwrap().target;
        let answer = read_mail(form, Sent::Refused(refusal.clone()));
        assert_eq!((&answer.verdict, answer.code), (&verdict, Some(code)), "{step} {code}");
        let partly = read_mail(
            form,
            Sent::Accepted { code: 250, reached: 1, refused: vec![refusal], deferred: Vec::new() },
        );
        assert_eq!((partly.verdict, partly.code, partly.error.is_some()), (Verdict::Sent, Some(250), true));
    }
}

#[test]
fn a_moment_is_one_that_rfc_3339_can_write() {
    let channel = channel(Kind::Webhook, json!({"url": "https://hooks.example.com/x"}));
    for (micros, written) in [
        (i64::MIN, "0000-01-01T00:00:00Z"),
        (-62_167_219_200_000_001, "0000-01-01T00:00:00Z"),
        (0, "1970-01-01T00:00:00Z"),
        (i64::MAX, "9999-12-30T22:00:00.999999999Z"),
    ] {
        let (_, body) = posted(&channel, &Delivery { occurred_at: micros, ..delivery("run.failed", "{}") });
        assert_eq!(body["timestamp"], written);
    }
}
