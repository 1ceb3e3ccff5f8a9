//! What every kind says, before it says it in its own form.

use std::cell::OnceCell;
use std::time::Duration;

use crate::title::title;
use klaxon_model::payload::{Payload as _, RawPayload};
use serde_json::value::RawValue;

use crate::delivery::{Channel, Delivery, Options};
use crate::digest::{Digest, Entry};
use crate::template;
use crate::text::{lines, link, one_line};

/// Characters of a heading.
const TITLE: usize = 200;
/// Failures shown at most.
const FAILURES: usize = 3;
/// Characters of one failure.
const EXCERPT: usize = 300;

/// A delivery in words.
pub struct Message<'a> {
    /// The delivery.
    pub delivery: &'a Delivery,
    /// Where it goes.
    pub channel: &'a Channel,
    /// What the worker's configuration adds.
    pub options: &'a Options,
    /// The payload's fields.
    pub payload: RawPayload<'a>,
    /// What it lists, where it is a digest.
    pub digest: Option<Digest>,
    /// What the channel's template says in the place of facts and failures.
    pub body: Option<String>,
    /// The heading, once it has been asked for.
    pub(crate) title: OnceCell<String>,
    /// Where to read on, as it was given.
    pub url: Option<String>,
    /// The same as a link that every client takes for the one it is.
    pub link: Option<String>,
    /// Unix seconds of this attempt.
    pub now: i64,
}

/// 0000-01-01T00:00:00Z, in microseconds since the Unix epoch.
const YEAR_0: i64 = -62_167_219_200_000_000;

impl<'a> Message<'a> {
    /// Reads a delivery.
    pub fn new(channel: &'a Channel, delivery: &'a Delivery, options: &'a Options) -> Self {
        let payload = RawPayload::new(delivery.payload.get());
        let project = delivery.project.as_deref();
        let url = payload
            .text("url")
            .filter(|url| link(url).is_some())
            .or_else(|| project.and_then(|project| project.url.clone()))
            .or_else(|| options.site_url.clone());
        let digest = delivery.is_digest().then(|| Digest::read(&delivery.payload, project));
        let mut message = Self {
            digest,
            body: None,
            title: OnceCell::new(),
            link: url.as_deref().and_then(link).map(String::from),
            url,
            payload,
            delivery,
            channel,
            options,
            now: delivery.made_at.div_euclid(1_000_000),
        };
        let rules = channel.settings.as_ref().ok().map(|settings| &settings.delivery);
        if let Some(template) = rules.and_then(|rules| rules.template.as_ref()) {
            let words = template::words(template, &message);
            let title = words.title.map(|title| one_line(&title, TITLE)).filter(|title| !title.is_empty());
            message.title = title.map_or_else(OnceCell::new, OnceCell::from);
            message.body = words.body.map(|body| lines(&body)).filter(|body| !body.is_empty());
        }
        message
    }

    /// The heading. Thought of when it is asked for: a webhook's receiver is told what happened, not how to
    /// say it.
    pub fn title(&self) -> &str {
        self.title.get_or_init(|| {
            let name = self
                .delivery
                .project
                .as_deref()
                .map(|project| project.name.as_deref().unwrap_or(&project.slug));
            match &self.digest {
                Some(digest) => digest.title(name),
                None => title(&self.delivery.event_type, name, &self.payload),
            }
        })
    }

