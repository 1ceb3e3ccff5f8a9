//! Which subscriptions an event matches.

use std::hint::black_box;

use klaxon_channel::sample;
use klaxon_model::filter::{Event, Filters};
use klaxon_model::glob::{Glob, GlobSet};
use klaxon_model::payload::RawPayload;

use crate::Operation;

const GLOBS: usize = 1_000;
const FILTERS: &str =
    r#"{"priority_min": "normal", "task_name_pattern": "billing.*.charge", "queue": "payments"}"#;

pub fn operations() -> anyhow::Result<Vec<Operation>> {
    let payload = sample::payload("task.failed").to_string();
    let filters = Filters::parse(FILTERS)?;
    let read = payload.clone();
    let globs =
        (0..GLOBS).map(|n| Glob::new(&format!("report{n}.*.daily[0-9]"))).collect::<Result<Vec<_>, _>>()?;
    let (set, mut matched) = (GlobSet::new(globs), Vec::new());
    Ok(vec![
        Operation::new("filters_parse", || {
            black_box(Filters::parse(black_box(FILTERS)).is_ok());
        }),
        Operation::new("filters_check", move || {
            let payload = RawPayload::new(black_box(&payload));
            let event = Event { event_type: "task.failed", default_branch: Some("main"), payload: &payload };
            assert!(black_box(filters.check(&event)).is_ok(), "the event passes");
        }),
        Operation::new("payload_read", move || {
            black_box(RawPayload::new(black_box(&read)));
        }),
        Operation::new("globs_1000_match", move || {
            matched.clear();
            set.matches(black_box("report77.billing.daily7"), &mut matched);
            assert!(matched == [77], "one of them matches");
        }),
    ])
}
