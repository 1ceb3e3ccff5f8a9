//! What answers mean: tables, in which the first row that fits decides. A kind's own come before
//! those of all.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use http::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::form::{Form, Reply};

mod mail;

pub use mail::{MAIL, MailRow, read_mail};

/// Longest pause another side can ask for.
const LONGEST: Duration = Duration::from_secs(3600);

/// What follows from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived.
    Sent,
    /// It may arrive later; not before `after`, if the other side said so.
    Retry {
        /// What the other side asked for, at most an hour.
        after: Option<Duration>,
    },
    /// It will never arrive.
    Dead {
        /// Whether that is true of the channel, and not of this message alone.
        disable: bool,
    },
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What follows.
    pub verdict: Verdict,
    /// HTTP status or SMTP reply.
    pub code: Option<i32>,
    /// What went wrong, fit to be shown.
    pub error: Option<String>,
    /// What a failure was answered, fit to be shown.
    pub body: Option<String>,
}

impl Answer {
    /// An attempt that came to nothing, and may to something.
    #[must_use]
    pub fn retry(error: String) -> Self {
        Self { verdict: Verdict::Retry { after: None }, code: None, error: Some(error), body: None }
    }

    /// One that never will.
    #[must_use]
    pub fn dead(error: String) -> Self {
        Self { verdict: Verdict::Dead { disable: false }, code: None, error: Some(error), body: None }
    }
}

/// A row of a table of HTTP answers.
#[derive(Debug)]
pub struct Row {
    statuses: Statuses,
    said: Said,
    means: Means,
}

#[derive(Debug)]
enum Statuses {
    Range(RangeInclusive<u16>),
    Among(&'static [u16]),
}

/// What a body says.
#[derive(Debug)]
pub enum Said {
    /// Whatever it does.
    Anything,
    /// One of these words and nothing else.
    Word(&'static [&'static str]),
    /// One of these texts somewhere, in whichever case.
    Text(&'static [&'static str]),
    /// JSON with one of these numbers as its `code`.
    Code(&'static [i64]),
}

/// What an answer means.
#[derive(Debug)]
pub enum Means {
    /// It arrived.
    Sent,
    /// It may arrive later; the first place that says when is believed.
    Retry(&'static [Pause]),
    /// This message never will.
    Dead,
    /// No message of the channel will.
    Disable,
}

/// Where an answer says how long to wait.
#[derive(Debug)]
pub enum Pause {
    /// `Retry-After`, seconds or a date.
    RetryAfter,
    /// Seconds with a fraction, in a header.
    Seconds(&'static str),
    /// Seconds with a fraction, in the body's JSON at this path.
    Json(&'static [&'static str]),
}

/// What HTTP answers mean, unless a vendor says otherwise. 2xx arrived. 410 says that nobody wants
/// messages there any more. Everything else may pass: Standard Webhooks has receivers answer what they
/// like while they are being repaired, so it is retried by the channel's schedule. Redirects are
/// failures: a message goes where the channel says.
pub static HTTP: [Row; 3] = [
    Row { statuses: Statuses::Range(200..=299), said: Said::Anything, means: Means::Sent },
    Row::of(410, Means::Disable),
    Row::any(Said::Anything, Means::Retry(&[Pause::RetryAfter])),
];

impl Row {
    pub(crate) const fn of(status: u16, means: Means) -> Self {
        Self::saying(status, Said::Anything, means)
    }

    pub(crate) const fn saying(status: u16, said: Said, means: Means) -> Self {
        Self::within(status..=status, said, means)
    }

    pub(crate) const fn within(statuses: RangeInclusive<u16>, said: Said, means: Means) -> Self {
        Self { statuses: Statuses::Range(statuses), said, means }
    }

    pub(crate) const fn among(statuses: &'static [u16], means: Means) -> Self {
        Self { statuses: Statuses::Among(statuses), said: Said::Anything, means }
    }

    pub(crate) const fn any(said: Said, means: Means) -> Self {
        Self::within(0..=u16::MAX, said, means)
    }

