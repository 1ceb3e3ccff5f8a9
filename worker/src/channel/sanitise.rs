//! What may be written down of an answer: no secret, no control character, no more than 8 KiB.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use klaxon_channel::form::Form;

use super::{Answer, Smtp};

/// Bytes of an error or a body that are stored.
const STORED: usize = 8192;
/// What stands where a secret stood.
const STRUCK: &str = "[secret]";
/// Shorter ones would strike ordinary words.
const SHORTEST: usize = 4;
/// A shorter beginning of a secret gives nothing of it away.
const TORN: usize = 8;

/// An answer fit to be stored and shown; `own` is the worker's mail server.
pub fn answer(answer: Answer, target: &dyn Form, own: Option<&Smtp>) -> Answer {
    if answer.error.is_none() && answer.body.is_none() {
        return answer;
    }
    let secrets = secrets(target, own);
    let clean = |text: Option<String>| text.map(|text| self::text(&text, &secrets));
    Answer { error: clean(answer.error), body: clean(answer.body), ..answer }
}

/// A text without the secrets of a channel.
pub fn strike(text: &str, target: &dyn Form, own: Option<&Smtp>) -> String {
    struck(text, &secrets(target, own))
}

fn struck(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), STRUCK);
        }
    }
    text
}

/// Strikes secrets, replaces control characters, cuts at a character's boundary.
fn text(text: &str, secrets: &[String]) -> String {
    let mut text = struck(text, secrets);
    strike_torn(&mut text, secrets);
    let mut clean = String::with_capacity(text.len().min(STORED));
    for c in text.chars() {
        let c = match c {
            // Lines end here: what is stored is one line in a log as well.
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        };
        if clean.len() + c.len_utf8() > STORED {
            break;
        }
        clean.push(c);
    }
    clean
}

/// An answer is read up to a limit, which may have fallen within a secret: its beginning then stands
/// at the end, perhaps with half a character after it.
fn strike_torn(text: &mut String, secrets: &[String]) {
    let end = text.trim_end_matches('\u{fffd}').len();
    let torn = |secret: &String| {
        (TORN..secret.len()).rev().find(|at| {
            secret.is_char_boundary(*at) && text.as_bytes()[..end].ends_with(&secret.as_bytes()[..*at])
        })
    };
    if let Some(longest) = secrets.iter().filter_map(torn).max() {
        text.truncate(end - longest);
        text.push_str(STRUCK);
    }
}

/// Every secret of a channel, as it is and as receivers encode what they echo; longest first, so
/// that none hides inside another.
fn secrets(target: &dyn Form, own: Option<&Smtp>) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |secret: &str| {
        if secret.len() >= SHORTEST {
            all.extend(spellings(secret));
        }
    };
    if let Some(login) = own.and_then(|own| own.server.login.as_ref()) {
        login.secrets(&mut add);
    }
    target.secrets(&mut add);
    all.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    all.dedup();
    all
}

/// A secret as it is, and as URLs, JSON, HTML, base64 and hexadecimal have it.
fn spellings(secret: &str) -> impl Iterator<Item = String> {
    let json = serde_json::to_string(secret).unwrap_or_default();
    let json = json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or_default().to_owned();
    let percent: String = secret
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    [
        secret.to_owned(),
        lower_escapes(&percent),
        percent,
        lower_escapes(&form),
        form,
        json.replace('/', "\\/"),
        json,
        html.replace('\'', "&#39;"),
        html.replace('\'', "&#x27;"),
        html,
        STANDARD.encode(secret),
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        hex::encode(secret),
        hex::encode_upper(secret),
    ]
    .into_iter()
}

