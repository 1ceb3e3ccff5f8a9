//! Where settings come from, each under a name that an error can say.

use std::path::Path;

use anyhow::Context as _;
use figment::error::Kind;
use figment::value::{Dict, Map, Value};
use figment::{Error, Metadata, Profile, Provider};

use super::flags::{Flags, KEYS};

/// Lists: repeated as a flag, with commas in the environment, an array in the file.
const LISTS: [&str; 4] = ["database-url", "allow-port", "egress-allow", "connect-to"];
/// Settings that name files: in the configuration file relative to that file's folder.
const FILES: [&str; 4] = ["secret-key-file", "audit-key-file", "checkpoint-file", "ca-file"];
/// Variables that all programs which export spans know.
const COMMON: [(&str, &str); 2] =
    [("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp-endpoint"), ("OTEL_EXPORTER_OTLP_HEADERS", "otlp-headers")];
/// What a connection string, or a pair of one, begins with.
const CONNECTION: [&str; 8] =
    ["postgres://", "postgresql://", "host=", "hostaddr=", "port=", "dbname=", "user=", "password="];

/// Values and where they are from.
pub struct Source {
    name: String,
    values: Dict,
}

impl Source {
    /// The configuration file.
    ///
    /// # Errors
    /// Where it does not read. The message says where and what, and not the line: a password may
    /// stand in it.
    pub fn file(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            anyhow::anyhow!("{shown}, line {line}: {}", error.message())
        })?;
        let mut values = dictionary(table).with_context(|| shown.to_string())?;
        for key in FILES {
            if let Some(value) = values.get_mut(key)
                && let (Some(named), Some(folder)) = (value.as_str(), path.parent())
            {
                *value = Value::from(folder.join(named).to_string_lossy().into_owned());
            }
        }
        Ok(Self { name: shown.to_string(), values })
    }

    /// `KLAXON_…`, and what OpenTelemetry's exporters are told by names of its own. A variable that is empty is
    /// not set.
    pub fn environment(variables: impl Iterator<Item = (String, String)>) -> Self {
        let mut variables: Vec<_> = variables.collect();
        // Ours come last, and win.
        variables.sort_by_key(|(name, _)| name.starts_with("KLAXON_"));
        let values = variables
            .into_iter()
            .filter_map(|(name, text)| {
                let common = COMMON.iter().find(|(variable, _)| *variable == name).map(|(_, key)| *key);
                let key = match common {
                    Some(key) => key.to_owned(),
                    None => name.strip_prefix("KLAXON_")?.to_ascii_lowercase().replace('_', "-"),
                };
                // Not settings: the path of the file, and what others name after us.
                if text.is_empty() || !KEYS.contains(&key.as_str()) {
                    return None;
                }
                let value = match key.as_str() {
                    "database-url" => Value::from(connections(&text)),
                    list if LISTS.contains(&list) => {
                        Value::from(text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>())
                    }
                    _ => Value::from(text),
                };
                Some((key, value))
            })
            .collect();
        Self { name: "the environment (KLAXON_…)".into(), values }
    }

    /// The flags.
    ///
    /// # Errors
    /// Never, for what [`Flags`] holds.
    pub fn flags(flags: &Flags) -> anyhow::Result<Self> {
        Ok(Self { name: "the flags".into(), values: dictionary(flags).context("flags")? })
    }
}

impl Provider for Source {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone()).interpolater(|_, keys| keys.join("."))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn dictionary(values: impl serde::Serialize) -> anyhow::Result<Dict> {
    match Value::serialize(values).map_err(|error| anyhow::anyhow!("{}", error.kind))? {
        Value::Dict(_, dict) => Ok(dict),
        _ => Ok(Dict::new()),
    }
}

/// The connection strings of one text: at a comma a new one begins only where one can begin, since a
/// string may itself name several hosts.
fn connections(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for part in text.split(',') {
        let begins = CONNECTION.iter().any(|start| part.trim_start().starts_with(start));
        match all.last_mut() {
            Some(last) if !begins => {
                last.push(',');
                last.push_str(part);
            }
            _ => all.push(part.trim_start().to_owned()),
        }
    }
    all
}

/// What is wrong, with which setting, where it was set.
pub fn explain(error: &Error) -> anyhow::Error {
    let place = error.metadata.as_ref().map(|source| format!("{}: ", source.name)).unwrap_or_default();
    let setting = error.path.join(".");
    match &error.kind {
        Kind::UnknownField(key, _) => {
            anyhow::anyhow!("{place}there is no setting \"{key}\"; \"klaxon run --help\" lists them")
        }
        // What an untagged value cannot be says which variants there are, not what is meant.
        Kind::Message(said) if said.contains("untagged") => {
            anyhow::anyhow!("{place}{setting} is neither text nor a number, or not a list of them")
        }
        kind => anyhow::anyhow!("{place}{setting}: {kind}"),
    }
}
