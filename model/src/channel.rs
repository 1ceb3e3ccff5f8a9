//! Each kind's configuration and its rules.
//!
//! [`check()`] is what the database does when a channel is written: it validates every field, takes
//! the secrets out and says where they would be sent. [`open`] is what the worker does before it
//! sends: it puts the opened secrets back and reads the whole as typed [`Settings`].

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

mod check;
mod field;
mod header;
mod settings;

pub use check::check;
pub use settings::{
    DeliveryRules, Discord, Email, Pagerduty, Settings, Slack, SmtpServer, Target, Telegram, Template,
    Webhook, open,
};

/// What a secret reads back as, and what keeps it when it is written back.
pub const MASK: &str = "••••••••";
/// Largest configuration, in bytes of its JSON text.
pub const MAX_CONFIG: usize = 16 * 1024;
/// Where a webhook's plain signature goes unless it says otherwise.
pub const SIGNATURE_HEADER: &str = "X-Klaxon-Signature";

/// What a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A signed POST.
    Webhook,
    /// A mail.
    Email,
    /// A Slack incoming webhook.
    Slack,
    /// A Telegram bot.
    Telegram,
    /// PagerDuty Events v2.
    Pagerduty,
    /// A Discord webhook.
    Discord,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Webhook, Self::Email, Self::Slack, Self::Telegram, Self::Pagerduty, Self::Discord];

    /// As `channel.kind` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Email => "email",
            Self::Slack => "slack",
            Self::Telegram => "telegram",
            Self::Pagerduty => "pagerduty",
            Self::Discord => "discord",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A kind there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown channel kind \"{0}\": there are webhook, email, slack, telegram, pagerduty and discord")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or_else(|| UnknownKind(name.chars().take(40).collect()))
    }
}

/// What the database's owner decides about configurations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Whether a webhook's `url` may be http.
    pub allow_http: bool,
    /// Whether a mail needs a server of its own, because the worker has none.
    pub needs_smtp_host: bool,
}

/// Why a configuration cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject} {problem}", subject = if field.is_empty() { "the config".into() } else { format!("config field \"{field}\"") })]
pub struct ConfigError {
    /// The field, `headers.Name` for one header.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// What is right.
    pub hint: String,
}

impl ConfigError {
    fn new(field: impl Into<String>, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into(), hint: hint.into() }
    }
}

/// What was written in a secret's place.
#[derive(Clone)]
pub enum Given {
    /// The secret itself.
    Clear(Zeroizing<String>),
    /// What `klaxon seal` printed.
    Sealed(String),
    /// The mask or an empty string: what is stored stays.
    Keep,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clear(_) => "Clear(…)",
            Self::Sealed(_) => "Sealed(…)",
            Self::Keep => "Keep",
        })
    }
}

/// A secret field of a configuration.
#[derive(Clone, Debug)]
pub struct SecretField {
    /// The field, `headers.Name` for one header.
    pub name: String,
    /// What was written.
    pub value: Given,
}

/// A configuration that is valid, without its secrets.
#[derive(Clone, Debug)]
pub struct Checked {
    /// As it is stored: null fields dropped, secrets masked.
    pub stored: Value,
    /// The secrets.
    pub secrets: Vec<SecretField>,
    /// Scheme, host and port the secrets are sent to, `https://host:443` or `smtp://host:587`;
    /// `None` where only a secret that is not given in clear says it.
    pub destination: Option<String>,
}

/// The fields of a configuration, null ones dropped.
fn present(config: &Value) -> Result<Map<String, Value>, ConfigError> {
    let Value::Object(map) = config else {
        return Err(ConfigError::new("", "is no JSON object", "It is an object of the kind's fields."));
    };
    Ok(map.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect())
}

#[cfg(test)]
mod tests;