    /// Whether it is this row that an answer fits.
    #[must_use]
    pub fn fits(&self, reply: &Reply) -> bool {
        let text = || String::from_utf8_lossy(&reply.body);
        let statuses = match &self.statuses {
            Statuses::Range(range) => range.contains(&reply.status),
            Statuses::Among(statuses) => statuses.contains(&reply.status),
        };
        statuses
            && match self.said {
                Said::Anything => true,
                Said::Word(words) => words.contains(&text().trim()),
                Said::Text(texts) => {
                    let text = text().to_lowercase();
                    texts.iter().any(|words| text.contains(words))
                }
                Said::Code(codes) => json(&reply.body, &["code"])
                    .and_then(|code| code.as_i64())
                    .is_some_and(|code| codes.contains(&code)),
            }
    }
}

/// What an HTTP answer means to a kind.
#[must_use]
pub fn read(form: &dyn Form, reply: &Reply) -> Answer {
    let row = form.answers().iter().chain(&HTTP).find(|row| row.fits(reply));
    let verdict = match row.map(|row| &row.means) {
        Some(Means::Sent) => Verdict::Sent,
        Some(Means::Retry(pauses)) => {
            Verdict::Retry { after: pauses.iter().find_map(|pause| pause.read(reply)) }
        }
        Some(Means::Dead) => Verdict::Dead { disable: false },
        Some(Means::Disable) => Verdict::Dead { disable: true },
        None => Verdict::Retry { after: None },
    };
    let code = Some(reply.status.into());
    if verdict == Verdict::Sent {
        return Answer { verdict, code, error: None, body: None };
    }
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    Answer {
        verdict,
        code,
        error: Some(format!("HTTP {}", reply.status)),
        body: (!text.is_empty()).then_some(text),
    }
}

impl Pause {
    fn read(&self, reply: &Reply) -> Option<Duration> {
        match self {
            Self::RetryAfter => retry_after(&reply.headers),
            Self::Seconds(header) => seconds(reply.headers.get(*header)?.to_str().ok()?.trim().parse().ok()?),
            Self::Json(path) => seconds(json(&reply.body, path)?.as_f64()?),
        }
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3), at most an hour. A date is
/// taken against the answer's own `Date`, so that no clock but the other side's matters. What does
/// not read is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
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

fn json(body: &[u8], path: &[&str]) -> Option<serde_json::Value> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    path.iter().try_fold(&value, |value, key| value.get(key)).cloned()
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

    proptest::proptest! {
        /// Whatever it says, and whatever time the other side says it is.
        #[test]
        fn no_retry_after_is_over_an_hour_or_a_panic(
            said in "[0-9]{1,30}|[+-][0-9]{1,5}|(Mon|Sun), [0-9]{2} (Jan|Feb) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT|.{0,40}",
            date in "(Mon|Sun), [0-9]{2} (Jan|Feb) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT|.{0,40}",
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
            json in proptest::num::f64::ANY,
        ) {
            let mut headers = HeaderMap::new();
            for said in [said.as_bytes(), &bytes] {
                let values = [(RETRY_AFTER, said), (DATE, date.as_bytes())];
                for (name, value) in values {
                    if let Ok(value) = http::HeaderValue::from_bytes(value) {
                        headers.insert(name, value);
                    }
                }
                proptest::prop_assert!(retry_after(&headers).is_none_or(|pause| pause <= LONGEST));
            }
            proptest::prop_assert!(seconds(json).is_none_or(|pause| pause <= LONGEST));
        }
    }

    #[test]
    fn seconds_in_json_are_believed_within_bounds() {
        let found = |body: &str| {
            let reply = Reply { body: body.into(), ..reply(429, &[]) };
            Pause::Json(&["parameters", "retry_after"]).read(&reply)
        };
        assert_eq!(found(r#"{"parameters": {"retry_after": 7}}"#), Some(Duration::from_secs(7)));
        assert_eq!(found(r#"{"parameters": {"retry_after": 1e9}}"#), Some(LONGEST));
        assert_eq!(found(r#"{"parameters": {"retry_after": -1}}"#), None);
        assert_eq!(found("{}"), None);
        assert_eq!(found("not json"), None);
    }
}
