//! What may be written down of an answer: no secret, no control character, no more than 8 KiB.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use klaxon_model::channel::Target;
use secrecy::{ExposeSecret as _, SecretString};

use super::Answer;

/// Bytes of an error or a body that are stored.
const STORED: usize = 8192;
/// What stands where a secret stood.
const STRUCK: &str = "[secret]";
/// Shorter ones would strike ordinary words.
const SHORTEST: usize = 4;

/// An answer fit to be stored and shown.
pub fn answer(answer: Answer, target: &Target) -> Answer {
    if answer.error.is_none() && answer.body.is_none() {
        return answer;
    }
    let secrets = secrets(target);
    let clean = |text: Option<String>| text.map(|text| self::text(&text, &secrets));
    Answer { error: clean(answer.error), body: clean(answer.body), ..answer }
}

/// Strikes secrets, replaces control characters, cuts at a character's boundary.
fn text(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), STRUCK);
        }
    }
    let mut clean = String::with_capacity(text.len().min(STORED));
    for c in text.chars() {
        let c = if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
        if clean.len() + c.len_utf8() > STORED {
            break;
        }
        clean.push(c);
    }
    clean
}

/// Every secret of a channel, as it is and as receivers encode what they echo; longest first, so
/// that none hides inside another.
fn secrets(target: &Target) -> Vec<String> {
    let given: Vec<&SecretString> = match target {
        Target::Webhook(webhook) => webhook
            .headers
            .iter()
            .map(|(_, value)| value)
            .chain(&webhook.hmac_secret)
            .chain(&webhook.previous_hmac_secret)
            .collect(),
        Target::Email(email) => email.server.iter().filter_map(|server| server.pass.as_ref()).collect(),
        Target::Slack(slack) => vec![&slack.webhook_url],
        Target::Discord(discord) => vec![&discord.webhook_url],
        Target::Telegram(telegram) => vec![&telegram.bot_token],
        Target::Pagerduty(pagerduty) => vec![&pagerduty.integration_key],
    };
    let mut all = Vec::new();
    for secret in given {
        let secret = secret.expose_secret();
        // A header is often a scheme and the secret after it; a URL's secret is its path.
        let parts = [Some(secret), secret.split_once(' ').map(|(_, rest)| rest), path(secret)];
        for part in parts.into_iter().flatten().filter(|part| part.len() >= SHORTEST) {
            all.push(part.to_owned());
            all.push(url::form_urlencoded::byte_serialize(part.as_bytes()).collect());
            all.push(STANDARD.encode(part));
            all.push(URL_SAFE_NO_PAD.encode(part));
            all.push(serde_json::to_string(part).unwrap_or_default().trim_matches('"').to_owned());
        }
    }
    all.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    all.dedup();
    all
}

fn path(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://")?;
    rest.find('/').map(|at| &rest[at..])
}

#[cfg(test)]
mod tests {
    use klaxon_model::channel::{Slack, Webhook};

    use super::*;
    use crate::channel::Verdict;

    fn said(target: &Target, body: &str) -> String {
        let raw = Answer {
            verdict: Verdict::Retry { after: None },
            code: None,
            error: None,
            body: Some(body.into()),
        };
        answer(raw, target).body.unwrap()
    }

    #[test]
    fn secrets_are_struck_however_they_are_written() {
        let target = Target::Webhook(Webhook {
            url: "https://x.com".parse().unwrap(),
            headers: vec![("Authorization".into(), "Bearer t0k/en+1".into())],
            hmac_secret: Some("wh\"sec".into()),
            previous_hmac_secret: None,
            signature_header: "X".into(),
        });
        for body in [
            "got Bearer t0k/en+1",
            "got t0k/en+1",
            "got t0k%2Fen%2B1",
            &format!("got {}", STANDARD.encode("t0k/en+1")),
            "{\"k\": \"wh\\\"sec\"}",
        ] {
            let clean = said(&target, body);
            assert!(
                clean.contains(STRUCK) && !clean.contains("t0k") && !clean.contains("sec\""),
                "{body}: {clean}"
            );
        }
        let slack = Target::Slack(Slack { webhook_url: "https://hooks.slack.com/services/T/B/xyz".into() });
        assert_eq!(said(&slack, "no such hook /services/T/B/xyz"), "no such hook [secret]");
    }

    #[test]
    fn what_is_stored_is_printable_and_bounded() {
        let slack = Target::Slack(Slack { webhook_url: "https://hooks.slack.com/services/T/B/xyz".into() });
        assert_eq!(said(&slack, "a\0b\u{1b}[0m\r\nc"), "a\u{fffd}b\u{fffd}[0m\u{fffd}\nc");
        let long = said(&slack, &"é".repeat(8192));
        assert_eq!(long.len(), 8192);
        let odd = said(&slack, &format!("a{}", "é".repeat(8192)));
        assert_eq!(odd.len(), 8191);
    }
}
