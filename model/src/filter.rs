//! What else must hold of an event that a subscription names.
//!
//! Filters are validated when they are written and compiled once. All of them must hold. The one
//! that Postgres judges, `where`, is carried here and evaluated there.

use std::fmt;

use serde_json::{Map, Value};

use crate::glob::Glob;
use crate::payload::Payload;

/// The filters there are.
pub const KEYS: [&str; 12] = [
    "priority_min",
    "priority_max",
    "priority",
    "task_name_pattern",
    "queue",
    "branches",
    "statuses",
    "owners",
    "default_branch_only",
    "flakiness_min",
    "regression_min_pct",
    "where",
];

/// Longest `where`, in characters.
const WHERE_LENGTH: usize = 1000;
/// Longest value a mismatch repeats, in characters.
const SHOWN: usize = 100;

/// Why filters cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The filters are no JSON object.
    #[error("filters must be a JSON object")]
    NotAnObject,
    /// There is no such filter.
    #[error("unknown filter \"{0}\": the filters are {list}", list = KEYS.join(", "))]
    Unknown(String),
    /// A value that the filter cannot take.
    #[error("filter \"{key}\" {problem}")]
    Value {
        /// The filter.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// Why an event does not match: the filter, what the event has, and what was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The filter.
    pub filter: &'static str,
    found: Option<String>,
    wanted: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Some(found) => write!(f, "filter {}: {} is not {}", self.filter, quoted(found), self.wanted),
            None => write!(f, "filter {}: the payload has no {}", self.filter, self.wanted),
        }
    }
}

fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

/// An event as filters see it.
pub struct Event<'a> {
    /// Its type.
    pub event_type: &'a str,
    /// The default branch of its project, where that is known.
    pub default_branch: Option<&'a str>,
    /// Its payload.
    pub payload: &'a dyn Payload,
}

/// Validated filters.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    priority_min: Option<i64>,
    priority_max: Option<i64>,
    priority: Option<Vec<i64>>,
    task_name_pattern: Option<Glob>,
    queue: Option<String>,
    branches: Option<Vec<String>>,
    statuses: Option<Vec<String>>,
    owners: Option<Vec<String>>,
    default_branch_only: bool,
    flakiness_min: Option<f64>,
    regression_min_pct: Option<f64>,
    path: Option<String>,
}

/// Values of a list that a mismatch repeats.
const LISTED: usize = 10;
/// What an event without a priority has.
const NORMAL: i64 = 1;

fn priority_word(word: &str) -> Option<i64> {
    match word {
        "low" => Some(0),
        "normal" => Some(NORMAL),
        "high" => Some(2),
        "critical" => Some(3),
        _ => None,
    }
}

