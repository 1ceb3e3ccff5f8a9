//! What happened, in a line a person understands.

use klaxon_model::payload::Payload;

use crate::text::one_line;

/// Longest title, in characters.
pub const MAX_LENGTH: usize = 200;

/// The line that heads every message: `Test run failed: billing (main), 3 of 412 tests`.
///
/// A payload's own `title` wins. The result is one line without colours or control characters.
#[must_use]
pub fn title(event_type: &str, project: Option<&str>, payload: &dyn Payload) -> String {
    let own =
        payload.text("title").map(|title| one_line(&title, MAX_LENGTH)).filter(|title| !title.is_empty());
    own.unwrap_or_else(|| one_line(&built(event_type, project, payload), MAX_LENGTH))
}

fn built(event_type: &str, project: Option<&str>, payload: &dyn Payload) -> String {
    let text = |field: &str| payload.text(field);
    let place = project.map(str::to_owned);
    match event_type {
        "run.finished" => headed("Test run finished", &run_place(project, payload), tests(payload)),
        "run.failed" => headed("Test run failed", &run_place(project, payload), tests(payload)),
        "run.failed.default_branch" => {
            headed("Test run failed on the default branch", &run_place(project, payload), tests(payload))
        }
        "cluster.new" => headed("New failure", &text("signature").or(place), cases(payload)),
        "flakiness.spike" => headed(
            "Tests are flaky",
            &run_place(project, payload),
            payload.number("flakiness_rate").map(|rate| format!("{} of runs", percent(rate * 100.0))),
        ),
        "perf.regression" => headed(
            "Test run is slower",
            &run_place(project, payload),
            payload.number("regression_pct").map(|pct| format!("by {}", percent(pct))),
        ),
        "task.failed" => headed("Task failed", &task(payload).or(place), text("exception")),
        "task.succeeded" => headed("Task succeeded", &task(payload).or(place), took(payload)),
        "task.retried" => headed("Task will be retried", &task(payload).or(place), text("exception")),
        "task.slow" => headed("Task is slow", &task(payload).or(place), budget(payload)),
        "agent.offline" => headed("Agent is offline", &agent(payload).or(place), None),
        "agent.online" => headed("Agent is back online", &agent(payload).or(place), None),
        "channel.disabled" => headed("Channel disabled", &text("channel").or(place), text("reason")),
        "test.dispatch" => headed("Test message", &text("channel").or(place), None),
        other => headed(other, &task(payload).or_else(|| agent(payload)).or(place), None),
    }
}

fn headed(head: &str, subject: &Option<String>, detail: Option<String>) -> String {
    let said = |text: &&String| !text.trim().is_empty();
    let detail = detail.as_ref().filter(said).map(|detail| format!(", {detail}")).unwrap_or_default();
    match subject.as_ref().filter(said) {
        Some(subject) => format!("{head}: {subject}{detail}"),
        None => format!("{head}{detail}"),
    }
}

fn run_place(project: Option<&str>, payload: &dyn Payload) -> Option<String> {
    let branch = payload.text("branch");
    match (project, branch) {
        (Some(project), Some(branch)) => Some(format!("{project} ({branch})")),
        (Some(project), None) => Some(project.to_owned()),
        (None, Some(branch)) => Some(branch),
        (None, None) => payload.text("run_id"),
    }
}

fn tests(payload: &dyn Payload) -> Option<String> {
    match (payload.integer("failed_tests"), payload.integer("total_tests")) {
        (Some(failed), Some(total)) => Some(format!("{failed} of {total} tests")),
        (Some(failed), None) => Some(format!("{failed} tests")),
        (None, Some(total)) => Some(format!("{total} tests")),
        (None, None) => payload.text("status"),
    }
}

fn cases(payload: &dyn Payload) -> Option<String> {
    payload.integer("affected_cases").map(|cases| match cases {
        1 => "1 test".into(),
        many => format!("{many} tests"),
    })
}

