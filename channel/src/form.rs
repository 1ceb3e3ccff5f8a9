//! What a kind is asked for, and one small trait for it, in two steps: *render* is pure, from a message
//! to a request or a mail; what the answer to that means is a table. Sending is the worker's.

use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;

use crate::answer::{MailRow, Row};
use crate::config::Given;
use crate::message::Message;

/// A kind of channel, configured.
pub trait Form: Send + Sync {
    /// Scheme, host and port of where it sends, `https://host:443` or `smtp://host:587`; `None` where
    /// only a secret that is not at hand says it.
    fn destination(&self) -> Option<String>;

    /// Calls for each secret, and for each part of one that is secret by itself: what no answer may
    /// show.
    fn secrets(&self, strike: &mut dyn FnMut(&str));

    /// The request or mail of a message.
    ///
    /// # Errors
    /// What of the channel's or the worker's configuration does not allow it.
    fn render(&self, message: &Message<'_>) -> Result<Request, String>;

    /// What HTTP answers mean, where that is not [what they usually do](crate::answer::HTTP).
    fn answers(&self) -> &'static [Row] {
        &[]
    }

    /// What a mail server's answers mean, where that is not [what they usually do](crate::answer::MAIL).
    fn mail_answers(&self) -> &'static [MailRow] {
        &[]
    }
}

/// What a kind makes of a message.
#[derive(Debug)]
pub enum Request {
    /// A request.
    Http(Post),
    /// A mail, and the server to give it to.
    Mail {
        /// The server.
        server: Server,
        /// The mail.
        mail: Box<lettre::Message>,
    },
}

impl Request {
    /// JSON for a URL.
    pub(crate) fn json(url: &str, body: &Value) -> Result<Self, String> {
        // Not the parser's words: the URL may be a secret.
        let url = url.parse().map_err(|_| "the channel's address is no URL".to_owned())?;
        let body =
            serde_json::to_vec(body).map_err(|error| format!("the message cannot be written: {error}"))?;
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Ok(Self::Http(Post { url, headers: HeaderMap::from_iter(headers), body: body.into() }))
    }
}

/// A request to be.
#[derive(Debug)]
pub struct Post {
    /// Where to.
    pub url: Url,
    /// With which headers.
    pub headers: HeaderMap,
    /// And this.
    pub body: Bytes,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// The beginning of its body.
    pub body: Vec<u8>,
}

/// A mail server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name: what its certificate must say.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether TLS is required.
    pub tls: bool,
    /// TLS from the start rather than by STARTTLS; by the port (465) where it is absent.
    pub implicit: Option<bool>,
    /// Who logs in.
    pub login: Option<Login>,
}

/// Who logs in.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub pass: SecretString,
}

impl Login {
    /// The password, and as AUTH PLAIN sends it with the user (RFC 4616).
    pub fn secrets(&self, strike: &mut dyn FnMut(&str)) {
        strike(self.pass.expose_secret());
        strike(&format!("\0{}\0{}", self.user, self.pass.expose_secret()));
    }
}

/// How far a conversation with a mail server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Connection, greeting, TLS.
    Connect,
    /// User and password.
    Login,
    /// `MAIL FROM`.
    Sender,
    /// `RCPT TO`.
    Recipient,
    /// `DATA` and the mail.
    Content,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "the connection",
            Self::Login => "the login",
            Self::Sender => "the sender",
            Self::Recipient => "a recipient",
            Self::Content => "the mail",
        })
    }
}

/// A reply that says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// To what.
    pub step: Step,
    /// To whom, where it is about a recipient.
    pub recipient: Option<String>,
    /// SMTP reply code.
    pub code: i32,
    /// Whether it will always say so (5xx). To a recipient 552 is taken for 452, "too many
    /// recipients": RFC 821 said 552 there, and some servers still do (RFC 5321 section 4.5.3.1.10).
    pub permanent: bool,
    /// Its words.
    pub said: String,
}

/// What the server said of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It took it for some recipients at least, by this attempt or an earlier one.
    Accepted {
        /// SMTP reply code, of the last time it took it.
        code: i32,
        /// How many have it.
        reached: usize,
        /// What it said of those it refused for good.
        refused: Vec<Refusal>,
        /// What it said of those it refused for now, to whom alone the next attempt is made.
        deferred: Vec<Refusal>,
    },
    /// It took it for nobody.
    Refused(Refusal),
    /// There was no answer: what failed, without an address.
    Failed(String),
}

/// A URL that is a secret is one for its path, of which the last part is the token.
pub(crate) fn strike_url(url: &Given, strike: &mut dyn FnMut(&str)) {
    let url = url.clear().unwrap_or_default();
    strike(url);
    let Some(path) = url.strip_prefix("https://").and_then(|rest| rest.find('/').map(|at| &rest[at..]))
    else {
        return;
    };
    strike(path);
    strike(path.trim_end_matches('/').rsplit('/').next().unwrap_or_default());
}
