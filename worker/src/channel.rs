//! What is sent where, and what the answers mean. One file a kind, and one small trait between them
//! and the rest: *render* is pure, from a delivery to a request or a mail; *read* is pure, from an
//! answer to what follows from it. Sending is the egress guard's.

use std::sync::Arc;
use std::time::Duration;

use klaxon_model::channel::{Settings, Target};
use klaxon_model::event_type::Severity;
use secrecy::SecretString;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::clock::DbTime;
use crate::egress::{Guard, Http, Mailer, Post, Reply, Sent, Server};

mod answer;
mod digest;
mod discord;
mod email;
mod message;
mod pagerduty;
mod sanitise;
mod slack;
mod telegram;
mod template;
mod webhook;

use message::Message;

/// A channel, opened.
#[derive(Debug)]
pub struct Channel {
    /// `channel.id`.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its settings, or why they do not open.
    pub settings: Result<Settings, String>,
}

/// A project, as messages show it.
#[derive(Debug)]
pub struct Project {
    /// `project.slug`.
    pub slug: String,
    /// What people call it.
    pub name: Option<String>,
    /// Base of its links.
    pub url: Option<String>,
}

/// One attempt to be.
#[derive(Debug)]
pub struct Delivery {
    /// The delivery id: the same on every attempt.
    pub id: Uuid,
    /// The event; `None` for a digest, which is of many.
    pub event_id: Option<Uuid>,
    /// Its type, or [`DIGEST`].
    pub event_type: String,
    /// How bad it is.
    pub severity: Option<Severity>,
    /// The type it ends.
    pub resolves: Option<String>,
    /// Its project, where that is known.
    pub project: Option<Arc<Project>>,
    /// Counts from 1.
    pub attempt: i32,
    /// When it happened.
    pub occurred_at: DbTime,
    /// The payload as Postgres prints it.
    pub payload: Box<RawValue>,
    /// Events a cooldown held back before it.
    pub held_back: i64,
    /// How long those were collected, where that is known.
    pub held_for: Option<Duration>,
}

/// The type of a digest: its payload is what `klaxon.digest_payload` makes of its events, and no
/// application's.
pub const DIGEST: &str = "digest";

impl Delivery {
    /// Whether it is a digest.
    pub fn is_digest(&self) -> bool {
        self.event_id.is_none() && self.event_type == DIGEST
    }
}

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

/// A kind of channel.
pub trait Form: Sync {
    /// The request or mail of a message.
    ///
    /// # Errors
    /// What of the channel's or the worker's configuration does not allow it.
    fn render(&self, message: &Message<'_>) -> Result<Request, String>;

    /// What an HTTP answer means.
    fn read(&self, reply: &Reply) -> Answer {
        answer::http(reply)
    }

    /// What a mail server's answer means.
    fn read_mail(&self, sent: Sent) -> Answer {
        answer::mail(sent)
    }
}

/// The form of a target: a new kind is one file and one row here.
fn form(target: &Target) -> &dyn Form {
    match target {
        Target::Webhook(webhook) => webhook,
        Target::Email(email) => email,
        Target::Slack(slack) => slack,
        Target::Telegram(telegram) => telegram,
        Target::Pagerduty(pagerduty) => pagerduty,
        Target::Discord(discord) => discord,
    }
}

/// What the worker's own configuration adds.
#[derive(Clone, Debug, Default)]
pub struct CourierOptions {
    /// Base of links where a project has no url.
    pub site_url: Option<String>,
    /// The worker's own mail server.
    pub smtp: Option<Smtp>,
}

/// The worker's own mail server.
#[derive(Clone, Debug)]
pub struct Smtp {
    /// The server.
    pub server: Server,
    /// The sender's address.
    pub from: Option<String>,
    /// The sender's name.
    pub from_name: String,
}

/// Sends deliveries.
#[derive(Debug)]
pub struct Courier {
    options: CourierOptions,
    http: Http,
    mailer: Mailer,
}

impl Courier {
    /// Sends through a guard.
    ///
    /// # Errors
    /// Where the operator's certificates do not read.
    pub fn new(guard: Guard, options: CourierOptions) -> anyhow::Result<Self> {
        let guard = Arc::new(guard);
        Ok(Self { options, http: Http::new(Arc::clone(&guard))?, mailer: Mailer::new(guard)? })
    }

    /// Makes one attempt.
    pub async fn deliver(&self, channel: &Channel, delivery: &Delivery) -> Answer {
        let settings = match &channel.settings {
            Ok(settings) => settings,
            Err(problem) => return Answer::dead(format!("the channel's config does not open: {problem}")),
        };
        let form = form(&settings.target);
        let message = Message::new(channel, delivery, &self.options);
        let answer = match form.render(&message) {
            Err(problem) => Answer::dead(problem),
            Ok(Request::Http(post)) => match self.http.post(post).await {
                Ok(reply) => form.read(&reply),
                Err(error) => Answer::retry(error.to_string()),
            },
            Ok(Request::Mail { server, mail }) => form.read_mail(self.mailer.send(&server, *mail).await),
        };
        sanitise::answer(answer, &settings.target, self.options.smtp.as_ref())
    }
}

impl Answer {
    fn sent(code: i32) -> Self {
        Self { verdict: Verdict::Sent, code: Some(code), error: None, body: None }
    }

    fn retry(error: String) -> Self {
        Self { verdict: Verdict::Retry { after: None }, code: None, error: Some(error), body: None }
    }

    fn dead(error: String) -> Self {
        Self { verdict: Verdict::Dead { disable: false }, code: None, error: Some(error), body: None }
    }
}

/// A JSON request.
fn json_post(url: url::Url, body: &serde_json::Value) -> Result<Post, String> {
    let body = serde_json::to_vec(body).map_err(|error| format!("the message cannot be written: {error}"))?;
    let mut headers = reqwest::header::HeaderMap::new();
    headers
        .insert(reqwest::header::CONTENT_TYPE, reqwest::header::HeaderValue::from_static("application/json"));
    Ok(Post { url, headers, body: body.into() })
}

/// A secret header's value, which no log prints.
fn sensitive(value: &SecretString) -> Result<reqwest::header::HeaderValue, String> {
    use secrecy::ExposeSecret as _;
    let mut value = reqwest::header::HeaderValue::from_str(value.expose_secret())
        .map_err(|_| "a header's value cannot be sent".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod tests;
