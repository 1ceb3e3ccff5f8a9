use super::*;
use crate::payload::RawPayload;

fn refusal(json: &str) -> String {
    Filters::parse(json).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (json, says) in [
        ("[]", "filters must be a JSON object"),
        ("null", "filters must be a JSON object"),
        (
            r#"{"colour": 1}"#,
            "unknown filter \"colour\": the filters are priority_min, priority_max, priority,",
        ),
        (r#"{"priority_min": "urgent"}"#, "filter \"priority_min\" must be an integer, or low, normal"),
        (r#"{"priority_min": 1.5}"#, "filter \"priority_min\" must be an integer"),
        (
            r#"{"priority_min": 3, "priority_max": "low"}"#,
            "filter \"priority_min\" is over \"priority_max\": 3 > 0",
        ),
        (r#"{"priority": 1}"#, "filter \"priority\" must be a list"),
        (r#"{"priority": []}"#, "filter \"priority\" is an empty list"),
        (r#"{"task_name_pattern": ""}"#, "filter \"task_name_pattern\" is empty"),
        (r#"{"task_name_pattern": 7}"#, "filter \"task_name_pattern\" must be a string"),
        (r#"{"queue": null}"#, "filter \"queue\" must be a string"),
        (r#"{"queue": ["a"]}"#, "filter \"queue\" must be a string"),
        (r#"{"branches": "main"}"#, "filter \"branches\" must be a list of strings"),
        (r#"{"branches": [1]}"#, "filter \"branches\" must be a list of strings"),
        (r#"{"owners": []}"#, "filter \"owners\" is an empty list"),
        (r#"{"default_branch_only": "yes"}"#, "filter \"default_branch_only\" must be true or false"),
        (r#"{"flakiness_min": 1.5}"#, "filter \"flakiness_min\" must be from 0 to 1, not 1.5"),
        (r#"{"flakiness_min": "0.1"}"#, "filter \"flakiness_min\" must be a number"),
        (r#"{"regression_min_pct": -1}"#, "filter \"regression_min_pct\" must be at least 0, not -1"),
        (r#"{"where": ""}"#, "filter \"where\" is empty"),
    ] {
        assert!(refusal(json).starts_with(says), "{json}: {}", refusal(json));
    }
    let long = format!(r#"{{"task_name_pattern": "{}"}}"#, "x".repeat(201));
    assert!(refusal(&long).contains("201 characters, more than 200"));
}

/// Type, filters, payload, and `ok` or what the mismatch says.
#[rustfmt::skip]
const CASES: &[(&str, &str, &str, &str)] = &[
    ("task.failed", "{}", "{}", "ok"),
    ("task.failed", r#"{"queue": "billing"}"#, r#"{"queue": "billing"}"#, "ok"),
    ("task.failed", r#"{"queue": "billing"}"#, r#"{"queue": "mail"}"#, r#"filter queue: "mail" is not "billing""#),
    ("task.failed", r#"{"queue": "billing"}"#, "{}", "filter queue: the payload has no queue"),
    ("task.failed", r#"{"queue": "7"}"#, r#"{"queue": 7}"#, "ok"),
    ("task.slow", r#"{"task_name_pattern": "report.*"}"#, r#"{"task_name": "report.a/b"}"#, "ok"),
    ("task.slow", r#"{"task_name_pattern": "report.*"}"#, r#"{"task_name": "mail"}"#, r#"filter task_name_pattern: "mail" is not "report.*""#),
    ("task.failed", r#"{"priority_min": "high"}"#, r#"{"priority": "critical"}"#, "ok"),
    ("task.failed", r#"{"priority_min": "high"}"#, r#"{"priority": 2}"#, "ok"),
    ("task.failed", r#"{"priority_min": "high"}"#, r#"{"priority": 1}"#, r#"filter priority_min: "1" is not at least 2"#),
    ("task.failed", r#"{"priority_min": "high"}"#, "{}", r#"filter priority_min: "normal" is not at least 2"#),
    ("task.failed", r#"{"priority_max": "normal"}"#, "{}", "ok"),
    ("task.failed", r#"{"priority_max": 1}"#, r#"{"priority": "high"}"#, r#"filter priority_max: "high" is not at most 1"#),
    ("task.failed", r#"{"priority": ["low", 3]}"#, r#"{"priority": "critical"}"#, "ok"),
    ("task.failed", r#"{"priority": ["low", 3]}"#, r#"{"priority": 7}"#, r#"filter priority: "7" is not among [0, 3]"#),
    ("task.failed", r#"{"priority": [1]}"#, r#"{"priority": "urgent"}"#, r#"filter priority: "urgent" is not a priority"#),
    ("task.failed", r#"{"priority": [1]}"#, r#"{"priority": 1.5}"#, r#"filter priority: "1.5" is not a priority"#),
    ("task.failed", r#"{"priority_min": 1}"#, r#"{"priority": null}"#, "ok"),
    ("task.failed", r#"{"priority_min": 0}"#, r#"{"priority": [3]}"#, r#"filter priority: "a list or an object" is not a priority"#),
    ("task.failed", r#"{"priority_min": 0}"#, r#"{"priority": {}}"#, r#"filter priority: "a list or an object" is not a priority"#),
    ("task.failed", r#"{"priority_min": 0}"#, r#"{"priority": "7"}"#, r#"filter priority: "7" is not a priority"#),
    ("task.failed", r#"{"priority_min": 0}"#, r#"{"priority": true}"#, r#"filter priority: "true" is not a priority"#),
    ("task.failed", r#"{"priority_min": -5, "priority_max": "low"}"#, r#"{"priority": -3}"#, "ok"),
    ("task.failed", r#"{"queue": "a"}"#, "[]", "filter queue: the payload has no queue"),
    ("run.failed", r#"{"branches": ["main"]}"#, r#""text""#, "filter branches: the payload has no branch"),
    ("running.late", r#"{"branches": ["main"]}"#, "{}", "ok"),
    ("run.failed", r#"{"default_branch_only": true}"#, r#"{"is_default_branch": true}"#, "ok"),
    ("run.failed", r#"{"owners": ["ann"]}"#, "{}", "filter owners: the payload has no owners"),
    ("perf.regression", r#"{"regression_min_pct": 20}"#, "{}", "filter regression_min_pct: the payload has no regression_pct"),
    ("task.failed", r#"{"regression_min_pct": 20, "flakiness_min": 1, "owners": ["a"], "statuses": ["b"]}"#, "{}", "ok"),
    ("task.failed", r#"{"branches": ["main"]}"#, "{}", "ok"),
    ("run.failed", r#"{"branches": ["main", "next"]}"#, r#"{"branch": "next"}"#, "ok"),
    ("run.failed", r#"{"branches": ["main", "next"]}"#, r#"{"branch": "x"}"#, r#"filter branches: "x" is not one of "main", "next""#),
    ("run.failed", r#"{"branches": ["main"]}"#, "{}", "filter branches: the payload has no branch"),
    ("run.finished", r#"{"statuses": ["failed"]}"#, r#"{"status": "passed"}"#, r#"filter statuses: "passed" is not "failed""#),
    ("run.failed", r#"{"owners": ["ann", "bob"]}"#, r#"{"owners": ["eve", "bob"]}"#, "ok"),
    ("run.failed", r#"{"owners": ["ann"]}"#, r#"{"owners": "ann"}"#, "ok"),
    ("run.failed", r#"{"owners": ["ann"]}"#, r#"{"owners": ["eve"]}"#, r#"filter owners: "eve" is not "ann""#),
    ("run.failed", r#"{"owners": ["ann"]}"#, r#"{"owners": []}"#, "filter owners: the payload has no owners"),
    ("run.failed", r#"{"default_branch_only": true}"#, r#"{"branch": "main"}"#, "ok"),
    ("run.failed", r#"{"default_branch_only": true}"#, r#"{"branch": "x"}"#, r#"filter default_branch_only: "x" is not the default branch"#),
    ("run.failed", r#"{"default_branch_only": true}"#, r#"{"branch": "x", "is_default_branch": true}"#, "ok"),
    ("run.failed", r#"{"default_branch_only": true}"#, r#"{"branch": "main", "is_default_branch": false}"#, r#"filter default_branch_only: "main" is not the default branch"#),
    ("run.failed", r#"{"default_branch_only": true}"#, "{}", "filter default_branch_only: the payload has no branch"),
    ("run.failed", r#"{"default_branch_only": false}"#, r#"{"branch": "x"}"#, "ok"),
    ("task.failed", r#"{"default_branch_only": true}"#, "{}", "ok"),
    ("flakiness.spike", r#"{"flakiness_min": 0.1}"#, r#"{"flakiness_rate": 0.1}"#, "ok"),
    ("flakiness.spike", r#"{"flakiness_min": 0.1}"#, r#"{"flakiness_rate": 0.05}"#, r#"filter flakiness_min: "0.05" is not at least 0.1"#),
    ("flakiness.spike", r#"{"flakiness_min": 0.1}"#, r#"{"flakiness_rate": "0.5"}"#, "filter flakiness_min: the payload has no flakiness_rate"),
    ("run.failed", r#"{"flakiness_min": 0.1}"#, "{}", "ok"),
    ("perf.regression", r#"{"regression_min_pct": 20}"#, r#"{"regression_pct": 1e400}"#, "ok"),
    ("perf.regression", r#"{"regression_min_pct": 20}"#, r#"{"regression_pct": 19.9}"#, r#"filter regression_min_pct: "19.9" is not at least 20"#),
    ("task.failed", r#"{"queue": "a", "priority_min": 2}"#, r#"{"queue": "a", "priority": 0}"#, r#"filter priority_min: "0" is not at least 2"#),
];

#[test]
fn filters_judge_events() {
    for (event_type, filters, payload, expected) in CASES {
        let payload_fields = RawPayload::new(payload);
        let event = Event { event_type, default_branch: Some("main"), payload: &payload_fields };
        let says =
            Filters::parse(filters).unwrap().check(&event).map_or_else(|m| m.to_string(), |()| "ok".into());
        assert_eq!(says, *expected, "{event_type} {filters} {payload}");
    }
}

#[test]
fn a_project_without_a_known_default_branch_has_none() {
    let payload = RawPayload::new(r#"{"branch": "main"}"#);
    let event = Event { event_type: "run.failed", default_branch: None, payload: &payload };
    assert!(Filters::parse(r#"{"default_branch_only": true}"#).unwrap().check(&event).is_err());
}

#[test]
fn where_is_carried_for_postgres() {
    let filters = Filters::parse(r#"{"where": "$.amount > 100"}"#).unwrap();
    assert_eq!(filters.where_path(), Some("$.amount > 100"));
}

#[test]
fn what_a_mismatch_repeats_is_cut() {
    let long = "x".repeat(500);
    let payload = format!(r#"{{"queue": "{long}", "branch": "b"}}"#);
    let payload = RawPayload::new(&payload);
    let event = Event { event_type: "run.failed", default_branch: None, payload: &payload };
    let queue = Filters::parse(&format!(r#"{{"queue": "y{long}"}}"#)).unwrap().check(&event).unwrap_err();
    let cut = "x".repeat(100);
    assert_eq!(queue.to_string(), format!("filter queue: \"{cut}…\" is not \"y{}…\"", &cut[1..]));
    let many: Vec<String> = (0..50).map(|i| format!("\"v{i}\"")).collect();
    let branches = format!(r#"{{"branches": [{}]}}"#, many.join(","));
    let said = Filters::parse(&branches).unwrap().check(&event).unwrap_err().to_string();
    assert!(said.ends_with(r#""v8", "v9", …"#), "{said}");
}

#[test]
fn a_predicate_has_a_length() {
    let path = |length: usize| format!(r#"{{"where": "{}"}}"#, "é".repeat(length));
    assert!(Filters::parse(&path(1000)).is_ok());
    assert_eq!(refusal(&path(1001)), "filter \"where\" is longer than 1000 characters");
}
