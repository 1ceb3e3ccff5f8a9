//! What HTTP answers mean, unless a vendor says otherwise.

use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::{Answer, Verdict};
use crate::egress::{Refusal, Reply, Sent, Step};

/// Longest pause another side can ask for.
const LONGEST: Duration = Duration::from_secs(3600);

/// Recipients named in an error.
const NAMED: usize = 10;

/// 2xx arrived. 410 says that nobody wants messages there any more. Everything else may pass:
/// Standard Webhooks has receivers answer what they like while they are being repaired, so it is
/// retried by the channel's schedule. Redirects are failures: a message goes where the channel says.
pub fn http(reply: &Reply) -> Answer {
    match reply.status {
        200..=299 => Answer::sent(reply.status.into()),
        410 => failed(reply, Verdict::Dead { disable: true }),
        _ => failed(reply, Verdict::Retry { after: retry_after(&reply.headers) }),
    }
}

/// A failure with its status and body.
pub fn failed(reply: &Reply, verdict: Verdict) -> Answer {
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    Answer {
        verdict,
        code: Some(reply.status.into()),
        error: Some(format!("HTTP {}", reply.status)),
        body: (!text.is_empty()).then_some(text),
    }
}

/// 2yz arrived, unless some of its recipients are yet to have it. 4yz may pass (RFC 5321 section
/// 4.2.1), and so may what a server says before it was told of any mail: it speaks of itself or of
/// whoever logs in. 5yz to the sender, the recipients or the content will be said again.
pub fn mail(sent: Sent) -> Answer {
    match sent {
        Sent::Accepted { code, reached, refused, deferred } => {
            let refused = listed(&refused, |name, code| format!("{name} refused with SMTP {code}"));
            let waiting = listed(&deferred, |name, code| format!("{name}: SMTP {code}"));
            let (Some(waiting), Some(first)) = (waiting, deferred.into_iter().next()) else {
                let error = refused.map(|refused| format!("not to all recipients: {refused}"));
                return Answer { error, ..Answer::sent(code) };
            };
            let others = if reached == 1 { "1 other".into() } else { format!("{reached} others") };
            let mut error = format!("deferred for {waiting}; sent to {others}");
            error.extend(refused.map(|refused| format!("; {refused}")));
            Answer { code: Some(first.code), body: Some(first.said), ..Answer::retry(error) }
        }
        Sent::Refused(refusal) => {
            let error = match &refusal.recipient {
                Some(recipient) => format!("SMTP {} to the recipient {recipient}", refusal.code),
                None => format!("SMTP {} to {}", refusal.code, refusal.step),
            };
            let final_word = refusal.permanent && !matches!(refusal.step, Step::Connect | Step::Login);
            let answer = if final_word { Answer::dead(error) } else { Answer::retry(error) };
            Answer { code: Some(refusal.code), body: Some(refusal.said), ..answer }
        }
        Sent::Failed(problem) => Answer::retry(problem),
    }
}

/// Who was refused, and how.
fn listed(refusals: &[Refusal], say: impl Fn(&str, i32) -> String) -> Option<String> {
    let name = |refusal: &Refusal| say(refusal.recipient.as_deref().unwrap_or("a recipient"), refusal.code);
    let mut list = refusals.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
    if refusals.len() > NAMED {
        list.push_str(&format!(" and {} more", refusals.len() - NAMED));
    }
    (!list.is_empty()).then_some(list)
}

/// `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3), at most an hour. A date is
/// taken against the answer's own `Date`, so that no clock but the other side's matters. What does
/// not read is ignored.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
        // More than a number holds is more than an hour as well.
        return Some(text.parse().map_or(LONGEST, Duration::from_secs).min(LONGEST));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let now = headers
        .get(DATE)
        .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok())
        .unwrap_or_else(SystemTime::now);
    until.duration_since(now).ok().map(|pause| pause.min(LONGEST))
}

/// Seconds in a JSON answer, as Telegram and Discord give them; at most an hour.
pub fn json_seconds(body: &[u8], path: &[&str]) -> Option<Duration> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    seconds(path.iter().try_fold(&value, |value, key| value.get(key))?.as_f64()?)
}

/// Seconds with a fraction in a header, as Discord gives them; at most an hour.
pub fn header_seconds(headers: &HeaderMap, name: &str) -> Option<Duration> {
    seconds(headers.get(name)?.to_str().ok()?.trim().parse().ok()?)
}

