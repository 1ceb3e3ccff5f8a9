//! A digest in words: how many of what, and the newest of them.

use crate::title::title;
use klaxon_model::payload::{Payload as _, RawPayload};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::delivery::Project;
use crate::text::{link, one_line};

/// Kinds of event that are counted apart: more than a section of Slack's holds are told as one.
const KINDS: usize = 9;
/// Characters of one event.
const EXCERPT: usize = 200;

/// What `klaxon.digest_payload()` makes of the events collected.
#[derive(Deserialize)]
struct Collected<'a> {
    count: u64,
    #[serde(default)]
    held_back: u64,
    #[serde(default)]
    groups: Vec<Group>,
    #[serde(borrow, default)]
    events: Vec<Happened<'a>>,
}

#[derive(Deserialize)]
struct Group {
    r#type: String,
    project: Option<String>,
    count: u64,
}

#[derive(Deserialize)]
struct Happened<'a> {
    r#type: String,
    project: Option<String>,
    url: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// One event of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What happened.
    pub title: String,
    /// Where to read on.
    pub link: Option<String>,
}

/// A digest, ready to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Events in all.
    pub count: u64,
    /// Events that cooldowns held back besides.
    pub held_back: u64,
    /// What of, and how many.
    pub kinds: Vec<(String, String)>,
    /// The newest.
    pub entries: Vec<Entry>,
}

/// Characters of a task or run.
const NAME: usize = 60;

/// What heads the event's own message; and the task or run, which that says beside its heading.
fn line(event_type: &str, project: Option<&str>, payload: &RawPayload<'_>) -> String {
    let heading = title(event_type, project, payload);
    let named =
        [("task_name", "task"), ("task_id", "task"), ("run_id", "run")].iter().find_map(|(field, word)| {
            let name = one_line(&payload.text(field)?, NAME);
            (!name.is_empty()).then_some((word, name))
        });
    let Some((word, name)) = named else { return one_line(&heading, EXCERPT) };
    let subject =
        |part: &str| part.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with(", "));
    if heading.split(": ").any(subject) {
        return one_line(&heading, EXCERPT);
    }
    let named = format!(", {word} {name}");
    one_line(&heading, EXCERPT - named.chars().count()) + &named
}

impl Digest {
    /// Reads a digest's payload. What does not read as one counts no event.
    pub fn read(payload: &RawValue, project: Option<&Project>) -> Self {
        let Ok(collected) = serde_json::from_str::<Collected<'_>>(payload.get()) else {
            return Self::default();
        };
        // What people call it is known where all of the digest is one project's.
        let name = |slug: &Option<String>| {
            let known = project.filter(|project| slug.as_deref() == Some(&project.slug));
            known.and_then(|project| project.name.clone()).or_else(|| slug.clone())
        };
        let mut kinds: Vec<(String, String)> = collected
            .groups
            .iter()
            .take(KINDS)
            .map(|group| {
                let label = match name(&group.project) {
                    Some(project) => format!("{}, {project}", group.r#type),
                    None => group.r#type.clone(),
                };
                (one_line(&label, EXCERPT), group.count.to_string())
            })
            .collect();
        let told: u64 = collected.groups.iter().take(KINDS).map(|group| group.count).sum();
        if told < collected.count && !kinds.is_empty() {
            kinds.push(("Others".to_owned(), (collected.count - told).to_string()));
        }
        let entries = collected
            .events
            .iter()
            .map(|event| {
                let payload = RawPayload::new(event.data.get());
                Entry {
                    title: line(&event.r#type, name(&event.project).as_deref(), &payload),
                    link: event.url.as_deref().and_then(link).map(String::from),
                }
            })
            .collect();
        Self { count: collected.count, held_back: collected.held_back, kinds, entries }
    }

    /// Its heading.
    pub fn title(&self, project: Option<&str>) -> String {
        let events = if self.count == 1 { "event" } else { "events" };
        let place = project.map(|project| format!(" in {project}")).unwrap_or_default();
        format!("Digest: {} {events}{place}", self.count)
    }

    /// What is not listed.
    pub fn rest(&self) -> Option<String> {
        let rest = self.count.saturating_sub(self.entries.len() as u64);
        (rest > 0).then(|| format!("and {rest} more"))
    }

    /// What cooldowns held back, as a sentence.
    pub fn held_back(&self) -> Option<String> {
        (self.held_back > 0).then(|| format!("and {} more that cooldowns held back", self.held_back))
    }
}
