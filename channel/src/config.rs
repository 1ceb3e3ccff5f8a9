//! Configurations: how they are checked when they are written, and opened before they are used.
//!
//! [`check()`] is what the database does when a channel is written: it validates every field, takes
//! the secrets out and says where they would be sent. [`open()`] is what the worker does before it
//! sends: it puts the opened secrets back and reads the whole as typed [`Settings`].

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::form::Form;
use crate::kind::{Kind, Target};

mod delivery;
pub(crate) mod field;

pub use delivery::{DeliveryRules, Template};

/// What a secret reads back as, and what keeps it when it is written back.
pub const MASK: &str = "••••••••";
/// Largest configuration, in bytes of its JSON text.
pub const MAX_CONFIG: usize = 16 * 1024;

const COMMON: [&str; 3] = ["retry_schedule", "max_age", "template"];

/// What a kind's file says of its configuration.
pub(crate) trait Config: Form + Sized + 'static {
    /// Its fields, in the order people are told of them.
    const FIELDS: &'static [Field];

    /// Reads it. Secrets may be in clear, sealed, or kept.
    fn read(map: &Map<String, Value>, rules: &Rules) -> Result<Self, ConfigError>;
}

/// A field of a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub holds: Holds,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Something that may be read by all.
    Plain,
    /// A secret.
    Secret,
    /// An object of secrets.
    Secrets,
}

impl Field {
    pub(crate) const fn plain(name: &'static str) -> Self {
        Self { name, holds: Holds::Plain }
    }

    pub(crate) const fn secret(name: &'static str) -> Self {
        Self { name, holds: Holds::Secret }
    }

    pub(crate) const fn secrets(name: &'static str) -> Self {
        Self { name, holds: Holds::Secrets }
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
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>, hint: impl Into<String>) -> Self {
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

impl Given {
    /// The secret itself.
    ///
    /// # Errors
    /// It is not at hand: [`open()`] lets no such configuration through.
    pub fn clear(&self) -> Result<&str, String> {
        match self {
            Self::Clear(secret) => Ok(secret),
            Self::Sealed(_) | Self::Keep => Err("a secret is not opened".into()),
        }
    }
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

/// A channel's settings.
#[derive(Debug)]
pub struct Settings {
    /// When and how often to try.
    pub delivery: DeliveryRules,
    /// Where to send.
    pub target: Target,
}

/// Validates a configuration and takes its secrets out.
///
/// # Errors
/// The first field that is unknown, missing, or not what its kind can use.
pub fn check(kind: Kind, config: &Value, rules: &Rules) -> Result<Checked, ConfigError> {
    if serde_json::to_string(config).map_or(usize::MAX, |text| text.len()) > MAX_CONFIG {
        return Err(ConfigError::new("", "is over 16 KiB", "Shorten it."));
    }
    let map = present(config)?;
    let settings = read(kind, &map, rules)?;
    settings.delivery.template.as_ref().map_or(Ok(()), Template::check)?;
    Ok(Checked {
        secrets: secrets(kind, &map)?,
        stored: masked(kind, map),
        destination: settings.target.destination(),
    })
}

/// Puts opened secrets, by field (`headers.Name` for a header), back into a stored configuration
/// and reads the whole. It may be longer than any one writing was, with secrets that were kept from
/// one to the next.
///
/// # Errors
/// A secret that is missing, or anything [`check()`] would have refused.
pub fn open(
    kind: Kind,
    stored: &Value,
    secrets: &BTreeMap<String, SecretString>,
) -> Result<Settings, ConfigError> {
    let mut map = present(stored)?;
    for (field, value) in secret_values(kind, &mut map) {
        let secret = secrets
            .get(&field)
            .ok_or_else(|| ConfigError::new(&*field, "has no stored secret", "Write the secret again."))?;
        *value = secret.expose_secret().into();
    }
    // What may be http is the worker's egress policy's to say.
    let settings = read(kind, &map, &Rules { allow_http: true, needs_smtp_host: false })?;
    // A mask or a seal inside a seal was checked for nothing, and is nothing to send.
    let sealed = self::secrets(kind, &map)?.into_iter().find(|secret| secret.value.clear().is_err());
    match sealed {
        Some(secret) => {
            Err(ConfigError::new(secret.name, "was sealed without its secret", "Write the secret again."))
        }
        None => Ok(settings),
    }
}

/// Whether every field that is a secret of some kind is masked: what a row may hold.
#[must_use]
pub fn holds_no_secret(config: &Value) -> bool {
    let Some(fields) = config.as_object() else { return true };
    let all = Kind::ALL.iter().flat_map(|kind| kind.fields());
    all.filter_map(|field| Some((field.holds, fields.get(field.name)?))).all(|(holds, value)| match holds {
        Holds::Plain => true,
        Holds::Secret => value == MASK,
        Holds::Secrets => value.as_object().is_some_and(|all| all.values().all(|value| value == MASK)),
    })
}

fn read(kind: Kind, map: &Map<String, Value>, rules: &Rules) -> Result<Settings, ConfigError> {
    let known = || kind.fields().iter().map(|field| field.name).chain(COMMON);
    if let Some(unknown) = map.keys().find(|key| !known().any(|name| name == *key)) {
        return Err(ConfigError::new(
            field::shown(unknown),
            format!("is unknown to kind \"{kind}\""),
            format!("The fields are: {}.", known().collect::<Vec<_>>().join(", ")),
        ));
    }
    Ok(Settings { delivery: DeliveryRules::read(map)?, target: kind.read(map, rules)? })
}

/// The fields of a configuration, null ones dropped, those of its objects too.
fn present(config: &Value) -> Result<Map<String, Value>, ConfigError> {
    let Value::Object(map) = config else {
        return Err(ConfigError::new("", "is no JSON object", "It is an object of the kind's fields."));
    };
    let mut map = map.clone();
    map.retain(|_, value| !value.is_null());
    for value in map.values_mut().filter_map(Value::as_object_mut) {
        value.retain(|_, value| !value.is_null());
    }
    Ok(map)
}

/// The values of a configuration's secrets, by field.
fn secret_values(kind: Kind, map: &mut Map<String, Value>) -> impl Iterator<Item = (String, &mut Value)> {
    map.iter_mut().flat_map(move |(name, value)| {
        let holds = kind.fields().iter().find(|field| field.name == name).map(|field| field.holds);
        match (holds, value) {
            (Some(Holds::Secret), value) => vec![(name.clone(), value)],
            (Some(Holds::Secrets), Value::Object(values)) => {
                values.iter_mut().map(|(each, value)| (format!("{name}.{each}"), value)).collect()
            }
            _ => Vec::new(),
        }
    })
}

fn secrets(kind: Kind, map: &Map<String, Value>) -> Result<Vec<SecretField>, ConfigError> {
    secret_values(kind, &mut map.clone())
        .map(|(name, value)| {
            let text = value.as_str().ok_or_else(|| field::no_string(&name))?;
            Ok(SecretField { value: field::given(&name, text)?, name })
        })
        .collect()
}

fn masked(kind: Kind, mut map: Map<String, Value>) -> Value {
    secret_values(kind, &mut map).for_each(|(_, value)| *value = MASK.into());
    Value::Object(map)
}

#[cfg(test)]
mod tests;
