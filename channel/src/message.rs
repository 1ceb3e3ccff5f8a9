//! What every kind says, before it says it in its own form.

use std::time::Duration;

use klaxon_model::payload::{Payload as _, RawPayload};
use klaxon_model::title::title;
use serde_json::value::RawValue;
use url::Url;

use crate::delivery::{Channel, Delivery, Options};
use crate::digest::{Digest, Entry};
use crate::template;

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
    /// The heading.
    pub title: String,
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
        let name = project.map(|project| project.name.as_deref().unwrap_or(&project.slug));
        let url = payload
            .text("url")
            .filter(|url| link(url).is_some())
            .or_else(|| project.and_then(|project| project.url.clone()))
            .or_else(|| options.site_url.clone());
        let digest = delivery.is_digest().then(|| Digest::read(&delivery.payload, project));
        let title = match &digest {
            Some(digest) => digest.title(name),
            None => title(&delivery.event_type, name, &payload),
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mut message = Self {
            digest,
            body: None,
            title,
            link: url.as_deref().and_then(link).map(String::from),
            url,
            payload,
            delivery,
            channel,
            options,
            now: i64::try_from(now.as_secs()).unwrap_or_default(),
        };
        let rules = channel.settings.as_ref().ok().map(|settings| &settings.delivery);
        if let Some(template) = rules.and_then(|rules| rules.template.as_ref()) {
            let words = template::words(template, &message);
            let title = words.title.map(|title| one_line(&title, TITLE)).filter(|title| !title.is_empty());
            message.title = title.unwrap_or(message.title);
            message.body = words.body.map(|body| lines(&body)).filter(|body| !body.is_empty());
        }
        message
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
        add("Event", Some(self.delivery.event_type.clone()));
        facts
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

    /// Up to three failures, or a digest's events, each a line.
    pub fn entries(&self) -> Vec<Entry> {
        if self.body.is_some() {
            return Vec::new();
        }
        if let Some(digest) = &self.digest {
            let rest = digest.rest().map(|title| Entry { title, link: None });
            return digest.entries.iter().cloned().chain(rest).collect();
        }
        let Some(raw) = self.payload.raw("top_failures") else { return Vec::new() };
        let all: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
        let failures = all.into_iter().take(FAILURES).filter_map(failure);
        failures.map(|title| Entry { title, link: None }).collect()
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
        format!("{}\n\n{}", self.title, self.text())
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

/// Lines without colours or control characters.
fn lines(text: &str) -> String {
    let clean = without_ansi(text).replace("\r\n", "\n").replace('\r', "\n");
    let shown: String = clean.chars().filter(|c| !c.is_control() || ['\n', '\t'].contains(c)).collect();
    shown.trim().to_owned()
}

/// One line without colours or control characters, cut with an ellipsis.
pub fn one_line(text: &str, length: usize) -> String {
    let clean = without_ansi(text);
    let words = clean.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    cut(&words.collect::<Vec<_>>().join(" "), length)
}

/// At most `length` characters, the last an ellipsis where something was cut.
pub fn cut(text: &str, length: usize) -> String {
    escaped(text, length, |c, cut| cut.push(c))
}

/// At most `length` bytes, the last an ellipsis where something was cut.
pub fn cut_bytes(text: &str, length: usize) -> String {
    const ELLIPSIS: char = '…';
    if text.len() <= length {
        return text.to_owned();
    }
    let fits = text.floor_char_boundary(length.saturating_sub(ELLIPSIS.len_utf8()));
    let mut cut = text[..fits].to_owned();
    cut.push(ELLIPSIS);
    cut
}

/// The text with each character as `escape` writes it, at most `length` long and cut between two
/// characters, not within what became of one. Lengths are UTF-16's: some vendors count that way,
/// and who counts characters finds no more of them.
pub fn escaped(text: &str, length: usize, escape: impl Fn(char, &mut String)) -> String {
    let (mut escaped, mut used, mut fits) = (String::with_capacity(text.len()), 0, 0);
    for c in text.chars() {
        let begin = escaped.len();
        escape(c, &mut escaped);
        used += escaped[begin..].chars().map(char::len_utf16).sum::<usize>();
        if used > length {
            escaped.truncate(fits);
            escaped.push('…');
            break;
        }
        if used < length {
            fits = escaped.len();
        }
    }
    escaped
}

/// A link is http or https and names a host. One with a user before the host is none: it is read as
/// another host than the one it leads to.
pub fn link(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none();
    (plain && ["http", "https"].contains(&url.scheme()) && url.has_host()).then_some(url)
}

/// Drops escape sequences (ECMA-48): colours, links, titles, character sets.
fn without_ansi(text: &str) -> String {
    let (mut clean, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        clean.push_str(before);
        rest = after_escape(after);
    }
    clean.push_str(rest);
    clean
}

/// What follows the escape sequence whose first character was ESC.
fn after_escape(text: &str) -> &str {
    let mut chars = text.chars();
    match chars.next() {
        None => "",
        // A control sequence: parameters and intermediates, up to the final byte.
        Some('[') => {
            chars.by_ref().find(|c| ('@'..='~').contains(c));
            chars.as_str()
        }
        // A control string, up to BEL or ESC \; what never ends is no string.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let ends = ["\u{7}", "\u{1b}\\"].iter().filter_map(|end| Some((text.find(end)?, end.len())));
            ends.min().map_or(chars.as_str(), |(at, length)| &text[at + length..])
        }
        // Intermediates and a final byte.
        Some(' '..='/') => {
            chars.by_ref().find(|c| !(' '..='/').contains(c));
            chars.as_str()
        }
        Some(_) => chars.as_str(),
    }
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
            ("\u{1b}]8;;https://evil\u{1b}\\text\u{1b}]8;;\u{7}!", "text!"),
            ("\u{1b}]0;never", "0;never"),
            ("\u{1b}(Bplain", "plain"),
            ("end\u{1b}", "end"),
            ("éééééééééééé", "ééééééééé…"),
            ("éééééééééé", "éééééééééé"),
            // Two units each in UTF-16.
            ("😀😀😀😀😀", "😀😀😀😀😀"),
            ("😀😀😀😀😀😀", "😀😀😀😀…"),
        ] {
            assert_eq!(one_line(text, 10), expected, "{text:?}");
        }
    }

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

    #[test]
    fn a_cut_never_falls_within_an_escape() {
        let amp = |c: char, out: &mut String| if c == '&' { out.push_str("&amp;") } else { out.push(c) };
        for (text, expected) in [
            ("&&", "&amp;&amp;"),
            ("&&x", "&amp;…"),
            ("&&&", "&amp;…"),
            ("xxxx&&", "xxxx&amp;…"),
            ("xxxxxxxxxx", "xxxxxxxxxx"),
            ("xxxxxxxxxxx", "xxxxxxxxx…"),
        ] {
            assert_eq!(escaped(text, 10, amp), expected, "{text}");
        }
    }

    #[test]
    fn a_link_leads_where_it_seems_to() {
        for (text, expected) in [
            ("https://ci.example.com/r/1", Some("https://ci.example.com/r/1")),
            ("HTTP://ci.example.com", Some("http://ci.example.com/")),
            ("https://x/a b\"<c>", Some("https://x/a%20b%22%3Cc%3E")),
            ("https://bank.example@evil.example/", None),
            ("https://u:p@x/", None),
            ("javascript:alert(1)", None),
            ("https://", None),
            ("http://not a host/", None),
            ("run 17", None),
        ] {
            assert_eq!(link(text).as_ref().map(Url::as_str), expected, "{text}");
        }
    }
}
