//! Spans as the OpenTelemetry protocol has them: of its messages the fields that are written or read here, by the
//! numbers in `opentelemetry/proto/trace/v1/trace.proto`, `common.proto`, `resource.proto` and
//! `trace_service.proto`. Attributes are named by OpenTelemetry's semantic conventions for messaging and for HTTP
//! clients; those under `klaxon.` are ours.

use prost::{Enumeration, Message, Oneof};

use super::Span;

/// What is posted.
#[derive(Clone, PartialEq, Message)]
pub struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

/// What is answered.
#[derive(Clone, PartialEq, Message)]
pub struct Exported {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

/// Who exports.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<SpanMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct SpanMessage {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(enumeration = "SpanKind", tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum SpanKind {
    Unspecified = 0,
    Client = 3,
}

#[derive(Clone, PartialEq, Message)]
struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(fixed32, tag = "6")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(enumeration = "StatusCode", tag = "3")]
    code: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum StatusCode {
    Unset = 0,
    Error = 2,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// Of a span's flags: its trace is recorded, and its parent is (the second bit) in another process.
const SAMPLED: u32 = 0x001;
const REMOTENESS_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

fn attribute(key: &str, value: impl Into<Value>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value.into()) }) }
}

impl Resource {
    /// This worker on this host, of this deployment.
    pub fn new(host: &str, deployment: Option<&str>) -> Self {
        let mut attributes = vec![
            attribute("service.name", "klaxon"),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("service.instance.id", uuid::Uuid::new_v4().to_string()),
            attribute("host.name", host),
        ];
        attributes.extend(deployment.map(|id| attribute("klaxon.deployment.id", id)));
        Self { attributes }
    }

    /// What is posted of spans.
    pub fn export(&self, spans: &[Span]) -> Vec<u8> {
        let scope = Scope { name: "klaxon".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let spans = spans.iter().map(SpanMessage::from).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let resource = Some(self.clone());
        Export { resource_spans: vec![ResourceSpans { resource, scope_spans }] }.encode_to_vec()
    }
}

/// How many spans were rejected, by an answer's body. One that does not read says of none that it was.
pub fn rejected(answer: &[u8]) -> u64 {
    let partial = Exported::decode(answer).ok().and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

impl From<&Span> for SpanMessage {
    fn from(span: &Span) -> Self {
        let Span { context, parent, link, attempt } = span;
        let began = u64::try_from(attempt.began.unix_micros()).unwrap_or_default().saturating_mul(1000);
        let took = u64::try_from(attempt.took.as_nanos()).unwrap_or(u64::MAX);
        let links = link.iter().map(|link| Link {
            trace_id: link.trace_id.to_be_bytes().to_vec(),
            span_id: link.span_id.to_be_bytes().to_vec(),
            flags: u32::from(link.sampled) | REMOTENESS_KNOWN | REMOTE,
        });
        let problem = attempt.problem();
        let code = if problem.is_some() { StatusCode::Error } else { StatusCode::Unset };
        Self {
            trace_id: context.trace_id.to_be_bytes().to_vec(),
            span_id: context.span_id.to_be_bytes().to_vec(),
            parent_span_id: parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
            name: format!("deliver {}", attempt.channel.name),
            kind: SpanKind::Client.into(),
            start_time_unix_nano: began,
            end_time_unix_nano: began.saturating_add(took),
            attributes: attributes(span),
            links: links.collect(),
            status: Some(Status { message: problem.unwrap_or_default(), code: code.into() }),
            flags: SAMPLED | REMOTENESS_KNOWN | if parent.is_some() { REMOTE } else { 0 },
        }
    }
}

fn attributes(span: &Span) -> Vec<KeyValue> {
    let attempt = &span.attempt;
    let mut all = vec![
        attribute("messaging.system", "klaxon"),
        attribute("messaging.operation.name", "deliver"),
        attribute("messaging.operation.type", "send"),
        attribute("messaging.destination.name", attempt.channel.name.as_str()),
        attribute("messaging.message.id", attempt.delivery.to_string()),
        attribute("klaxon.channel.kind", attempt.channel.kind),
        attribute("klaxon.event.type", attempt.event_type.as_str()),
        attribute("klaxon.attempt", attempt.number),
        attribute("klaxon.outcome", attempt.outcome),
    ];
    all.extend(attempt.event.map(|id| attribute("klaxon.event.id", id.to_string())));
    all.extend(attempt.project.as_deref().map(|project| attribute("klaxon.project", project)));
    if attempt.is_mail() {
        all.extend(attempt.code.map(|code| attribute("klaxon.smtp.reply_code", code)));
    } else {
        all.push(attribute("http.request.method", "POST"));
        all.extend(attempt.code.map(|code| attribute("http.response.status_code", code)));
        all.extend((attempt.number > 1).then(|| attribute("http.request.resend_count", attempt.number - 1)));
    }
    if attempt.error.is_some() {
        // As the conventions have it: the code, or that it is something else.
        all.push(attribute("error.type", attempt.code.map_or("_OTHER".to_owned(), |code| code.to_string())));
    }
    all
}
