//! Microsoft Teams' "Workflows" webhooks: an Adaptive Card 1.4 in a message (learn.microsoft.com,
//! "Create incoming webhooks with Workflows"; adaptivecards.io, schema 1.4.0).

use serde_json::{Map, Value, json};

use super::bounded::is_link;
use super::markdown::signs;
use super::{Answer, Reading, Request, Vendor};

/// The vendor.
pub const VENDOR: Vendor =
    Vendor { kind: "teams", host: "prod-01.westeurope.logic.azure.com", config, answer, reading };

const PATH: &str = "/workflows/x/triggers/manual/paths/invoke";
const QUERY: &str = "sig=secret";
/// Bytes of a whole message.
const BODY: usize = 28 * 1024;

/// Types with what they require and what they may have besides. Children are lists of types again.
const TYPES: [(&str, &[&str], &[&str]); 12] = [
    (
        "AdaptiveCard",
        &["version", "body"],
        &["actions", "fallbackText", "lang", "speak", "msteams", "$schema", "minHeight"],
    ),
    (
        "TextBlock",
        &["text"],
        &[
            "color",
            "fontType",
            "horizontalAlignment",
            "isSubtle",
            "maxLines",
            "size",
            "style",
            "weight",
            "wrap",
        ],
    ),
    ("RichTextBlock", &["inlines"], &["horizontalAlignment"]),
    (
        "TextRun",
        &["text"],
        &[
            "color",
            "fontType",
            "highlight",
            "isSubtle",
            "italic",
            "selectAction",
            "size",
            "strikethrough",
            "underline",
            "weight",
        ],
    ),
    ("FactSet", &["facts"], &[]),
    ("Fact", &["title", "value"], &[]),
    ("Container", &["items"], &["bleed", "minHeight", "selectAction", "style", "verticalContentAlignment"]),
    ("ColumnSet", &["columns"], &["bleed", "horizontalAlignment", "minHeight", "selectAction", "style"]),
    (
        "Column",
        &["items"],
        &["bleed", "minHeight", "selectAction", "style", "verticalContentAlignment", "width"],
    ),
    ("ActionSet", &["actions"], &[]),
    ("Action.OpenUrl", &["title", "url"], &["iconUrl", "style"]),
    ("Image", &["url"], &["altText", "height", "size", "style", "width"]),
];
/// What every element may have.
const COMMON: [&str; 7] = ["type", "id", "height", "isVisible", "separator", "spacing", "requires"];

/// What may stand in a list, by the field that holds it. Only Fact and Column need not say their type.
const CHILDREN: [(&str, &[&str]); 6] = [
    ("body", &ELEMENTS),
    ("items", &ELEMENTS),
    ("inlines", &["TextRun"]),
    ("facts", &["Fact"]),
    ("columns", &["Column"]),
    ("actions", &["Action.OpenUrl"]),
];
const ELEMENTS: [&str; 7] =
    ["TextBlock", "RichTextBlock", "FactSet", "Container", "ColumnSet", "ActionSet", "Image"];

/// Emphasis and links, in what reads Markdown: TextBlock, Fact and what stands in for the card.
const MARKUP: [&str; 4] = ["*", "_", "](", "<"];

fn config() -> Value {
    json!({"webhook_url": format!("https://{}{PATH}?{QUERY}", VENDOR.host)})
}

fn answer(request: &Request) -> Answer {
    if request.path != PATH || request.query != QUERY {
        let error = json!({"code": "DirectApiAuthorizationRequired", "message": "The request must be authenticated."});
        return Answer::new(401, json!({ "error": error }));
    }
    if request.body.len() > BODY {
        return Answer::new(413, "").because(format!("{} bytes", request.body.len()));
    }
    let checked = request.json().ok_or_else(|| "not JSON".to_owned()).and_then(|body| message(&body));
    match checked {
        Ok(()) => Answer::new(202, ""),
        Err(why) => {
            let error = json!({"code": "TriggerInputSchemaMismatch", "message": why});
            Answer::new(400, json!({ "error": error }))
        }
    }
}

