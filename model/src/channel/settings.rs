//! A configuration as the worker uses it: typed, its secrets opened.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use url::Url;

use super::check::fields_of;
use super::{ConfigError, Given, Kind, Rules, SIGNATURE_HEADER, field, present};
use crate::event_type::Severity;

/// Most attempts a schedule may ask for, beside the first.
const MAX_RETRIES: usize = 20;
/// Longest pause between attempts, in seconds: a week.
const MAX_PAUSE: u64 = 7 * 24 * 3600;
/// Longest `max_age`, in seconds: a year.
const MAX_AGE: u64 = 366 * 24 * 3600;

/// A channel's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When and how often to try.
    pub delivery: DeliveryRules,
    /// Where to send.
    pub target: Target,
}

/// What all kinds have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryRules {
    /// Seconds between attempts; attempts are one more than entries. `None` is the default schedule.
    pub retry_schedule: Option<Vec<u32>>,
    /// How old a delivery may become before it is given up.
    pub max_age: Option<Duration>,
    /// Words of the channel's own.
    pub template: Option<Template>,
}

/// A minijinja template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The heading, at most 200 characters.
    pub title: Option<String>,
    /// The text, at most 4096 characters.
    pub body: Option<String>,
}

/// Where a channel sends.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Target {
    Webhook(Webhook),
    Email(Email),
    Slack(Slack),
    Telegram(Telegram),
    Pagerduty(Pagerduty),
    Discord(Discord),
}

/// A signed POST.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where to.
    pub url: Url,
    /// Headers beside ours.
    pub headers: Vec<(String, SecretString)>,
    /// What to sign with.
    pub hmac_secret: Option<SecretString>,
    /// What was signed with before, while receivers change over.
    pub previous_hmac_secret: Option<SecretString>,
    /// Where the plain signature goes.
    pub signature_header: String,
}

/// A mail.
#[derive(Clone, Debug)]
pub struct Email {
    /// The channel's own server; `None` is the worker's.
    pub server: Option<SmtpServer>,
    /// The sender; `None` is the worker's.
    pub from_addr: Option<String>,
    /// The recipients.
    pub to_addrs: Vec<String>,
}

/// A mail server.
#[derive(Clone, Debug)]
pub struct SmtpServer {
    /// Its name or address.
    pub host: String,
    /// 25, 465 (TLS from the start), 587 or 2525.
    pub port: u16,
    /// Who logs in.
    pub user: Option<String>,
    /// The password.
    pub pass: Option<SecretString>,
    /// Whether TLS is required; false on port 25 only.
    pub tls: bool,
}

/// A Slack incoming webhook.
#[derive(Clone, Debug)]
pub struct Slack {
    /// The URL, which is the secret.
    pub webhook_url: SecretString,
}

/// A Telegram bot.
#[derive(Clone, Debug)]
pub struct Telegram {
    /// The bot's token.
    pub bot_token: SecretString,
    /// A signed integer or an @handle.
    pub chat_id: String,
}

/// PagerDuty Events v2.
#[derive(Clone, Debug)]
pub struct Pagerduty {
    /// The service's key.
    pub integration_key: SecretString,
    /// Where neither the map nor the event type says.
    pub severity_default: Severity,
    /// From event type or severity to severity.
    pub severity_map: BTreeMap<String, Severity>,
}

/// A Discord webhook.
#[derive(Clone, Debug)]
pub struct Discord {
    /// The URL, which is the secret; `/slack` is appended.
    pub webhook_url: SecretString,
}

/// Puts opened secrets, by field (`headers.Name` for a header), back into a stored configuration
/// and reads the whole.
///
/// # Errors
/// A secret that is missing, or anything [`check()`](super::check()) would have refused.
pub fn open(
    kind: Kind,
    stored: &Value,
    secrets: &BTreeMap<String, SecretString>,
) -> Result<Settings, ConfigError> {
    let mut map = present(stored)?;
    let missing = |field: &str| ConfigError::new(field, "has no stored secret", "Write the secret again.");
    for field in
        ["hmac_secret", "previous_hmac_secret", "smtp_pass", "webhook_url", "bot_token", "integration_key"]
    {
        if let Some(value) = map.get_mut(field) {
            *value = secrets.get(field).ok_or_else(|| missing(field))?.expose_secret().into();
        }
    }
    if let Some(Value::Object(headers)) = map.get_mut("headers") {
        for (name, value) in headers.iter_mut() {
            let field = format!("headers.{name}");
            *value = secrets.get(&field).ok_or_else(|| missing(&field))?.expose_secret().into();
        }
    }
    // What may be http is the worker's egress policy's to say.
    let rules = Rules { allow_http: true, needs_smtp_host: false };
    let opened = fields_of(kind, map.clone(), &rules)?;
    // A mask or a seal inside a seal was checked for nothing, and is nothing to send.
    if let Some(secret) = opened.secrets.iter().find(|secret| !matches!(secret.value, Given::Clear(_))) {
        return Err(ConfigError::new(
            &*secret.name,
            "was sealed without its secret",
            "Write the secret again.",
        ));
    }
    Ok(Settings { delivery: delivery_rules(&map)?, target: target(kind, &map)? })
}

