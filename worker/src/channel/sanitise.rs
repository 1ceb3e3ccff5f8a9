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

/// A secret as it is, and as URLs, JSON, HTML, base64 and hexadecimal have it; and as they have what they
/// have encoded once already.
fn spellings(secret: &str) -> Vec<String> {
    let mut all = vec![secret.to_owned()];
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    for encoded in [percent(secret), percent(&percent(secret)), form] {
        all.push(lower_escapes(&encoded));
        all.push(encoded);
    }
    for json in in_any_json(&in_json(secret)) {
        // A text within a text, as a gateway quotes what is behind it.
        all.push(in_json(&json));
        all.push(json);
    }
    let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let quoted = html.replace('"', "&quot;");
    all.extend([quoted.replace('\'', "&#39;"), quoted.replace('\'', "&#x27;"), quoted]);
    // As Go's html/template has it.
    all.push(html.replace('"', "&#34;").replace('\'', "&#39;").replace('+', "&#43;"));
    all.extend([STANDARD.encode(secret), STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)]);
    all.extend(within_base64(secret));
    all.extend([hex::encode(secret), hex::encode_upper(secret)]);
    all
}

/// What of a secret is the same in the base64 of any text that it stands in, by where in it that is.
fn within_base64(secret: &str) -> impl Iterator<Item = String> {
    // A character is six bits: so many of the first hold bits of what stands before.
    [(0, 0), (1, 2), (2, 3)]
        .into_iter()
        .flat_map(move |(before, shared)| {
            let bytes = [&b"\0\0"[..before], secret.as_bytes()].concat();
            let whole = bytes.len() * 8 / 6;
            [STANDARD_NO_PAD, URL_SAFE_NO_PAD].map(|base64| base64.encode(&bytes)[shared..whole].to_owned())
        })
        .filter(|core| core.len() >= TORN)
}

fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// What stands between the quotes.
fn in_json(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap_or_default();
    json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or_default().to_owned()
}

/// JSON as the writers of several languages have it: PHP with its slashes; Go and PHP fit for pages; Python, PHP
/// and .NET in ASCII alone.
fn in_any_json(json: &str) -> impl Iterator<Item = String> {
    let solidus = [json.to_owned(), json.replace('/', "\\/")];
    solidus.into_iter().flat_map(|json| {
        ["", "<>&", "<>&'+"].into_iter().flat_map(move |special| {
            let json = json.clone();
            [(false, false), (true, false), (true, true)].into_iter().map(move |(ascii, upper)| {
                let json = if special.contains('+') { json.replace("\\\"", "\\u0022") } else { json.clone() };
                unicode_escapes(&json, special, ascii, upper)
            })
        })
    })
}

fn unicode_escapes(json: &str, special: &str, ascii: bool, upper: bool) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if ascii && !c.is_ascii() || special.contains(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") });
            }
        } else {
            out.push(c);
        }
    }
    out
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

    /// Receivers that quote a whole request in base64 encode what stands around a secret, too.
    #[test]
    fn secrets_are_struck_wherever_they_stand_in_base64() {
        let target = opened(
            Kind::Webhook,
            json!({"url": "https://x.com", "headers": {"Authorization": "Bearer t0ken-1234567890"}, "hmac_secret": "größe+<&>/'\"x"}),
        );
        for before in 0..6 {
            for after in 0..4 {
                let request = format!(
                    "{}t0ken-1234567890{}größe+<&>/'\"x{}",
                    "a".repeat(before),
                    "b".repeat(after),
                    "c".repeat(after)
                );
                for encoded in [STANDARD.encode(&request), URL_SAFE_NO_PAD.encode(&request)] {
                    let clean = said(&target, &format!("you sent {encoded}"));
                    assert_eq!(clean.matches(STRUCK).count(), 2, "{request}: {clean}");
                    // What is left between the two are some bits of their ends.
                    assert!(clean.len() < "you sent ".len() + 2 * STRUCK.len() + 4 * before + 24, "{clean}");
                }
            }
        }
    }

    #[test]
    fn secrets_are_struck_as_other_languages_and_gateways_write_them() {
        let target =
            opened(Kind::Webhook, json!({"url": "https://x.com", "hmac_secret": "größe+<&>/'\"x 😀"}));
        for body in [
            // json.dumps, json_encode, encoding/json, System.Text.Json.
            r#"gr\u00f6\u00dfe+<&>/'\"x \ud83d\ude00"#,
            r#"gr\u00f6\u00dfe+<&>\/'\"x \ud83d\ude00"#,
            r#"größe+\u003c\u0026\u003e/'\"x 😀"#,
            r#"gr\u00F6\u00DFe\u002B\u003C\u0026\u003E/\u0027\u0022x \uD83D\uDE00"#,
            // Go's html/template.
            "größe&#43;&lt;&amp;&gt;/&#39;&#34;x 😀",
            r#"{\"seen\": \"größe+<&>/'\\\"x 😀\"}"#,
            "gr%25C3%25B6%25C3%259Fe%252B%253C%2526%253E%252F%2527%2522x%2520%25F0%259F%2598%2580",
        ] {
            let clean = said(&target, &format!("you sent {body}"));
            assert!(clean.contains(STRUCK) && !clean.contains("gr"), "{body}: {clean}");
        }
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
