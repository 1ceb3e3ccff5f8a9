use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::*;

fn refusal(kind: Kind, config: &Value) -> String {
    check(kind, config, &Rules::default()).unwrap_err().to_string()
}

fn accepted(kind: Kind, config: &Value) -> Checked {
    check(kind, config, &Rules::default()).unwrap_or_else(|error| panic!("{config}: {error}"))
}

const KEY: &str = "0123456789abcdef0123456789ABCDEF";

#[test]
fn every_kind_has_a_smallest_configuration() {
    for (kind, config, destination) in [
        (
            Kind::Webhook,
            json!({"url": "https://Hooks.Example.com/a?b=c"}),
            Some("https://hooks.example.com:443"),
        ),
        (Kind::Webhook, json!({"url": "https://[2606:4700::1]:8443/"}), Some("https://[2606:4700::1]:8443")),
        (Kind::Email, json!({"to_addrs": ["ann@example.com"]}), None),
        (
            Kind::Email,
            json!({"smtp_host": "SMTP.example.com", "from_addr": "k@example.com", "to_addrs": ["ann@example.com"]}),
            Some("smtp://smtp.example.com:587"),
        ),
        (
            Kind::Slack,
            json!({"webhook_url": "https://hooks.slack.com/services/T/B/x"}),
            Some("https://hooks.slack.com:443"),
        ),
        (
            Kind::Telegram,
            json!({"bot_token": "12:Ab_-", "chat_id": -100123}),
            Some("https://api.telegram.org:443"),
        ),
        (
            Kind::Telegram,
            json!({"bot_token": "12:Ab_-", "chat_id": "@channel"}),
            Some("https://api.telegram.org:443"),
        ),
        (Kind::Pagerduty, json!({"integration_key": KEY}), Some("https://events.pagerduty.com:443")),
        (
            Kind::Discord,
            json!({"webhook_url": "https://discord.com/api/webhooks/1/x"}),
            Some("https://discord.com:443"),
        ),
        (
            Kind::Discord,
            json!({"webhook_url": "https://ptb.discord.com/api/webhooks/1/x"}),
            Some("https://ptb.discord.com:443"),
        ),
        (
            Kind::Teams,
            json!({"webhook_url": "https://prod-01.westeurope.logic.azure.com:443/workflows/x?sig=y"}),
            Some("https://prod-01.westeurope.logic.azure.com:443"),
        ),
        (
            Kind::Teams,
            json!({"webhook_url": "https://x.webhook.office.com/webhookb2/y"}),
            Some("https://x.webhook.office.com:443"),
        ),
        (
            Kind::Teams,
            json!({"webhook_url": "https://d.ef.environment.api.powerplatform.com/powerautomate/x?sig=y"}),
            Some("https://d.ef.environment.api.powerplatform.com:443"),
        ),
        (
            Kind::Ntfy,
            json!({"url": "https://ntfy.example.com", "topic": "ops-1_x"}),
            Some("https://ntfy.example.com:443"),
        ),
    ] {
        assert_eq!(accepted(kind, &config).destination.as_deref(), destination, "{config}");
    }
}

