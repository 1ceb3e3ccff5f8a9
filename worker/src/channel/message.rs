//! What every kind says, before it says it in its own form.

use klaxon_model::payload::{Payload as _, RawPayload};
use klaxon_model::title::title;
use serde_json::value::RawValue;

use super::{Channel, CourierOptions, Delivery};

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
    pub options: &'a CourierOptions,
    /// The payload's fields.
    pub payload: RawPayload<'a>,
    /// The heading.
    pub title: String,
    /// Where to read on.
    pub url: Option<String>,
    /// Unix seconds of this attempt.
    pub now: i64,
}

impl<'a> Message<'a> {
    /// Reads a delivery.
    pub fn new(channel: &'a Channel, delivery: &'a Delivery, options: &'a CourierOptions) -> Self {
        let payload = RawPayload::new(delivery.payload.get());
        let project = delivery.project.as_deref();
        let name = project.map(|project| project.name.as_deref().unwrap_or(&project.slug));
        let link =
            |url: String| ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)).then_some(url);
        let url = payload
            .text("url")
            .and_then(link)
            .or_else(|| project.and_then(|project| project.url.clone()))
            .or_else(|| options.site_url.clone());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            title: title(&delivery.event_type, name, &payload),
            url,
            payload,
            delivery,
            channel,
            options,
            now: i64::try_from(now.as_secs()).unwrap_or_default(),
        }
    }

    /// When it happened, RFC 3339 in UTC.
    pub fn occurred_at(&self) -> String {
        let micros = self.delivery.occurred_at.unix_micros();
        jiff::Timestamp::from_microsecond(micros)
            .unwrap_or(if micros < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX })
            .to_string()
    }

    /// Label and value of what is known, in order of what people look for.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let text = |field: &str| self.payload.text(field).map(|value| one_line(&value, EXCERPT));
        let project = self.delivery.project.as_deref();
        let mut facts = Vec::new();
        let mut add =
            |label, value: Option<String>| facts.extend(value.filter(|v| !v.is_empty()).map(|v| (label, v)));
        add("Project", project.map(|project| project.name.clone().unwrap_or_else(|| project.slug.clone())));
        add("Branch", text("branch"));
        add("Run", text("run_id"));
        add("Task", text("task_name").or_else(|| text("task_id")));
        add("Queue", text("queue"));
        add("Agent", text("agent_name").or_else(|| text("agent_id")));
        add("Failure", text("signature"));
        add("Status", text("status").or_else(|| text("state")));
        add("Error", text("exception"));
        add("Event", Some(self.delivery.event_type.clone()));
        facts
    }

    /// Up to three failures, each a line.
    pub fn failures(&self) -> Vec<String> {
        let Some(raw) = self.payload.raw("top_failures") else { return Vec::new() };
        let all: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
        all.into_iter().take(FAILURES).filter_map(failure).collect()
    }

    /// What a cooldown held back, as a sentence.
    pub fn held_back(&self) -> Option<String> {
        match self.delivery.held_back {
            ..=0 => None,
            1 => Some("and 1 more since the last message".into()),
            many => Some(format!("and {many} more since the last message")),
        }
    }

    /// Title, facts, failures and what was held back, as plain lines.
    pub fn plain(&self) -> String {
        let mut lines = vec![self.title.clone(), String::new()];
        lines.extend(self.facts().into_iter().map(|(label, value)| format!("{label}: {value}")));
        let failures = self.failures();
        if !failures.is_empty() {
            lines.push(String::new());
            lines.extend(failures.into_iter().map(|failure| format!("- {failure}")));
        }
        if let Some(held) = self.held_back() {
            lines.extend([String::new(), held]);
        }
        lines.join("\n")
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

/// One line without colours or control characters, cut with an ellipsis.
pub fn one_line(text: &str, length: usize) -> String {
    let clean = without_ansi(text);
    let words = clean.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    cut(&words.collect::<Vec<_>>().join(" "), length)
}

/// At most `length` characters, the last an ellipsis where something was cut.
pub fn cut(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(length.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Drops escape sequences: CSI (colours among them) and those of one character.
fn without_ansi(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            clean.push(c);
        } else if chars.next() == Some('[') {
            // Parameters and intermediates, up to the final byte.
            chars.by_ref().find(|c| ('@'..='~').contains(c));
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_clean_and_cut() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a\r\nb\tc", "a b c"),
            ("\u{1b}[31mred\u{1b}[0m text", "red text"),
            ("\u{1b}[38;5;196mE\u{1b}[m", "E"),
            ("cut\u{1b}[31", "cut"),
            ("éééééééééééé", "ééééééééé…"),
        ] {
            assert_eq!(one_line(text, 10), expected);
        }
    }
}