fn task(payload: &dyn Payload) -> Option<String> {
    payload.text("task_name").or_else(|| payload.text("task_id"))
}

fn agent(payload: &dyn Payload) -> Option<String> {
    payload.text("agent_name").or_else(|| payload.text("agent_id"))
}

fn took(payload: &dyn Payload) -> Option<String> {
    payload.number("duration_ms").map(|ms| format!("in {}", seconds(ms)))
}

fn budget(payload: &dyn Payload) -> Option<String> {
    match (payload.number("duration_ms"), payload.number("budget_ms")) {
        (Some(duration), Some(budget)) => Some(format!("{} of {}", seconds(duration), seconds(budget))),
        (Some(duration), None) => Some(seconds(duration)),
        _ => None,
    }
}

fn seconds(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1000.0) }
}

fn percent(value: f64) -> String {
    if value.fract().abs() < 0.05 { format!("{value:.0} %") } else { format!("{value:.1} %") }
}

#[cfg(test)]
mod tests {
    use klaxon_model::payload::RawPayload;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn titles_say_what_happened() {
        for (event_type, project, payload, expected) in [
            ("run.failed", Some("billing"), r#"{"branch": "main", "failed_tests": 3, "total_tests": 412}"#, "Test run failed: billing (main), 3 of 412 tests"),
            ("run.finished", Some("billing"), r#"{"total_tests": 412}"#, "Test run finished: billing, 412 tests"),
            ("run.finished", None, r#"{"run_id": "r7", "status": "passed"}"#, "Test run finished: r7, passed"),
            ("run.failed.default_branch", Some("b"), "{}", "Test run failed on the default branch: b"),
            ("cluster.new", Some("b"), r#"{"signature": "TypeError: x", "affected_cases": 2}"#, "New failure: TypeError: x, 2 tests"),
            ("flakiness.spike", Some("b"), r#"{"flakiness_rate": 0.125}"#, "Tests are flaky: b, 12.5 % of runs"),
            ("perf.regression", Some("b"), r#"{"regression_pct": 40}"#, "Test run is slower: b, by 40 %"),
            ("task.failed", None, r#"{"task_name": "mail.send", "exception": "Timeout\nat x"}"#, "Task failed: mail.send, Timeout at x"),
            ("task.succeeded", None, r#"{"task_id": 7, "duration_ms": 1500}"#, "Task succeeded: 7, in 1.5 s"),
            ("task.slow", None, r#"{"task_name": "r", "duration_ms": 900, "budget_ms": 500}"#, "Task is slow: r, 900 ms of 500 ms"),
            ("agent.offline", Some("p"), r#"{"agent_id": "a1", "agent_name": "builder"}"#, "Agent is offline: builder"),
            ("agent.online", Some("p"), "{}", "Agent is back online: p"),
            ("test.dispatch", None, r#"{"channel": "ops"}"#, "Test message: ops"),
            ("order.paid", Some("shop"), "{}", "order.paid: shop"),
            ("order.paid", None, "[1]", "order.paid"),
            ("order.paid", None, r#"{"title": " Paid\r\nin\u0000 full "}"#, "Paid in full"),
            ("order.paid", None, r#"{"title": "  "}"#, "order.paid"),
            // What a test runner or a terminal made of it.
            ("task.failed", None, r#"{"task_name": "t", "exception": "\u001b[31mTimeout\u001b[0m"}"#, "Task failed: t, Timeout"),
            ("task.failed", None, r#"{"task_name": "\u202egpj.t", "exception": ""}"#, "Task failed: gpj.t"),
        ] {
            assert_eq!(title(event_type, project, &RawPayload::new(payload)), expected);
        }
    }

    #[test]
    fn a_title_is_cut_at_a_character() {
        let payload = format!(r#"{{"title": "{}"}}"#, "é".repeat(300));
        let cut = title("run.failed", None, &RawPayload::new(&payload));
        assert_eq!(cut.chars().count(), MAX_LENGTH);
        assert!(cut.ends_with("é…"));
    }
}