fn seconds(seconds: f64) -> Option<Duration> {
    (seconds.is_finite() && seconds >= 0.0)
        .then(|| Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, headers: &[(&'static str, &str)]) -> Reply {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Reply { status, headers: map, body: b"why".to_vec() }
    }

    #[test]
    fn statuses_mean_what_they_mean() {
        let retry = Verdict::Retry { after: None };
        for (status, verdict) in [
            (200, Verdict::Sent),
            (202, Verdict::Sent),
            (204, Verdict::Sent),
            (301, retry.clone()),
            (302, retry.clone()),
            (400, retry.clone()),
            (401, retry.clone()),
            (404, retry.clone()),
            (408, retry.clone()),
            (410, Verdict::Dead { disable: true }),
            (425, retry.clone()),
            (429, retry.clone()),
            (500, retry.clone()),
            (503, retry),
        ] {
            let answer = http(&reply(status, &[]));
            assert_eq!(answer.verdict, verdict, "{status}");
            assert_eq!(answer.body.is_none(), verdict == Verdict::Sent);
        }
    }

    /// The error and the rest of an answer to a mail that reached so many.
    fn told(reached: usize, refused: &[(&str, i32)], deferred: &[(&str, i32)]) -> (Answer, String) {
        let refusals = |list: &[(&str, i32)]| -> Vec<Refusal> {
            let refusal = |&(name, code): &(&str, i32)| Refusal {
                step: Step::Recipient,
                recipient: Some(format!("{name}@example.com")),
                code,
                permanent: code >= 500,
                said: format!("to {name}"),
            };
            list.iter().map(refusal).collect()
        };
        let (refused, deferred) = (refusals(refused), refusals(deferred));
        let answer = mail(Sent::Accepted { code: 250, reached, refused, deferred });
        let error = answer.error.clone().unwrap_or_default();
        (answer, error)
    }

    #[test]
    fn who_does_not_have_a_mail_is_named() {
        let (all, said) = told(2, &[], &[]);
        assert_eq!((all, said.as_str()), (Answer::sent(250), ""));
        let (most, said) = told(1, &[("bob", 550), ("cleo", 553)], &[]);
        assert_eq!((most.verdict, most.code, most.body), (Verdict::Sent, Some(250), None));
        assert_eq!(
            said,
            "not to all recipients: bob@example.com refused with SMTP 550, cleo@example.com refused with SMTP 553"
        );
        let (some, said) = told(2, &[], &[("bob", 451)]);
        assert_eq!(some.verdict, Verdict::Retry { after: None });
        assert_eq!((some.code, some.body.as_deref()), (Some(451), Some("to bob")));
        assert_eq!(said, "deferred for bob@example.com: SMTP 451; sent to 2 others");
        let (_, said) = told(1, &[("dan", 550)], &[("bob", 451), ("cleo", 552)]);
        assert_eq!(
            said,
            "deferred for bob@example.com: SMTP 451, cleo@example.com: SMTP 552; sent to 1 other; dan@example.com refused with SMTP 550"
        );
        let many: Vec<(&str, i32)> = (0..12).map(|_| ("x", 550)).collect();
        let (_, said) = told(1, &many, &[]);
        assert!(said.matches("x@example.com").count() == NAMED && said.ends_with("550 and 2 more"), "{said}");
    }

    #[test]
    fn retry_after_is_believed_within_bounds() {
        let date = "Tue, 15 Nov 1994 08:12:31 GMT";
        for (text, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("3600", Some(3600)),
            ("99999999", Some(3600)),
            ("18446744073709551616", Some(3600)),
            ("+5", None),
            ("-1", None),
            ("soon", None),
            ("1.5", None),
            ("", None),
            ("Tue, 15 Nov 1994 08:13:31 GMT", Some(60)),
            ("Tue, 15 Nov 1994 08:11:31 GMT", None),
            ("Wed, 16 Nov 1994 08:13:31 GMT", Some(3600)),
        ] {
            let found = retry_after(&reply(503, &[("retry-after", text), ("date", date)]).headers);
            assert_eq!(found, expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn seconds_in_json_are_believed_within_bounds() {
        let found = |body: &str| json_seconds(body.as_bytes(), &["parameters", "retry_after"]);
        assert_eq!(found(r#"{"parameters": {"retry_after": 7}}"#), Some(Duration::from_secs(7)));
        assert_eq!(found(r#"{"parameters": {"retry_after": 1e9}}"#), Some(LONGEST));
        assert_eq!(found(r#"{"parameters": {"retry_after": -1}}"#), None);
        assert_eq!(found("{}"), None);
        assert_eq!(found("not json"), None);
    }
}