fn target(kind: Kind, map: &Map<String, Value>) -> Result<Target, ConfigError> {
    let secret = |field: &str| Ok::<_, ConfigError>(field::text(map, field)?.map(SecretString::from));
    let needed = |field: &str| Ok::<_, ConfigError>(SecretString::from(field::required(map, field)?));
    Ok(match kind {
        Kind::Webhook => Target::Webhook(Webhook {
            url: field::url("url", field::required(map, "url")?, true)?,
            headers: match map.get("headers") {
                Some(Value::Object(headers)) => headers
                    .iter()
                    .map(|(name, value)| {
                        (name.clone(), SecretString::from(value.as_str().unwrap_or_default()))
                    })
                    .collect(),
                _ => Vec::new(),
            },
            hmac_secret: secret("hmac_secret")?,
            previous_hmac_secret: secret("previous_hmac_secret")?,
            signature_header: field::text(map, "signature_header")?.unwrap_or(SIGNATURE_HEADER).to_owned(),
        }),
        Kind::Email => {
            let user = field::text(map, "smtp_user")?.map(str::to_owned);
            let server = match field::text(map, "smtp_host")? {
                None => None,
                Some(host) => Some(SmtpServer {
                    host: host.to_owned(),
                    port: field::integer(map, "smtp_port")?
                        .and_then(|port| u16::try_from(port).ok())
                        .unwrap_or(587),
                    user: user.clone(),
                    pass: secret("smtp_pass")?,
                    tls: field::flag(map, "smtp_tls")?.unwrap_or(true),
                }),
            };
            Target::Email(Email {
                server,
                from_addr: field::text(map, "from_addr")?.map(str::to_owned).or(user),
                to_addrs: map["to_addrs"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|each| each.as_str().map(str::to_owned))
                    .collect(),
            })
        }
        Kind::Slack => Target::Slack(Slack { webhook_url: needed("webhook_url")? }),
        Kind::Discord => Target::Discord(Discord { webhook_url: needed("webhook_url")? }),
        Kind::Telegram => Target::Telegram(Telegram {
            bot_token: needed("bot_token")?,
            chat_id: match map.get("chat_id") {
                Some(Value::Number(number)) => number.to_string(),
                _ => field::required(map, "chat_id")?.to_owned(),
            },
        }),
        Kind::Pagerduty => Target::Pagerduty(Pagerduty {
            integration_key: needed("integration_key")?,
            severity_default: field::text(map, "severity_default")?
                .and_then(|word| word.parse().ok())
                .unwrap_or(Severity::Warning),
            severity_map: match map.get("severity_map") {
                Some(Value::Object(entries)) => entries
                    .iter()
                    .filter_map(|(from, to)| Some((from.clone(), to.as_str()?.parse().ok()?)))
                    .collect(),
                _ => BTreeMap::new(),
            },
        }),
    })
}

pub(super) fn delivery_rules(map: &Map<String, Value>) -> Result<DeliveryRules, ConfigError> {
    Ok(DeliveryRules {
        retry_schedule: retry_schedule(map)?,
        max_age: max_age(map)?,
        template: template(map)?,
    })
}

fn retry_schedule(map: &Map<String, Value>) -> Result<Option<Vec<u32>>, ConfigError> {
    let Some(value) = map.get("retry_schedule") else { return Ok(None) };
    let wrong = |problem: String| {
        ConfigError::new(
            "retry_schedule",
            problem,
            "It is a list of seconds, such as [5, 300]; [] is no retry.",
        )
    };
    let list = value.as_array().ok_or_else(|| wrong("must be a list".into()))?;
    if list.len() > MAX_RETRIES {
        return Err(wrong(format!("has {} entries, more than {MAX_RETRIES}", list.len())));
    }
    list.iter()
        .map(|pause| {
            pause
                .as_u64()
                .filter(|seconds| *seconds <= MAX_PAUSE)
                .and_then(|seconds| u32::try_from(seconds).ok())
                .ok_or_else(|| wrong(format!("holds {pause}, which is not 0 to {MAX_PAUSE} seconds")))
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Seconds, or a number with one of the units s, min, h and d.
fn max_age(map: &Map<String, Value>) -> Result<Option<Duration>, ConfigError> {
    let Some(value) = map.get("max_age") else { return Ok(None) };
    let seconds = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => duration(text),
        _ => None,
    };
    seconds
        .filter(|seconds| (1..=MAX_AGE).contains(seconds))
        .map(|seconds| Some(Duration::from_secs(seconds)))
        .ok_or_else(|| {
            ConfigError::new(
                "max_age",
                "is no age",
                "Seconds up to a year, or \"90 min\", \"12 h\", \"3 d\".",
            )
        })
}

fn duration(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "" | "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 24 * 3600,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn template(map: &Map<String, Value>) -> Result<Option<Template>, ConfigError> {
    let Some(value) = map.get("template") else { return Ok(None) };
    let hint = "It has a title and a body, both optional.";
    let Value::Object(parts) = value else {
        return Err(ConfigError::new("template", "must be an object", hint));
    };
    if let Some(unknown) = parts.keys().find(|key| !["title", "body"].contains(&key.as_str())) {
        return Err(ConfigError::new(format!("template.{unknown}"), "is unknown", hint));
    }
    let part = |name: &str, max: usize| match parts.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= max => Ok(Some(text.clone())),
        Some(Value::String(_)) => Err(ConfigError::new(
            format!("template.{name}"),
            format!("is longer than {max} characters"),
            hint,
        )),
        Some(_) => Err(ConfigError::new(format!("template.{name}"), "must be a string", hint)),
    };
    Ok(Some(Template { title: part("title", 200)?, body: part("body", 4096)? }))
}