impl Filters {
    /// Validates and compiles filters from their JSON text.
    ///
    /// # Errors
    /// An unknown key, a wrong type, an empty list or pattern, a reversed or impossible range: the
    /// error names the key.
    pub fn parse(json: &str) -> Result<Self, FilterError> {
        let Ok(Value::Object(map)) = serde_json::from_str::<Value>(json) else {
            return Err(FilterError::NotAnObject);
        };
        if let Some(unknown) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(FilterError::Unknown(unknown.chars().take(SHOWN).collect()));
        }
        let filters = Self {
            priority_min: priority(&map, "priority_min")?,
            priority_max: priority(&map, "priority_max")?,
            priority: priorities(&map)?,
            task_name_pattern: text(&map, "task_name_pattern")?
                .map(|pattern| Glob::new(&pattern))
                .transpose()
                .map_err(|error| wrong("task_name_pattern", format!("is no glob: {error}")))?,
            queue: text(&map, "queue")?,
            branches: texts(&map, "branches")?,
            statuses: texts(&map, "statuses")?,
            owners: texts(&map, "owners")?,
            default_branch_only: flag(&map, "default_branch_only")?,
            flakiness_min: number(&map, "flakiness_min", 0.0, 1.0)?,
            regression_min_pct: number(&map, "regression_min_pct", 0.0, f64::MAX)?,
            path: text(&map, "where")?,
        };
        if let (Some(min), Some(max)) = (filters.priority_min, filters.priority_max)
            && min > max
        {
            return Err(wrong("priority_min", format!("is over \"priority_max\": {min} > {max}")));
        }
        if filters.path.as_ref().is_some_and(|path| path.chars().count() > WHERE_LENGTH) {
            return Err(wrong("where", format!("is longer than {WHERE_LENGTH} characters")));
        }
        Ok(filters)
    }

    /// The jsonpath predicate, for Postgres to parse and evaluate.
    #[must_use]
    pub fn where_path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The glob of task names, for a set of them to be asked at once.
    #[must_use]
    pub fn task_name_pattern(&self) -> Option<&Glob> {
        self.task_name_pattern.as_ref()
    }

    /// Whether the event passes all filters but `where`.
    ///
    /// # Errors
    /// The first filter it does not pass.
    pub fn check(&self, event: &Event<'_>) -> Result<(), Mismatch> {
        self.check_priority(event)?;
        if let Some(glob) = &self.task_name_pattern {
            let task = required(event, "task_name_pattern", "task_name")?;
            if !glob.is_match(&task) {
                return Err(mismatch("task_name_pattern", task, quoted(glob.as_str())));
            }
        }
        if let Some(queue) = &self.queue {
            let found = required(event, "queue", "queue")?;
            if found != *queue {
                return Err(mismatch("queue", found, quoted(queue)));
            }
        }
        if event.event_type.starts_with("run.") {
            self.check_run(event)?;
        }
        if event.event_type == "flakiness.spike" {
            at_least(event, "flakiness_min", "flakiness_rate", self.flakiness_min)?;
        }
        if event.event_type == "perf.regression" {
            at_least(event, "regression_min_pct", "regression_pct", self.regression_min_pct)?;
        }
        Ok(())
    }

    fn check_priority(&self, event: &Event<'_>) -> Result<(), Mismatch> {
        if self.priority_min.is_none() && self.priority_max.is_none() && self.priority.is_none() {
            return Ok(());
        }
        let written = event.payload.text("priority");
        let found = match &written {
            None if event.payload.present("priority") => {
                return Err(mismatch("priority", "a list or an object".into(), "a priority".into()));
            }
            None => NORMAL,
            Some(text) => event
                .payload
                .integer("priority")
                .or_else(|| priority_word(text))
                .ok_or_else(|| mismatch("priority", text.clone(), "a priority".into()))?,
        };
        let shown = || written.clone().unwrap_or_else(|| "normal".into());
        if let Some(min) = self.priority_min.filter(|min| found < *min) {
            return Err(mismatch("priority_min", shown(), format!("at least {min}")));
        }
        if let Some(max) = self.priority_max.filter(|max| found > *max) {
            return Err(mismatch("priority_max", shown(), format!("at most {max}")));
        }
        if let Some(list) = self.priority.as_ref().filter(|list| !list.contains(&found)) {
            return Err(mismatch("priority", shown(), format!("among {list:?}")));
        }
        Ok(())
    }

    fn check_run(&self, event: &Event<'_>) -> Result<(), Mismatch> {
        for (filter, field, list) in
            [("branches", "branch", &self.branches), ("statuses", "status", &self.statuses)]
        {
            if let Some(list) = list {
                let found = required(event, filter, field)?;
                if !list.contains(&found) {
                    return Err(mismatch(filter, found, among(list)));
                }
            }
        }
        if let Some(list) = &self.owners {
            let found = event.payload.texts("owners");
            if found.is_empty() {
                return Err(Mismatch { filter: "owners", found: None, wanted: "owners".into() });
            }
            if !found.iter().any(|owner| list.contains(owner)) {
                return Err(mismatch("owners", found.join(", "), among(list)));
            }
        }
        if self.default_branch_only {
            let branch = event.payload.text("branch");
            let on_default = match event.payload.boolean("is_default_branch") {
                Some(says) => says,
                None => branch.is_some() && branch.as_deref() == event.default_branch,
            };
            if !on_default {
                return Err(match branch {
                    Some(branch) => mismatch("default_branch_only", branch, "the default branch".into()),
                    None => Mismatch { filter: "default_branch_only", found: None, wanted: "branch".into() },
                });
            }
        }
        Ok(())
    }
}

