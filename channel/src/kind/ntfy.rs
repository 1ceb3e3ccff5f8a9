//! ntfy: a push message, by a server of one's own or ntfy.sh.

use http::HeaderValue;
use http::header::AUTHORIZATION;
use klaxon_model::event_type::Severity;
use serde_json::{Map, Value, json};
use url::Url;

use crate::answer::{Means, Row};
use crate::config::{Config, ConfigError, Field, Given, Rules, field};
use crate::form::{Form, Request};
use crate::message::Message;
use crate::text::{cut, cut_bytes};

/// Characters of a heading, bytes of a text (docs.ntfy.sh/publish, "Limitations"): what is longer would
/// arrive as a file.
const TITLE: usize = 200;
const TEXT: usize = 4096;
/// Bytes of the whole, and of a text that keeps within it whatever its escapes.
const SIZE: usize = 8192;
const LESS: usize = 1000;
/// Bytes of the link.
const URL: usize = 2048;

/// A topic of an ntfy server.
pub(super) struct Ntfy {
    /// The server.
    url: Url,
    /// The topic: whoever knows it may listen, unless the server says otherwise.
    topic: String,
    /// Who publishes, where the server asks.
    token: Option<Given>,
}

impl Config for Ntfy {
    const FIELDS: &'static [Field] = &[Field::plain("url"), Field::plain("topic"), Field::secret("token")];

    fn read(map: &Map<String, Value>, rules: &Rules) -> Result<Self, ConfigError> {
        let url = field::url("url", field::required(map, "url")?, rules.allow_http)?;
        if url.path() != "/" || url.query().is_some() {
            return Err(ConfigError::new(
                "url",
                "has a path or query",
                "It is the server alone, https://ntfy.sh; the topic has a field of its own.",
            ));
        }
        let topic = field::required(map, "topic")?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if topic.len() > 64 || !topic.bytes().all(fits) {
            return Err(ConfigError::new(
                "topic",
                "is no topic",
                "1 to 64 letters, digits, hyphens and underscores.",
            ));
        }
        let token = field::secret(map, "token")?;
        match &token {
            Some(_) if url.scheme() != "https" => {
                return Err(ConfigError::new("token", "is not sent without TLS", "Set url to https."));
            }
            Some(Given::Clear(token)) if !is_token(token) => {
                return Err(ConfigError::new(
                    "token",
                    "is no access token",
                    "It looks like tk_… and is made by \"ntfy token add\".",
                ));
            }
            _ => {}
        }
        Ok(Self { url, topic: topic.to_owned(), token })
    }
}

fn is_token(token: &str) -> bool {
    let key = token.strip_prefix("tk_").unwrap_or_default();
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The server's own errors (github.com/binwiederhier/ntfy, server/errors.go).
static ANSWERS: [Row; 3] = [
    // Not with this token, not on this topic; no ntfy server.
    Row::among(&[401, 403, 404], Means::Disable),
    Row::among(&[400, 413], Means::Dead),
    // A topic that is to be an address of somebody's device and is none any more.
    Row::of(410, Means::Disable),
];

impl Form for Ntfy {
    fn destination(&self) -> Option<String> {
        Some(field::origin(&self.url))
    }

    fn secrets(&self, strike: &mut dyn FnMut(&str)) {
        strike(self.token.as_ref().and_then(|token| token.clear().ok()).unwrap_or_default());
    }

    /// Plain text: a server renders markup only where it is asked to.
    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let text = message.text();
        let mut body = json!({
            "topic": self.topic,
            // Decoded as a mail's subject is, were it not for the space.
            "title": cut(&message.title().replace("=?", "=\u{200b}?"), TITLE),
            "message": cut_bytes(text.trim(), TEXT),
            "priority": priority(message.delivery.severity),
            "tags": [tag(message)],
        });
        if let Some(url) = message.link.as_ref().filter(|url| url.len() <= URL) {
            body["click"] = url.as_str().into();
        }
        if body.to_string().len() > SIZE {
            body["message"] = cut_bytes(text.trim(), LESS).into();
        }
        let mut request = Request::json(self.url.as_str(), &body)?;
        if let (Some(token), Request::Http(post)) = (&self.token, &mut request) {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.clear()?))
                .map_err(|_| "the token cannot be sent".to_owned())?;
            value.set_sensitive(true);
            post.headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn answers(&self) -> &'static [Row] {
        &ANSWERS
    }
}

/// Of 1 to 5: 5 rings through silence, 4 vibrates long, 3 is the usual.
fn priority(severity: Option<Severity>) -> u8 {
    match severity {
        Some(Severity::Critical) => 5,
        Some(Severity::Error) => 4,
        Some(Severity::Warning | Severity::Info) | None => 3,
    }
}

/// The sign beside the heading.
fn tag(message: &Message<'_>) -> &'static str {
    match message.delivery.severity {
        _ if message.delivery.resolves.is_some() => "white_check_mark",
        Some(Severity::Critical) => "rotating_light",
        Some(Severity::Error) => "x",
        Some(Severity::Warning) => "warning",
        Some(Severity::Info) | None => "information_source",
    }
}