#[test]
#[rustfmt::skip]
fn what_a_kind_cannot_use_is_refused_by_field() {
    let many: serde_json::Map<String, Value> = (0..21).map(|i| (format!("X-{i}"), json!("v"))).collect();
    for (kind, config, says) in [
        (Kind::Webhook, json!([]), "the config is no JSON object"),
        (Kind::Webhook, json!({}), "config field \"url\" is required"),
        (Kind::Webhook, json!({"url": null}), "config field \"url\" is required"),
        (Kind::Webhook, json!({"url": 7}), "config field \"url\" must be a string"),
        (Kind::Webhook, json!({"url": "hooks"}), "config field \"url\" is no URL"),
        (Kind::Webhook, json!({"url": "ftp://x.com"}), "config field \"url\" must be https"),
        (Kind::Webhook, json!({"url": "http://x.com"}), "config field \"url\" must be https"),
        (Kind::Webhook, json!({"url": "https://u:p@x.com"}), "config field \"url\" contains a user"),
        (Kind::Webhook, json!({"url": "https://x.com/#a"}), "config field \"url\" has a fragment"),
        (Kind::Webhook, json!({"url": "https://x.com/\na"}), "config field \"url\" contains a control"),
        (Kind::Webhook, json!({"url": format!("https://x.com/{}", "a".repeat(2048))}), "config field \"url\" is longer"),
        (Kind::Webhook, json!({"url": "https://x.com", "colour": 1}), "config field \"colour\" is unknown to kind \"webhook\""),
        (Kind::Webhook, json!({"url": "https://x.com", "headers": []}), "config field \"headers\" must be an object"),
        (Kind::Webhook, json!({"url": "https://x.com", "headers": many}), "config field \"headers\" has more than 20"),
        (Kind::Webhook, json!({"url": "https://x.com", "headers": {"Host": "v"}}), "config field \"headers.Host\" is reserved"),
        (Kind::Webhook, json!({"url": "https://x.com", "headers": {"webhook-id": "v"}}), "config field \"headers.webhook-id\" is reserved"),
        (Kind::Webhook, json!({"url": "https://x.com", "headers": {"X-Forwarded-For": "v"}}), "config field \"headers.X-Forwarded-For\" is reserved"),
        (Kind::Webhook, json!({"url": "https://x.com", "headers": {"Proxy-Authorization": "v"}}), "config field \"headers.Proxy-Authorization\" is reserved"),
        (Kind::Webhook, json!({"url": "https://x.com", "headers": {"x-klaxon-signature": "v"}}), "config field \"headers.x-klaxon-signature\" is reserved"),
        (Kind::Webhook, json!({"url": "https://x.com", "signature_header": "X-Sig", "headers": {"x-sig": "v"}}), "config field \"headers.x-sig\" is reserved"),
        (Kind::Webhook, json!({"url": "https://x.com", "signature_header": "Host"}), "config field \"signature_header\" is reserved"),
        (Kind::Webhook, json!({"url": "https://x.com", "headers": {"a b": "v"}}), "config field \"headers.a b\" is no header name"),
        (Kind::Webhook, json!({"url": "https://x.com", "headers": {"A": "v", "a": "w"}}), "config field \"headers.a\" appears twice"),
        (Kind::Webhook, json!({"url": "https://x.com", "headers": {"A": "v\r\nB: c"}}), "config field \"headers.A\" contains a control"),
        (Kind::Webhook, json!({"url": "https://x.com", "headers": {"A": "v".repeat(1025)}}), "config field \"headers.A\" is longer than 1024"),
        (Kind::Webhook, json!({"url": "https://x.com", "hmac_secret": "whsec_!!"}), "config field \"hmac_secret\" "),
        (Kind::Webhook, json!({"url": "https://x.com", "previous_hmac_secret": "a"}), "config field \"previous_hmac_secret\" needs"),
        (Kind::Webhook, json!({"url": "https://x.com", "hmac_secret": "•••"}), "config field \"hmac_secret\" contains part of the mask"),
        (Kind::Webhook, json!({"url": "https://x.com", "hmac_secret": "sealed:v1:half a line"}), "config field \"hmac_secret\" begins as a sealed value and is none"),
        (Kind::Webhook, json!({"url": "https://x.com", "headers": {"A": "sealed:v1:%"}}), "config field \"headers.A\" begins as a sealed value"),
        (Kind::Webhook, json!({"url": "https://x.com", "retry_schedule": 5}), "config field \"retry_schedule\" must be a list"),
        (Kind::Webhook, json!({"url": "https://x.com", "retry_schedule": [-1]}), "config field \"retry_schedule\" holds -1"),
        (Kind::Webhook, json!({"url": "https://x.com", "retry_schedule": [1.5]}), "config field \"retry_schedule\" holds 1.5"),
        (Kind::Webhook, json!({"url": "https://x.com", "retry_schedule": vec![1; 21]}), "config field \"retry_schedule\" has 21"),
        (Kind::Webhook, json!({"url": "https://x.com", "max_age": "soon"}), "config field \"max_age\" is no age"),
        (Kind::Webhook, json!({"url": "https://x.com", "max_age": 0}), "config field \"max_age\" is no age"),
        (Kind::Webhook, json!({"url": "https://x.com", "template": {"subject": "x"}}), "config field \"template.subject\" is unknown"),
        (Kind::Webhook, json!({"url": "https://x.com", "template": {"body": 7}}), "config field \"template.body\" must be a string"),
        (Kind::Email, json!({}), "config field \"to_addrs\" is required"),
        (Kind::Email, json!({"to_addrs": "a@b.com"}), "config field \"to_addrs\" must be a list"),
        (Kind::Email, json!({"to_addrs": []}), "config field \"to_addrs\" has 0 entries"),
        (Kind::Email, json!({"to_addrs": ["a"]}), "config field \"to_addrs\" holds \"a\", which is no mail address"),
        (Kind::Email, json!({"to_addrs": ["a@b.com\r\nBcc: c@d.com"]}), "config field \"to_addrs\" holds"),
        (Kind::Email, json!({"to_addrs": ["a@b.com"], "smtp_port": 587}), "config field \"smtp_port\" needs \"smtp_host\""),
        (Kind::Email, json!({"to_addrs": ["a@b.com"], "smtp_host": "h", "smtp_port": 26}), "config field \"smtp_port\" must be 25, 465, 587 or 2525, not 26"),
        (Kind::Email, json!({"to_addrs": ["a@b.com"], "smtp_host": "h", "smtp_tls": false}), "config field \"smtp_tls\" can be false on port 25 only"),
        (Kind::Email, json!({"to_addrs": ["a@b.com"], "smtp_host": "h", "smtp_pass": "x"}), "config field \"smtp_user\" is required"),
        (Kind::Email, json!({"to_addrs": ["a@b.com"], "smtp_host": "h", "smtp_port": 25, "smtp_tls": false, "smtp_user": "u@b.com", "smtp_pass": "x"}), "config field \"smtp_pass\" is not sent without TLS"),
        (Kind::Email, json!({"to_addrs": ["a@b.com"], "smtp_host": "h", "smtp_user": "bob"}), "config field \"from_addr\" is required"),
        (Kind::Email, json!({"to_addrs": ["a@b.com"], "smtp_host": "a b"}), "config field \"smtp_host\" is no host name"),
        (Kind::Slack, json!({"webhook_url": "https://hooks.slack.com.evil.com/x"}), "config field \"webhook_url\" is not on hooks.slack.com"),
        (Kind::Slack, json!({"webhook_url": "http://hooks.slack.com/x"}), "config field \"webhook_url\" must be https"),
        (Kind::Slack, json!({"webhook_url": "https://hooks.slack.com:8443/x"}), "config field \"webhook_url\" is not on"),
        (Kind::Telegram, json!({"bot_token": "ab:cd", "chat_id": 1}), "config field \"bot_token\" is no bot token"),
        (Kind::Telegram, json!({"bot_token": "1:c/d", "chat_id": 1}), "config field \"bot_token\" is no bot token"),
        (Kind::Telegram, json!({"bot_token": "1:cd", "chat_id": "chat"}), "config field \"chat_id\" is no chat"),
        (Kind::Telegram, json!({"bot_token": "1:cd"}), "config field \"chat_id\" is required"),
        (Kind::Pagerduty, json!({"integration_key": "short"}), "config field \"integration_key\" is not 32"),
        (Kind::Pagerduty, json!({"integration_key": KEY, "severity_default": "fatal"}), "config field \"severity_default\" is no severity"),
        (Kind::Pagerduty, json!({"integration_key": KEY, "severity_map": {"task.failed": "fatal"}}), "config field \"severity_map\" is no severity"),
        (Kind::Discord, json!({"webhook_url": "https://discord.org/x"}), "config field \"webhook_url\" is not on discord.com"),
        (Kind::Teams, json!({"webhook_url": "https://logic.azure.com/x"}), "config field \"webhook_url\" is not on *.webhook.office.com"),
        (Kind::Teams, json!({"webhook_url": "https://.logic.azure.com/x"}), "config field \"webhook_url\" "),
        (Kind::Teams, json!({"webhook_url": "https://evil-logic.azure.com/x"}), "config field \"webhook_url\" is not on"),
        (Kind::Teams, json!({"webhook_url": "https://x.logic.azure.com.evil.com/x"}), "config field \"webhook_url\" is not on"),
        (Kind::Teams, json!({"webhook_url": "http://x.logic.azure.com/x"}), "config field \"webhook_url\" must be https"),
        (Kind::Ntfy, json!({"topic": "ops"}), "config field \"url\" is required"),
        (Kind::Ntfy, json!({"url": "https://ntfy.sh"}), "config field \"topic\" is required"),
        (Kind::Ntfy, json!({"url": "https://ntfy.sh/ops", "topic": "ops"}), "config field \"url\" has a path"),
        (Kind::Ntfy, json!({"url": "http://ntfy.lan", "topic": "ops"}), "config field \"url\" must be https"),
        (Kind::Ntfy, json!({"url": "https://ntfy.sh", "topic": "a b"}), "config field \"topic\" is no topic"),
        (Kind::Ntfy, json!({"url": "https://ntfy.sh", "topic": "x".repeat(65)}), "config field \"topic\" is no topic"),
        (Kind::Ntfy, json!({"url": "https://ntfy.sh", "topic": "ops", "token": "abc"}), "config field \"token\" is no access token"),
        (Kind::Webhook, json!({"url": "https://x.com", "template": {"title": "{{ type"}}), "config field \"template.title\" is no template: line 1: "),
        (Kind::Slack, json!({"webhook_url": "https://hooks.slack.com/x", "template": {"body": "a\n{% if x %}b"}}), "config field \"template.body\" is no template: line 2: "),
        (Kind::Webhook, json!({"url": "https://x.com", "template": {"body": "{{ x | nosuch }}"}}), "config field \"template.body\" is no template"),
    ] {
        let said = refusal(kind, &config);
        assert!(said.starts_with(says), "{config}: {said}");
    }
    let big = json!({"url": "https://x.com", "template": {"body": "x".repeat(17 * 1024)}});
    assert!(refusal(Kind::Webhook, &big).contains("over 16 KiB"));
}

