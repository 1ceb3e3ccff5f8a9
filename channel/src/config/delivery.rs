//! What all kinds have in common: when and how often to try, and a channel's own words.

use std::time::Duration;

use serde_json::{Map, Value};

use super::ConfigError;
use crate::template;

/// Most attempts a schedule may ask for, beside the first.
const MAX_RETRIES: usize = 20;
/// Longest pause between attempts, in seconds: a week.
const MAX_PAUSE: u64 = 7 * 24 * 3600;
/// Longest `max_age`, in seconds: a year.
const MAX_AGE: u64 = 366 * 24 * 3600;

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

impl DeliveryRules {
    pub(super) fn read(map: &Map<String, Value>) -> Result<Self, ConfigError> {
        Ok(Self { retry_schedule: retry_schedule(map)?, max_age: max_age(map)?, template: template(map)? })
    }
}

impl Template {
    /// Refuses what does not read as a template. Only who writes one hears of it: one that is stored
    /// already is left aside when it does not render, and the message said without it.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (part, source) in [("title", &self.title), ("body", &self.body)] {
            if let Some(Err(problem)) = source.as_deref().map(template::check) {
                return Err(ConfigError::new(
                    format!("template.{part}"),
                    format!("is no template: {problem}"),
                    "It is written as in Jinja: {{ title }}, {% if data.queue %}…{% endif %}.",
                ));
            }
        }
        Ok(())
    }
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
        None => Ok(None),
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
