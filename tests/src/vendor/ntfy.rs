//! ntfy, publishing as JSON (docs.ntfy.sh, "Publish as JSON", "Limitations"; codes of its
//! `server/errors.go`).

use serde_json::{Value, json};

use super::bounded::is_link;
use super::{Answer, Reading, Request, Vendor};

/// The vendor.
pub const VENDOR: Vendor = Vendor { kind: "ntfy", host: "ntfy.test", config, answer, reading };

const TOPIC: &str = "ops";
const TOKEN: &str = "tk_klaxon0secret0token0of0tests0";
/// Bytes of a message: of a longer one ntfy would make an attachment, which nobody reads on a lock
/// screen. This server takes none.
const MESSAGE: usize = 4096;
/// Bytes of a whole body: twice a message.
const BODY: usize = 2 * MESSAGE;

/// What would make of a message more than a text with a title.
const EXTRAS: [&str; 8] = ["actions", "attach", "call", "delay", "email", "filename", "icon", "markdown"];

fn config() -> Value {
    json!({"url": format!("https://{}", VENDOR.host), "topic": TOPIC, "token": TOKEN})
}

fn refusal(code: u32, error: &str) -> Answer {
    let status = (code / 100) as u16;
    Answer::new(status, json!({"code": code, "http": status, "error": error}))
}

fn answer(request: &Request) -> Answer {
    if request.path != "/" {
        return refusal(40401, "page not found");
    }
    let token = request.header("authorization");
    if !token.is_empty() && token != format!("Bearer {TOKEN}") {
        return refusal(40101, "unauthorized");
    }
    if request.body.len() > BODY {
        return refusal(41303, "JSON body too large");
    }
    let Some(message) = request.json().filter(Value::is_object) else {
        return refusal(40024, "invalid request: request body must be valid JSON");
    };
    let topic = message["topic"].as_str().unwrap_or_default();
    let name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(1..=64).contains(&topic.len()) || !topic.chars().all(name) {
        return refusal(40009, "invalid request: topic invalid");
    }
    // Reserved for whoever holds the token.
    if topic == TOPIC && token.is_empty() {
        return refusal(40301, "forbidden");
    }
    if !message["priority"].is_null() && !message["priority"].as_i64().is_some_and(|n| (1..=5).contains(&n)) {
        return refusal(40007, "invalid priority parameter");
    }
    let text = |field: &str| message[field].is_null() || message[field].is_string();
    let tags = message["tags"].is_null()
        || message["tags"].as_array().is_some_and(|tags| tags.iter().all(Value::is_string));
    let click = message["click"].is_null() || message["click"].as_str().is_some_and(is_link);
    if !(text("title") && text("message") && tags && click) {
        return refusal(40017, "invalid request: request body must be message JSON");
    }
    let said = message["message"].as_str().unwrap_or_default().trim();
    if said.len() > MESSAGE {
        return refusal(40014, "invalid request: attachments not allowed");
    }
    // An empty message is replaced by this word; ours say what happened.
    if said.is_empty() {
        return refusal(40017, "the message would read: triggered");
    }
    let published = json!({"id": "klaxon", "time": 0, "event": "message", "topic": topic, "message": said});
    Answer::new(200, published)
}

fn reading(message: &Value) -> Reading {
    let mut reading = Reading::default();
    reading.links.extend(message["click"].as_str().map(str::to_owned));
    let extras =
        EXTRAS.iter().filter(|field| !message[**field].is_null() && message[**field] != json!(false));
    reading.interpreted.extend(extras.map(|field| (*field).to_owned()));
    // The title travels as a header, in which encoded words (RFC 2047) are decoded.
    let title = message["title"].as_str().filter(|title| title.contains("=?"));
    reading.interpreted.extend(title.map(|title| format!("encoded words in {title}")));
    // Tags travel as a header too, with commas between them.
    let tags = message["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
    reading.interpreted.extend(tags.filter(|tag| tag.contains(',')).map(str::to_owned));
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &Value, token: Option<&str>) -> Value {
        let mut request = Request::post("/", body);
        if let Some(token) = token {
            request.headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        serde_json::from_str(&answer(&request).body).unwrap()
    }

    fn message(field: &str, value: Value) -> Value {
        let mut message = json!({"topic": TOPIC, "title": "Two tests failed", "message": "r1", "priority": 4,
            "tags": ["rotating_light"], "click": "https://ci.example.com"});
        message[field] = value;
        message
    }

    #[test]
    fn what_ntfy_refuses_is_refused_with_its_codes() {
        for (field, value, code) in [
            ("priority", json!(5), None),
            ("title", json!(null), None),
            ("message", json!("é".repeat(2048)), None),
            ("message", json!("é".repeat(2049)), Some(40014)),
            ("message", json!(" "), Some(40017)),
            ("message", json!("\u{1}".repeat(4096)), Some(41303)),
            ("topic", json!("o".repeat(65)), Some(40009)),
            ("topic", json!("ops/../x"), Some(40009)),
            ("topic", json!(null), Some(40009)),
            ("priority", json!(0), Some(40007)),
            ("priority", json!(6), Some(40007)),
            ("priority", json!("high"), Some(40007)),
            ("tags", json!("one"), Some(40017)),
            ("tags", json!([1]), Some(40017)),
            ("title", json!(["x"]), Some(40017)),
            ("click", json!("javascript:alert(1)"), Some(40017)),
        ] {
            let answer = said(&message(field, value.clone()), Some(TOKEN));
            assert_eq!(answer["code"].as_u64(), code, "{field}: {value:.40}: {answer}");
        }
        assert_eq!(said(&message("title", json!("x")), None)["code"], 40301);
        assert_eq!(said(&message("topic", json!("open")), None)["topic"], "open");
        assert_eq!(said(&message("title", json!("x")), Some("tk_other"))["code"], 40101);
        assert_eq!(said(&json!([1]), Some(TOKEN))["code"], 40024);
        assert_eq!(answer(&Request::post("/ops", &json!({}))).status, 404);
    }

    #[test]
    fn what_ntfy_would_interpret_is_seen() {
        let plain = reading(&message("title", json!("*a* [b](https://evil)")));
        assert_eq!(plain, Reading { links: vec!["https://ci.example.com".into()], interpreted: Vec::new() });
        for (field, value) in [
            ("markdown", json!(true)),
            ("actions", json!([{"action": "view"}])),
            ("attach", json!("https://evil")),
            ("title", json!("=?UTF-8?B?aGk=?=")),
            ("tags", json!(["a,b"])),
        ] {
            assert!(!reading(&message(field, value)).interpreted.is_empty(), "{field}");
        }
    }
}