#[test]
fn http_is_the_superusers_to_allow() {
    let config = json!({"url": "http://x.com"});
    let rules = Rules { allow_http: true, ..Rules::default() };
    assert_eq!(
        check(Kind::Webhook, &config, &rules).unwrap().destination.as_deref(),
        Some("http://x.com:80")
    );
    assert!(check(Kind::Webhook, &config, &Rules::default()).unwrap_err().hint.contains("klaxon.allow_http"));
    // A vendor's is https always: what would not help is not named.
    let error = check(Kind::Slack, &json!({"webhook_url": "http://hooks.slack.com/x"}), &rules).unwrap_err();
    assert_eq!((error.problem.as_str(), error.hint.contains("allow_http")), ("must be https", false));
}

#[test]
fn secrets_are_taken_out_and_masked() {
    let checked = accepted(
        Kind::Webhook,
        &json!({"url": "https://x.com", "hmac_secret": "s3cret", "headers": {"Authorization": "Bearer t", "X-None": null}, "template": null}),
    );
    assert_eq!(
        checked.stored,
        json!({"url": "https://x.com", "hmac_secret": MASK, "headers": {"Authorization": MASK}})
    );
    let names: Vec<&str> = checked.secrets.iter().map(|secret| secret.name.as_str()).collect();
    assert_eq!(names, ["headers.Authorization", "hmac_secret"]);
    assert!(!format!("{checked:?}").contains("s3cret"));
}