    /// When it happened, RFC 3339 in UTC, whose years are 0000 to 9999.
    pub fn occurred_at(&self) -> String {
        let micros = self.delivery.occurred_at.max(YEAR_0);
        jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX).to_string()
    }

    /// Label and value of what is known, in order of what people look for.
    pub fn facts(&self) -> Vec<(String, String)> {
        if self.body.is_some() {
            return Vec::new();
        }
        if let Some(digest) = &self.digest {
            return digest.kinds.clone();
        }
        let text = |field: &str| self.payload.text(field).map(|value| one_line(&value, EXCERPT));
        let project = self.delivery.project.as_deref();
        let mut facts = Vec::new();
        let mut add = |label: &str, value: Option<String>| {
            facts.extend(value.filter(|v| !v.is_empty()).map(|v| (label.to_owned(), v)));
        };
        let name = project.map(|project| project.name.as_deref().unwrap_or(&project.slug));
        add("Project", name.map(|name| one_line(name, EXCERPT)));
        add("Branch", text("branch"));
        add("Run", text("run_id"));
        add("Task", text("task_name").or_else(|| text("task_id")));
        add("Queue", text("queue"));
        add("Agent", text("agent_name").or_else(|| text("agent_id")));
        add("Failure", text("signature"));
        add("Status", text("status").or_else(|| text("state")));
        add("Error", text("exception"));
        add("Sample", text("sample_error"));
        add("Duration", self.duration());
        add("Event", Some(self.delivery.event_type.clone()));
        facts
    }

    /// How long it took, and how long it should have.
    fn duration(&self) -> Option<String> {
        let millis = |field: &str| self.payload.text(field)?.parse::<f64>().ok().filter(|ms| ms.is_finite());
        let shown =
            |ms: f64| if ms < 1000.0 { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1000.0) };
        let took = shown(millis("duration_ms")?);
        let (budget, before) = (millis("budget_ms").map(shown), millis("baseline_duration_ms").map(shown));
        Some(match (budget, before) {
            (Some(budget), _) => format!("{took}, budget {budget}"),
            (None, Some(before)) => format!("{took}, before {before}"),
            (None, None) => took,
        })
    }

    /// What it happened to: firings with the same name and type are one thing's. A digest is one of its
    /// own.
    pub fn thing(&self) -> Option<String> {
        if self.digest.is_some() {
            return Some(self.delivery.id.to_string());
        }
        ["task_id", "task_name", "agent_id", "run_id", "cluster_id"]
            .iter()
            .find_map(|field| self.payload.text(field).filter(|name| !name.is_empty()))
    }

    /// Up to three failures, the end of a traceback, or a digest's events, each a line.
    pub fn entries(&self) -> Vec<Entry> {
        if self.body.is_some() {
            return Vec::new();
        }
        if let Some(digest) = &self.digest {
            let rest = digest.rest().map(|title| Entry { title, link: None });
            return digest.entries.iter().cloned().chain(rest).collect();
        }
        let all: Vec<&RawValue> = self
            .payload
            .raw("top_failures")
            .and_then(|raw| serde_json::from_str(raw).ok())
            .unwrap_or_default();
        let rest = all.len().saturating_sub(FAILURES);
        let rest = (rest > 0).then(|| format!("and {rest} more"));
        let failures = all.into_iter().take(FAILURES).filter_map(failure).chain(rest);
        let lines: Vec<String> = failures.collect();
        let lines = if lines.is_empty() { self.traceback() } else { lines };
        lines.into_iter().map(|title| Entry { title, link: None }).collect()
    }

    /// The end of a traceback, where it says what went wrong.
    fn traceback(&self) -> Vec<String> {
        let Some(text) = self.payload.text("traceback") else { return Vec::new() };
        let lines: Vec<String> =
            text.lines().map(|line| one_line(line, EXCERPT)).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(FAILURES)..].to_vec()
    }

    /// What a cooldown held back, as a sentence.
    pub fn held_back(&self) -> Option<String> {
        if let Some(digest) = &self.digest {
            return digest.held_back();
        }
        let since = self.delivery.held_for.map_or_else(
            || "since the last message".to_owned(),
            |held_for| format!("in the last {}", span(held_for)),
        );
        (self.delivery.held_back > 0).then(|| format!("and {} more {since}", self.delivery.held_back))
    }

    /// Title, facts, entries and what was held back, as plain lines.
    pub fn plain(&self) -> String {
        format!("{}\n\n{}", self.title(), self.text())
    }

    /// The same without the title.
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        lines.extend(self.body.clone());
        lines.extend(self.facts().into_iter().map(|(label, value)| format!("{label}: {value}")));
        let entries = self.entries();
        if !entries.is_empty() {
            lines.push(String::new());
            lines.extend(entries.into_iter().map(|entry| format!("- {}", entry.title)));
        }
        if let Some(held) = self.held_back() {
            lines.extend([String::new(), held]);
        }
        lines.join("\n")
    }
}

/// A span of time in its greatest unit of which it has at least one and a half, as people say it: "5
/// minutes", "90 seconds", "second".
fn span(span: Duration) -> String {
    let seconds = span.as_secs_f64().round().max(1.0);
    let (unit, length) = [("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0)]
        .into_iter()
        .find(|(_, length)| seconds > length * 1.5)
        .unwrap_or(("second", 1.0));
    match (seconds / length).round() {
        1.0 => unit.to_owned(),
        count => format!("{count} {unit}s"),
    }
}

/// A failure is a string, or an object with a name and a message.
fn failure(raw: &RawValue) -> Option<String> {
    if let Ok(text) = serde_json::from_str::<String>(raw.get()) {
        return Some(one_line(&text, EXCERPT));
    }
    let fields = RawPayload::new(raw.get());
    let name = ["name", "test", "test_name", "title"].iter().find_map(|field| fields.text(field));
    let said = ["message", "error", "exception"].iter().find_map(|field| fields.text(field));
    let both = [name, said].into_iter().flatten().collect::<Vec<_>>().join(": ");
    (!both.is_empty()).then(|| one_line(&both, EXCERPT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_as_people_do() {
        for (seconds, expected) in [
            (0.0, "second"),
            (1.4, "second"),
            (59.6, "60 seconds"),
            (90.0, "90 seconds"),
            (299.2, "5 minutes"),
            (3_600.0, "60 minutes"),
            (7_200.0, "2 hours"),
            (86_400.0, "24 hours"),
            (31_557_600.0, "365 days"),
        ] {
            assert_eq!(span(Duration::from_secs_f64(seconds)), expected, "{seconds}");
        }
    }
}