/// `%2f` for `%2F`.
fn lower_escapes(text: &str) -> String {
    let mut left = 0;
    let lower = |c: char| match left {
        0 => {
            left = if c == '%' { 2 } else { 0 };
            c
        }
        _ => {
            left -= 1;
            c.to_ascii_lowercase()
        }
    };
    text.chars().map(lower).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use klaxon_channel::config::{self, Given, Rules};
    use klaxon_channel::form::{Login, Server};
    use klaxon_channel::kind::{Kind, Target};
    use serde_json::{Value, json};

    use super::*;
    use crate::channel::Verdict;

    fn opened(kind: Kind, config: Value) -> Target {
        let checked = config::check(kind, &config, &Rules::default()).unwrap();
        let secrets = checked.secrets.into_iter().map(|secret| {
            let Given::Clear(value) = secret.value else { panic!("a secret in clear") };
            (secret.name, value.as_str().into())
        });
        config::open(kind, &checked.stored, &secrets.collect::<BTreeMap<_, _>>()).unwrap().target
    }

    fn slack() -> Target {
        opened(Kind::Slack, json!({"webhook_url": "https://hooks.slack.com/services/T/B/xyz"}))
    }

    fn said(target: &Target, body: &str) -> String {
        let raw = Answer {
            verdict: Verdict::Retry { after: None },
            code: None,
            error: None,
            body: Some(body.into()),
        };
        answer(raw, &**target, None).body.unwrap()
    }

    #[test]
    fn secrets_are_struck_however_they_are_written() {
        let target = opened(
            Kind::Webhook,
            json!({"url": "https://x.com", "headers": {"Authorization": "Bearer t0k/en+1"}, "hmac_secret": "wh\"sec"}),
        );
        for body in [
            "got Bearer t0k/en+1",
            "got t0k/en+1",
            "got t0k%2Fen%2B1",
            "got t0k%2fen%2b1",
            "got Bearer+t0k%2Fen%2B1",
            "got Bearer%20t0k%2Fen%2B1",
            "got t0k\\/en+1",
            &format!("got {}", hex::encode("t0k/en+1")),
            &format!("got {}", STANDARD_NO_PAD.encode("Bearer t0k/en+1")),
            "{\"k\": \"wh&quot;sec\"}",
            &format!("got {}", STANDARD.encode("t0k/en+1")),
            "{\"k\": \"wh\\\"sec\"}",
        ] {
            let clean = said(&target, body);
            assert!(
                clean.contains(STRUCK) && !clean.contains("t0k") && !clean.contains("sec\""),
                "{body}: {clean}"
            );
        }
        let slack = slack();
        assert_eq!(said(&slack, "no such hook /services/T/B/xyz"), "no such hook [secret]");
        let escaped = r#"{"url": "https:\/\/hooks.slack.com\/services\/T\/B\/xyz"}"#;
        assert_eq!(said(&slack, escaped), r#"{"url": "[secret]"}"#);
        let telegram = opened(Kind::Telegram, json!({"bot_token": "12:AbCdEfGh", "chat_id": 1}));
        assert_eq!(said(&telegram, "bot AbCdEfGh is unknown"), "bot [secret] is unknown");
    }

    #[test]
    fn passwords_are_struck_as_they_were_sent() {
        let basic = opened(
            Kind::Webhook,
            json!({"url": "https://x.com", "headers": {"Authorization": format!("Basic {}", STANDARD.encode("ann:p4ssword"))}}),
        );
        for body in ["ann:p4ssword", "wrong: p4ssword", &STANDARD.encode("ann:p4ssword")] {
            assert!(said(&basic, body).ends_with(STRUCK) && !said(&basic, body).contains("p4ss"), "{body}");
        }
        let login = Login { user: "bob".into(), pass: "w0rker-pass".into() };
        let server = Server { host: "m".into(), port: 587, tls: true, implicit: None, login: Some(login) };
        let own = Smtp { server, from: None, from_name: "k".into() };
        let email = opened(Kind::Email, json!({"to_addrs": ["ann@example.com"]}));
        for said in ["w0rker-pass", &STANDARD.encode("\0bob\0w0rker-pass")] {
            let raw = Answer::retry(format!("535 {said}"));
            assert_eq!(answer(raw, &*email, Some(&own)).error.unwrap(), "535 [secret]");
        }
    }

    #[test]
    fn a_secret_torn_by_the_limit_is_struck() {
        let slack = slack();
        assert_eq!(said(&slack, "see https://hooks.slack.com/serv"), "see [secret]");
        assert_eq!(said(&slack, "see /services/T\u{fffd}"), "see [secret]");
        assert_eq!(said(&slack, "see https:/"), "see https:/");
        assert_eq!(said(&slack, "https://hooks are fine"), "https://hooks are fine");
    }

    #[test]
    fn what_is_stored_is_printable_and_bounded() {
        let slack = slack();
        assert_eq!(said(&slack, "a\0b\u{1b}[0m\r\nc"), "a\u{fffd}b\u{fffd}[0m  c");
        let long = said(&slack, &"é".repeat(8192));
        assert_eq!(long.len(), 8192);
        let odd = said(&slack, &format!("a{}", "é".repeat(8192)));
        assert_eq!(odd.len(), 8191);
    }
}