#[test]
fn a_mask_keeps_and_a_sealed_value_is_carried() {
    for (text, expected) in [("", "Keep"), (MASK, "Keep"), ("sealed:v1:AAAA", "Sealed(…)"), ("x", "Clear(…)")]
    {
        let checked = accepted(Kind::Webhook, &json!({"url": "https://x.com", "hmac_secret": text}));
        assert_eq!(format!("{:?}", checked.secrets[0].value), expected);
    }
    // Where the secret itself says where it goes, only the clear one can be asked.
    let kept = accepted(Kind::Slack, &json!({"webhook_url": MASK}));
    assert_eq!(kept.destination, None);
}

#[test]
fn what_is_stored_opens_again() {
    let config = json!({
        "url": "https://x.com/a", "hmac_secret": "s", "headers": {"A": "v"}, "retry_schedule": [0, 5], "max_age": "2 h",
        "template": {"title": "{{ type }}"}
    });
    let checked = accepted(Kind::Webhook, &config);
    let secrets: BTreeMap<String, SecretString> = checked
        .secrets
        .into_iter()
        .filter_map(|secret| match secret.value {
            Given::Clear(value) => Some((secret.name, SecretString::from(value.as_str()))),
            _ => None,
        })
        .collect();
    let settings = open(Kind::Webhook, &checked.stored, &secrets).unwrap();
    assert_eq!(settings.delivery.retry_schedule, Some(vec![0, 5]));
    assert_eq!(settings.delivery.max_age, Some(std::time::Duration::from_secs(7200)));
    assert_eq!(settings.target.destination().as_deref(), Some("https://x.com:443"));
    let mut secrets = Vec::new();
    settings.target.secrets(&mut |secret| secrets.push(secret.to_owned()));
    assert_eq!(secrets, ["v", "s"]);

    let lost = open(Kind::Webhook, &checked.stored, &BTreeMap::new()).unwrap_err();
    assert!(lost.to_string().contains("has no stored secret"), "{lost}");
}

