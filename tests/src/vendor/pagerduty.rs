//! PagerDuty's Events API v2 (developer.pagerduty.com, "Send an alert event" and "PD-CEF").

use serde_json::{Value, json};

use super::bounded::{is_link, length};
use super::{Answer, Reading, Request, Vendor};

/// The vendor.
pub const VENDOR: Vendor =
    Vendor { kind: "pagerduty", host: "events.pagerduty.com", config, answer, reading };

const KEY: &str = "0123456789abcdef0123456789abcdef";
/// Bytes of a whole event.
const BODY: usize = 512_000;

fn config() -> Value {
    json!({"integration_key": KEY})
}

fn answer(request: &Request) -> Answer {
    if request.path != "/v2/enqueue" {
        return Answer::new(404, "Not Found");
    }
    let Some(event) = request.json() else {
        return invalid("Unrecognized object", &["JSON parse error".into()]);
    };
    let mut errors = errors(&event);
    if request.body.len() > BODY {
        errors.push(format!("The event is larger than {BODY} bytes"));
    }
    if errors.is_empty() {
        let body =
            json!({"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]});
        return Answer::new(202, body);
    }
    invalid("invalid event", &errors)
}

fn invalid(status: &str, errors: &[String]) -> Answer {
    let body = json!({"status": status, "message": "Event object is invalid", "errors": errors});
    Answer::new(400, body)
}

/// Everything that is wrong with an event.
fn errors(event: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let mut must = |valid: bool, error: &str| errors.extend((!valid).then(|| error.to_owned()));
    let filled = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
    let up_to = |value: &Value, most: usize| value.as_str().is_none_or(|text| length(text) <= most);
    let optional = |value: &Value| value.is_null() || value.is_string();

    let key = event["routing_key"].as_str().unwrap_or_default();
    must(key.len() == 32, "Length of 'routing_key' is incorrect (should be 32 characters)");
    must(key.len() != 32 || key == KEY, "Invalid routing key");
    let action = event["event_action"].as_str();
    must(
        matches!(action, Some("trigger" | "acknowledge" | "resolve")),
        "'event_action' is invalid (must be one of the following: 'trigger', 'acknowledge' or 'resolve')",
    );
    let dedup = &event["dedup_key"];
    must(filled(dedup) || (dedup.is_null() && action == Some("trigger")), "'dedup_key' is missing or blank");
    must(up_to(dedup, 255), "'dedup_key' is too long (maximum is 255 characters)");
    if action == Some("trigger") || !event["payload"].is_null() {
        let payload = &event["payload"];
        must(filled(&payload["summary"]), "'payload.summary' is missing or blank");
        must(up_to(&payload["summary"], 1024), "'payload.summary' is too long (maximum is 1024 characters)");
        must(filled(&payload["source"]), "'payload.source' is missing or blank");
        must(
            matches!(payload["severity"].as_str(), Some("critical" | "error" | "warning" | "info")),
            "'payload.severity' is invalid (must be one of the following: 'critical', 'warning', 'error' or 'info')",
        );
        let time = &payload["timestamp"];
        must(time.is_null() || time.as_str().is_some_and(is_time), "'payload.timestamp' is no ISO 8601 time");
        for field in ["component", "group", "class"] {
            must(optional(&payload[field]), &format!("'payload.{field}' is no string"));
        }
        let details = &payload["custom_details"];
        must(details.is_null() || details.is_object(), "'payload.custom_details' is no object");
    }
    let links = event["links"].as_array();
    must(event["links"].is_null() || links.is_some(), "'links' is no list");
    for link in links.into_iter().flatten() {
        must(link["href"].as_str().is_some_and(is_link), "'links.href' is missing or no URL");
        must(optional(&link["text"]), "'links.text' is no string");
    }
    must(event["images"].is_null(), "nobody meant to send images");
    errors
}

/// As in `2015-07-17T08:42:58.315+0000`, with a year of four digits.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else { return false };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) if fraction.starts_with('0') => fraction.trim_start_matches('0'),
        Some(_) => return false,
        None => rest,
    };
    // Trimming took the digits before the zone's sign, never the zone's own.
    matches!(zone, "Z" | "+00:00" | "-00:00" | "+0000" | "-0000")
}

fn reading(event: &Value) -> Reading {
    let links = event["links"].as_array().into_iter().flatten();
    let links = links.filter_map(|link| link["href"].as_str().map(str::to_owned)).collect();
    Reading { links, interpreted: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Value {
        json!({
            "routing_key": KEY, "event_action": "trigger", "dedup_key": "billing/run.failed/r1",
            "payload": {
                "summary": "Two tests failed", "source": "billing", "severity": "error",
                "timestamp": "2026-11-01T00:00:00.5Z", "class": "run.failed", "custom_details": {"run": "r1"}
            },
            "links": [{"href": "https://ci.example.com", "text": "Open"}],
        })
    }

    fn said(event: &Value) -> (u16, String) {
        let answer = answer(&Request::post("/v2/enqueue", event));
        (answer.status, answer.body)
    }

    #[test]
    fn events_are_accepted_where_everything_in_them_is() {
        assert_eq!(said(&event()).0, 202);
        let resolve = json!({"routing_key": KEY, "event_action": "resolve", "dedup_key": "a"});
        assert_eq!(said(&resolve).0, 202);
        for (at, value) in [
            ("/routing_key", json!("short")),
            ("/routing_key", json!("f".repeat(32))),
            ("/event_action", json!("shout")),
            ("/dedup_key", json!("k".repeat(256))),
            ("/dedup_key", json!("")),
            ("/payload", json!(null)),
            ("/payload/summary", json!(" ")),
            ("/payload/summary", json!("s".repeat(1025))),
            ("/payload/summary", json!(["s"])),
            ("/payload/source", json!("")),
            ("/payload/severity", json!("fatal")),
            ("/payload/timestamp", json!("yesterday")),
            ("/payload/timestamp", json!("-009999-01-02T01:59:59Z")),
            ("/payload/timestamp", json!("2026-11-01T00:00:00.Z")),
            ("/payload/timestamp", json!("2026-11-01T00:00:00")),
            ("/payload/class", json!(7)),
            ("/payload/custom_details", json!("text")),
            ("/payload/custom_details", json!({"text": "x".repeat(512_000)})),
            ("/links", json!({"href": "https://ci.example.com"})),
            ("/links/0/href", json!("javascript:alert(1)")),
            ("/links/0/text", json!(7)),
        ] {
            let mut event = event();
            *event.pointer_mut(at).unwrap() = value;
            let (status, body) = said(&event);
            assert_eq!((status, body.contains("invalid event")), (400, true), "{at}: {body}");
        }
        let unfinished = Request { body: "{".into(), ..Request::post("/v2/enqueue", &json!({})) };
        assert_eq!(answer(&unfinished).status, 400);
        assert_eq!(reading(&event()).links, ["https://ci.example.com"]);
    }

    #[test]
    fn times_are_iso_8601() {
        for time in
            ["2026-11-01T00:00:00Z", "2015-07-17T08:42:58.315+0000", "2026-11-01T00:00:00.000001-07:00"]
        {
            assert!(is_time(time), "{time}");
        }
    }
}
