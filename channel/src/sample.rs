//! Payloads such as applications send: what a preview shows, and the golden tests hold still.

use serde_json::{Value, json};

/// One of a built-in event type; any other gets a task's.
#[must_use]
pub fn payload(event_type: &str) -> Value {
    match event_type {
        "run.finished" => json!({
            "run_id": "4712", "branch": "main", "status": "passed", "total_tests": 412, "failed_tests": 0
        }),
        "run.failed" | "run.failed.default_branch" => json!({
            "run_id": "4711", "branch": "main", "is_default_branch": true, "status": "failed",
            "total_tests": 412, "failed_tests": 3, "passed_tests": 405, "flaky_tests": 4,
            "top_failures": [
                "tests/test_invoice.py::test_rounding: assert 0.1 + 0.2 == 0.3",
                {"name": "test_refund", "message": "timeout after 30 s"},
                "tests/test_vat.py::test_reverse_charge: KeyError: 'vat_id'",
            ],
            "url": "https://ci.example.com/billing/runs/4711?tab=log&x=1",
        }),
        "flakiness.spike" => json!({"run_id": "4711", "branch": "main", "flakiness_rate": 0.125}),
        "perf.regression" => json!({
            "run_id": "4711", "branch": "main", "regression_pct": 37.5, "duration_ms": 5500,
            "baseline_duration_ms": 4000
        }),
        "cluster.new" => json!({
            "cluster_id": "c-17", "signature": "KeyError: 'total'", "sample_error": "KeyError", "affected_cases": 9
        }),
        "agent.offline" | "agent.online" => json!({"agent_id": "a-3", "agent_name": "builder-3"}),
        "channel.disabled" => json!({"channel": "ops", "reason": "HTTP 410"}),
        "test.dispatch" => json!({"channel": "ops"}),
        "digest" => digest(),
        _ => json!({
            "task_id": "9f1c", "task_name": "billing.tasks.charge", "queue": "payments", "engine": "celery",
            "state": "failure", "exception": "CardDeclined: do not honour",
            "traceback": "Traceback (most recent call last):\n  File \"billing/tasks.py\", line 41, in charge\n    card.charge(amount)\nCardDeclined: do not honour\n",
            "duration_ms": 5210, "budget_ms": 2000,
            "priority": "high",
        }),
    }
}

/// As `klaxon.digest_payload()` makes one of 25 events.
fn digest() -> Value {
    let event = |n: u32| {
        let kind = if n.is_multiple_of(2) { "run.failed" } else { "task.failed" };
        let data = payload(kind);
        json!({
            "id": "0198f0c2-0000-7000-8000-000000000000", "type": kind,
            "project": "billing", "timestamp": "2026-01-01T00:00:00Z", "url": data["url"], "data": data
        })
    };
    json!({
        "count": 25, "held_back": 7, "severity": "error",
        "groups": [
            {"type": "task.failed", "project": "billing", "count": 15},
            {"type": "run.failed", "project": "billing", "count": 10}
        ],
        "events": (0..20).map(event).collect::<Vec<_>>(),
    })
}