fn secret_of(field: &str, value: &str) -> BTreeMap<String, SecretString> {
    BTreeMap::from([(field.to_owned(), SecretString::from(value))])
}

#[test]
fn what_was_kept_from_an_earlier_writing_does_not_make_it_too_long() {
    // Ten headers of a first writing, masked, beside a template of a second: each within the bound.
    let headers: serde_json::Map<String, Value> = (0..10).map(|i| (format!("X-{i}"), json!(MASK))).collect();
    let second = json!({"url": "https://x.com", "headers": headers, "template": {"body": "é".repeat(4096)}});
    let stored = accepted(Kind::Webhook, &second).stored;
    let secrets = (0..10)
        .map(|i| (format!("headers.X-{i}"), SecretString::from("v".repeat(1024))))
        .collect::<BTreeMap<_, _>>();
    assert!(open(Kind::Webhook, &stored, &secrets).is_ok());
}

#[test]
fn what_was_sealed_elsewhere_is_judged_when_it_is_opened() {
    for (kind, stored, field, value, says) in [
        (
            Kind::Slack,
            json!({"webhook_url": MASK}),
            "webhook_url",
            "https://evil.com/x",
            "is not on hooks.slack.com",
        ),
        (Kind::Slack, json!({"webhook_url": MASK}), "webhook_url", MASK, "was sealed without its secret"),
        (
            Kind::Slack,
            json!({"webhook_url": MASK}),
            "webhook_url",
            "sealed:v1:AAAA",
            "was sealed without its secret",
        ),
        (Kind::Discord, json!({"webhook_url": MASK}), "webhook_url", "", "was sealed without its secret"),
        (
            Kind::Telegram,
            json!({"bot_token": MASK, "chat_id": 1}),
            "bot_token",
            "no token",
            "is no bot token",
        ),
        (Kind::Pagerduty, json!({"integration_key": MASK}), "integration_key", "short", "is not 32"),
        (
            Kind::Webhook,
            json!({"url": "https://x.com", "hmac_secret": MASK}),
            "hmac_secret",
            "a\nb",
            "contains a control",
        ),
        (
            Kind::Webhook,
            json!({"url": "https://x.com", "hmac_secret": MASK}),
            "hmac_secret",
            "whsec_%",
            "whsec_",
        ),
        (
            Kind::Webhook,
            json!({"url": "https://x.com", "headers": {"A": MASK}}),
            "headers.A",
            "v\r\nB: c",
            "contains a control",
        ),
    ] {
        let said = open(kind, &stored, &secret_of(field, value)).unwrap_err().to_string();
        assert!(said.starts_with(&format!("config field \"{field}\"")) && said.contains(says), "{said}");
    }
}