fn message(body: &Value) -> Result<(), String> {
    if body["type"] != "message" {
        return Err("the type is not message".into());
    }
    let [attachment] = body["attachments"].as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err("not one attachment".into());
    };
    if attachment["contentType"] != "application/vnd.microsoft.card.adaptive" {
        return Err("the attachment is no card".into());
    }
    if attachment.get("contentUrl") != Some(&Value::Null) {
        return Err("contentUrl is not null".into());
    }
    let card = &attachment["content"];
    if !matches!(card["version"].as_str(), Some("1.0" | "1.1" | "1.2" | "1.3" | "1.4")) {
        return Err(format!("version {}", card["version"]));
    }
    element(card, &["AdaptiveCard"])
}

/// Whether this is one of these types, with all it requires and nothing that it cannot have.
fn element(value: &Value, allowed: &[&str]) -> Result<(), String> {
    // A string is a TextRun.
    if allowed == ["TextRun"] && value.is_string() {
        return Ok(());
    }
    let fields = value.as_object().ok_or_else(|| format!("{value} is no object"))?;
    let implied = matches!(allowed, ["Fact" | "Column"]).then(|| allowed[0]);
    let name = fields.get("type").map_or(implied, Value::as_str);
    let Some((name, required, optional)) =
        TYPES.into_iter().find(|(known, ..)| Some(*known) == name && allowed.contains(known))
    else {
        return Err(format!("{name:?} is none of {allowed:?}"));
    };
    if let Some(field) = required.iter().find(|field| fields.get(**field).is_none_or(Value::is_null)) {
        return Err(format!("{name} has no {field}"));
    }
    let known = |field: &str| [required, optional, &COMMON[..]].iter().any(|fields| fields.contains(&field));
    if let Some(field) = fields.keys().find(|field| !known(field)) {
        return Err(format!("{name} has a {field}"));
    }
    fields.iter().try_for_each(|(field, value)| self::field(name, field, value))
}

fn field(name: &str, field: &str, value: &Value) -> Result<(), String> {
    let valid = match field {
        "text" | "title" | "value" => value.is_string(),
        "url" | "iconUrl" => value.as_str().is_some_and(is_link),
        "wrap" | "isSubtle" | "italic" | "underline" | "strikethrough" | "highlight" | "separator" => {
            value.is_boolean()
        }
        "selectAction" => return element(value, &["Action.OpenUrl"]),
        _ => match CHILDREN.iter().find(|(list, _)| *list == field) {
            Some((_, allowed)) => {
                let children = value.as_array().ok_or_else(|| format!("{name}.{field} is no list"))?;
                return children.iter().try_for_each(|child| element(child, allowed));
            }
            None => true,
        },
    };
    if valid { Ok(()) } else { Err(format!("{name}.{field} is {value}")) }
}

fn reading(body: &Value) -> Reading {
    let mut reading = Reading::default();
    walk(body, &mut reading);
    reading
}

fn walk(value: &Value, reading: &mut Reading) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| walk(value, reading)),
        Value::Object(fields) => {
            markdown(fields, reading);
            // Mentions and the like stand there, and nobody is meant to be mentioned.
            if fields.get("msteams").is_some_and(|teams| !teams["entities"].is_null()) {
                reading.interpreted.push("entities".into());
            }
            reading.links.extend(fields.get("url").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| walk(value, reading));
        }
        Value::String(text) if ["{{DATE(", "{{TIME("].iter().any(|sign| text.contains(sign)) => {
            reading.interpreted.push(format!("a time in {text}"));
        }
        _ => {}
    }
}

/// A TextRun's text is shown as it is; these are read as Markdown, a Fact with or without its type.
fn markdown(fields: &Map<String, Value>, reading: &mut Reading) {
    let read: &[&str] = match fields.get("type").and_then(Value::as_str) {
        Some("TextBlock") => &["text"],
        Some("AdaptiveCard") => &["fallbackText"],
        None | Some("Fact") => &["title", "value"],
        _ => &[],
    };
    for text in read.iter().filter_map(|field| fields.get(*field)?.as_str()) {
        let list = |line: &str| {
            let rest = line.trim_start();
            let number = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            rest.starts_with("- ") || (number.len() < rest.len() && number.starts_with(". "))
        };
        if !signs(text, &MARKUP).is_empty() || text.split(['\r', '\n']).any(list) {
            reading.interpreted.push(format!("Markdown in {text}"));
        }
    }
}

#[cfg(test)]
mod tests;
