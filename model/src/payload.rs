//! What filters and titles read of a payload, whatever it is stored as.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

/// The fields of an event's payload.
pub trait Payload {
    /// A string as it is, a number or a boolean as JSON writes it; `None` for anything else.
    fn text(&self, field: &str) -> Option<String>;
    /// A JSON number; infinite where it is out of `f64`'s range.
    fn number(&self, field: &str) -> Option<f64>;
    /// A JSON number that is an integer of 64 bits.
    fn integer(&self, field: &str) -> Option<i64>;
    /// A JSON boolean.
    fn boolean(&self, field: &str) -> Option<bool>;
    /// The strings of a list, or the one string.
    fn texts(&self, field: &str) -> Vec<String>;
    /// Whether the field is there and not null. Unless an implementation knows better, a list of
    /// other things than strings, and an object, count as absent.
    fn present(&self, field: &str) -> bool {
        self.text(field).is_some() || !self.texts(field).is_empty()
    }
}

/// A payload as JSON text, of which only the top level is parsed: a depth of 10,000, `1e400` and a
/// number of 25 digits are legal, and are somebody else's to read.
#[derive(Debug, Default)]
pub struct RawPayload<'a> {
    fields: HashMap<Cow<'a, str>, &'a RawValue>,
}

#[derive(serde::Deserialize)]
struct Field<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> RawPayload<'a> {
    /// Reads the top level. What is no object has no fields.
    #[must_use]
    pub fn new(json: &'a str) -> Self {
        Self { fields: serde_json::from_str(json).unwrap_or_default() }
    }

    /// A field's JSON text.
    #[must_use]
    pub fn raw(&self, field: &str) -> Option<&'a str> {
        self.fields.get(field).map(|raw| raw.get())
    }
}

impl Payload for RawPayload<'_> {
    fn text(&self, field: &str) -> Option<String> {
        let raw = self.raw(field)?;
        match raw.as_bytes().first()? {
            b'"' => serde_json::from_str::<Field<'_>>(raw).ok().map(|text| text.0.into_owned()),
            b't' | b'f' | b'-' | b'0'..=b'9' => Some(raw.to_owned()),
            _ => None,
        }
    }

    fn number(&self, field: &str) -> Option<f64> {
        let raw = self.raw(field)?;
        raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()).then(|| raw.parse().ok())?
    }

    fn integer(&self, field: &str) -> Option<i64> {
        self.raw(field)?.parse().ok()
    }

    fn boolean(&self, field: &str) -> Option<bool> {
        self.raw(field)?.parse().ok()
    }

    fn texts(&self, field: &str) -> Vec<String> {
        let Some(raw) = self.raw(field) else { return Vec::new() };
        if let Some(one) = self.text(field).filter(|_| raw.starts_with('"')) {
            return vec![one];
        }
        let elements: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
        elements.into_iter().filter_map(|element| serde_json::from_str(element.get()).ok()).collect()
    }

    fn present(&self, field: &str) -> bool {
        self.raw(field).is_some_and(|raw| raw != "null")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_as_what_they_are() {
        let payload = RawPayload::new(
            r#"{"s": "a\u00e9\n", "i": 7, "f": 1.5, "b": true, "n": null, "l": ["x", 1, "y"], "o": {"k": 1}, "big": 1234567890123456789012345}"#,
        );
        assert_eq!(payload.text("s").as_deref(), Some("aé\n"));
        assert_eq!(payload.text("i").as_deref(), Some("7"));
        assert_eq!(payload.text("b").as_deref(), Some("true"));
        assert_eq!(payload.text("big").as_deref(), Some("1234567890123456789012345"));
        for absent in ["n", "l", "o", "missing"] {
            assert_eq!(payload.text(absent), None, "{absent}");
        }
        assert_eq!(payload.integer("i"), Some(7));
        assert_eq!(payload.integer("f"), None);
        assert_eq!(payload.integer("big"), None);
        assert_eq!(payload.number("f"), Some(1.5));
        assert_eq!(payload.number("s"), None);
        assert_eq!(payload.boolean("b"), Some(true));
        assert_eq!(payload.boolean("i"), None);
        assert_eq!(payload.texts("l"), ["x", "y"]);
        assert_eq!(payload.texts("s"), ["aé\n"]);
        assert!(payload.texts("i").is_empty());
        for (field, there) in [("s", true), ("l", true), ("o", true), ("n", false), ("missing", false)] {
            assert_eq!(payload.present(field), there, "{field}");
        }
    }

    #[test]
    fn what_other_parsers_refuse_is_carried() {
        let deep = format!(
            r#"{{"deep": {}{}, "huge": 1e400, "queue": "mail"}}"#,
            "[".repeat(9000),
            "]".repeat(9000)
        );
        let payload = RawPayload::new(&deep);
        assert_eq!(payload.text("queue").as_deref(), Some("mail"));
        assert_eq!(payload.text("huge").as_deref(), Some("1e400"));
        assert_eq!(payload.number("huge"), Some(f64::INFINITY));
    }

    #[test]
    fn what_is_no_object_has_no_fields() {
        for json in ["[1, 2]", "\"text\"", "7", "null", ""] {
            assert_eq!(RawPayload::new(json).text("a"), None, "{json}");
        }
    }
}