#[test]
fn ages_are_seconds_or_have_a_unit() {
    let age = |age: Value| {
        let config = json!({"url": "https://x.com", "max_age": age});
        let stored = check(Kind::Webhook, &config, &Rules::default()).ok()?.stored;
        open(Kind::Webhook, &stored, &BTreeMap::new()).unwrap().delivery.max_age.map(|age| age.as_secs())
    };
    for (written, seconds) in [
        (json!(90), Some(90)),
        (json!("90"), Some(90)),
        (json!("5s"), Some(5)),
        (json!("90 min"), Some(5400)),
        (json!("12 h"), Some(43_200)),
        (json!("3 days"), Some(259_200)),
        (json!(366 * 86_400), Some(366 * 86_400)),
        (json!(366 * 86_400 + 1), None),
        (json!(-1), None),
        (json!(1.5), None),
        (json!("h"), None),
        (json!("1 week"), None),
        (json!("99999999999999999999 d"), None),
        (json!([1]), None),
    ] {
        assert_eq!(age(written.clone()), seconds, "{written}");
    }
}

#[test]
fn a_kind_is_one_of_those_there_are() {
    for kind in Kind::ALL.iter().copied() {
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
    assert_eq!(
        "sms".parse::<Kind>().unwrap_err().to_string(),
        "unknown channel kind \"sms\": there are webhook, email, slack, telegram, pagerduty, discord, teams, ntfy"
    );
}

#[test]
fn every_reserved_header_is_refused_whatever_its_case() {
    for name in [
        "Host",
        "Cookie",
        "Set-Cookie",
        "Proxy-Authorization",
        "Proxy-Anything",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Expect",
        "Content-Length",
        "Content-Type",
        "Content-Encoding",
        "Forwarded",
        "X-Forwarded-Host",
        "X-Real-IP",
        "webhook-signature",
        "X-Klaxon-Signature",
    ] {
        for name in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
            let said = refusal(Kind::Webhook, &json!({"url": "https://x.com", "headers": {&name: "v"}}));
            assert!(said.contains("is reserved"), "{said}");
        }
    }
    for name in ["Authorization", "X-Api-Key", "User-Agent", &"x".repeat(100)] {
        accepted(Kind::Webhook, &json!({"url": "https://x.com", "headers": {name: "v"}}));
    }
}

proptest::proptest! {
    #[test]
    fn no_text_in_a_secrets_place_shows_or_panics(text in "\\PC{1,80}") {
        for (kind, config) in [
            (Kind::Webhook, json!({"url": &text, "hmac_secret": &text, "headers": {&text: &text}})),
            (Kind::Webhook, json!({"url": "https://x.com", "hmac_secret": format!("secret {text}")})),
            (Kind::Slack, json!({"webhook_url": &text})),
            (Kind::Telegram, json!({"bot_token": &text, "chat_id": &text})),
            (Kind::Email, json!({"smtp_host": &text, "smtp_user": &text, "smtp_pass": &text, "to_addrs": [&text]})),
        ] {
            if let Ok(checked) = check(kind, &config, &Rules::default()) {
                let shown = format!("{:?} {}", checked.secrets, checked.stored);
                proptest::prop_assert!(!shown.contains("secret "), "{}", shown);
            }
        }
    }
}
