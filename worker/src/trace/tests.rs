use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::schedule::Happening;

const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn row(traceparent: Option<&str>, replayed: bool) -> Pending {
    let at = DbTime::from_unix_micros(0);
    Pending {
        id: Uuid::from_u128(0xd),
        event_id: Some(Uuid::from_u128(0xe)),
        subscription_id: None,
        channel_id: 1,
        due_at: at,
        created_at: at,
        attempts: 0,
        interrupted: false,
        counted: false,
        replayed,
        event_type: "task.failed".to_owned(),
        project: None,
        cooldown_task: None,
        held_back: 0,
        held_for: None,
        event: Some(Happening {
            payload: raw("{}"),
            occurred_at: at,
            severity: None,
            traceparent: traceparent.map(|text| text.parse().unwrap()),
        }),
    }
}

#[test]
fn the_payload_counts_before_the_session_and_what_is_none_not_at_all() {
    let payload = json!({"traceparent": GIVEN}).to_string();
    for (payload, session, expected) in [
        (payload.as_str(), None, Some(GIVEN)),
        (payload.as_str(), Some(OTHER), Some(GIVEN)),
        ("{}", Some(OTHER), Some(OTHER)),
        ("{}", None, None),
        (r#"{"traceparent": "soon"}"#, Some(OTHER), Some(OTHER)),
        (r#"{"traceparent": 7}"#, Some("soon"), None),
        (&json!({"data": {"traceparent": GIVEN}}).to_string(), None, None),
        (r#"["traceparent"]"#, None, None),
    ] {
        let read = of_event(&raw(payload), session).map(|read| read.to_string());
        assert_eq!(read.as_deref(), expected, "{payload} {session:?}");
    }
}

#[test]
fn without_an_exporter_a_receiver_is_told_what_the_event_came_with() {
    let tracer = Tracer::default();
    let context = |row: &Pending| tracer.step(row).context.map(|context| context.to_string());
    assert_eq!(context(&row(Some(GIVEN), false)).as_deref(), Some(GIVEN));
    assert_eq!(context(&row(None, false)), None);
    assert_eq!(context(&row(Some(GIVEN), true)), None, "a replay is no part of it");
    let unexported = tracer.step(&row(Some(GIVEN), false)).end(|| unreachable!("it is no span"));
    assert!(unexported.is_none());
}

#[test]
fn each_attempt_is_a_span_of_the_trace_that_all_of_them_know() {
    let tracer = Tracer { spans: Some(mpsc::channel(1).0) };
    let (given, other) = (GIVEN.parse::<Traceparent>().unwrap(), OTHER.parse::<Traceparent>().unwrap());
    let mut digest = row(None, false);
    digest.event_id = None;
    for (row, trace_id, parent, link, recorded) in [
        (row(Some(GIVEN), false), given.trace_id, Some(given.span_id), None, true),
        (row(Some(OTHER), false), other.trace_id, Some(other.span_id), None, false),
        (row(None, false), 0xe, None, None, true),
        (row(Some(OTHER), true), 0xd, None, Some(other), true),
        (row(None, true), 0xd, None, None, true),
        (digest, 0xd, None, None, true),
    ] {
        let (first, second) = (tracer.step(&row), tracer.step(&row));
        let context = first.context.unwrap();
        assert_eq!((context.trace_id, first.parent, first.link), (trace_id, parent, link));
        assert_eq!((context.sampled, first.recorded), (recorded, recorded));
        assert_ne!(context.span_id, second.context.unwrap().span_id, "each is another");
        assert_eq!(context.trace_id, second.context.unwrap().trace_id);
    }
}

fn attempt(kind: &'static str, code: Option<i32>, error: Option<&str>) -> Attempt {
    Attempt {
        delivery: Uuid::from_u128(0xd),
        event: None,
        event_type: "task.failed".to_owned(),
        project: None,
        channel: Arc::new(ChannelName { name: "ops".to_owned(), kind }),
        number: 1,
        outcome: "failed",
        code,
        error: error.map(cut),
        began: DbTime::from_unix_micros(0),
        took: Duration::ZERO,
    }
}

#[test]
fn a_span_names_nobody_whom_a_mail_server_names() {
    let long = "x".repeat(1000);
    for (attempt, said) in [
        (attempt("webhook", Some(503), Some("HTTP 503")), Some("HTTP 503".to_owned())),
        (attempt("webhook", None, Some(&long)), Some(long[..MESSAGE].to_owned())),
        (
            attempt("email", Some(550), Some("SMTP 550: refused: eve@example.com")),
            Some("SMTP 550".to_owned()),
        ),
        (attempt("email", None, Some("could not resolve host")), Some("could not resolve host".to_owned())),
        (attempt("webhook", Some(200), None), None),
    ] {
        assert_eq!(attempt.problem(), said);
    }
}

#[tokio::test]
async fn what_there_is_no_room_for_is_dropped_and_waits_for_nobody() {
    let (spans, mut receiver) = mpsc::channel(2);
    let tracer = Tracer { spans: Some(spans) };
    for _ in 0..5 {
        let step = tracer.step(&row(None, false));
        tracer.export(step.end(|| attempt("webhook", Some(200), None)).unwrap());
    }
    assert!(receiver.recv().await.is_some() && receiver.recv().await.is_some());
    assert!(receiver.try_recv().is_err(), "two of five");
}

#[test]
fn headers_are_read_as_opentelemetry_writes_them() {
    let read = headers("authorization=Basic%20YTpi%3D, x-team = ops,").unwrap();
    assert_eq!(
        (&read["authorization"], &read["x-team"]),
        (&"Basic YTpi=".parse().unwrap(), &"ops".parse().unwrap())
    );
    assert!(headers("").unwrap().is_empty());
    for wrong in ["hunter2", "a b=hunter2", "a=hunter2%0a"] {
        let error = format!("{:#}", headers(wrong).unwrap_err());
        assert!(error.contains("otlp-headers") && !error.contains("hunter2"), "{error}");
    }
}