fn required(event: &Event<'_>, filter: &'static str, field: &str) -> Result<String, Mismatch> {
    event.payload.text(field).ok_or_else(|| Mismatch { filter, found: None, wanted: field.into() })
}

fn at_least(event: &Event<'_>, filter: &'static str, field: &str, min: Option<f64>) -> Result<(), Mismatch> {
    let Some(min) = min else { return Ok(()) };
    match event.payload.number(field) {
        None => Err(Mismatch { filter, found: None, wanted: field.into() }),
        Some(found) if found >= min => Ok(()),
        Some(found) => Err(mismatch(filter, found.to_string(), format!("at least {min}"))),
    }
}

fn mismatch(filter: &'static str, found: String, wanted: String) -> Mismatch {
    Mismatch { filter, found: Some(found), wanted }
}

fn among(list: &[String]) -> String {
    match list {
        [one] => quoted(one),
        many => {
            let listed: Vec<String> = many.iter().take(LISTED).map(|each| quoted(each)).collect();
            let more = if many.len() > LISTED { ", …" } else { "" };
            format!("one of {}{more}", listed.join(", "))
        }
    }
}

fn wrong(key: &'static str, problem: impl Into<String>) -> FilterError {
    FilterError::Value { key, problem: problem.into() }
}

fn priority(map: &Map<String, Value>, key: &'static str) -> Result<Option<i64>, FilterError> {
    map.get(key).map(|value| one_priority(key, value)).transpose()
}

fn one_priority(key: &'static str, value: &Value) -> Result<i64, FilterError> {
    value
        .as_i64()
        .or_else(|| value.as_str().and_then(priority_word))
        .ok_or_else(|| wrong(key, "must be an integer, or low, normal, high or critical"))
}

fn priorities(map: &Map<String, Value>) -> Result<Option<Vec<i64>>, FilterError> {
    let Some(value) = map.get("priority") else { return Ok(None) };
    let list = value.as_array().ok_or_else(|| wrong("priority", "must be a list of priorities"))?;
    if list.is_empty() {
        return Err(wrong("priority", "is an empty list"));
    }
    list.iter().map(|each| one_priority("priority", each)).collect::<Result<_, _>>().map(Some)
}

fn text(map: &Map<String, Value>, key: &'static str) -> Result<Option<String>, FilterError> {
    let Some(value) = map.get(key) else { return Ok(None) };
    match value.as_str() {
        None => Err(wrong(key, "must be a string")),
        Some("") => Err(wrong(key, "is empty")),
        Some(text) => Ok(Some(text.to_owned())),
    }
}

fn texts(map: &Map<String, Value>, key: &'static str) -> Result<Option<Vec<String>>, FilterError> {
    let Some(value) = map.get(key) else { return Ok(None) };
    let list = value.as_array().ok_or_else(|| wrong(key, "must be a list of strings"))?;
    if list.is_empty() {
        return Err(wrong(key, "is an empty list"));
    }
    list.iter()
        .map(|each| each.as_str().map(str::to_owned).ok_or_else(|| wrong(key, "must be a list of strings")))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn flag(map: &Map<String, Value>, key: &'static str) -> Result<bool, FilterError> {
    let Some(value) = map.get(key) else { return Ok(false) };
    value.as_bool().ok_or_else(|| wrong(key, "must be true or false"))
}

fn number(
    map: &Map<String, Value>,
    key: &'static str,
    min: f64,
    max: f64,
) -> Result<Option<f64>, FilterError> {
    let Some(value) = map.get(key) else { return Ok(None) };
    let number = value.as_f64().ok_or_else(|| wrong(key, "must be a number"))?;
    if !(min..=max).contains(&number) {
        let bounds = if max == f64::MAX { format!("at least {min}") } else { format!("from {min} to {max}") };
        return Err(wrong(key, format!("must be {bounds}, not {number}")));
    }
    Ok(Some(number))
}

#[cfg(test)]
mod tests;
