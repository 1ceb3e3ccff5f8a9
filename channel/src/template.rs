//! A channel's own words: minijinja templates for heading and text.
//!
//! A template is its channel's owner's, and the worker everybody's: what one may take is bounded, it
//! reads nothing but the message, and one that fails is left aside, never the delivery.

use std::io::{self, Write};

use klaxon_model::event_type::Severity;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::{Value, json};

use crate::config::Template;
use crate::message::Message;

/// Steps a template may take: some thousand loops over a payload.
const FUEL: u64 = 100_000;
/// Bytes it may write.
const OUTPUT: usize = 16 * 1024;

/// What a template made of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The heading.
    pub title: Option<String>,
    /// The text, in the place of facts and failures.
    pub body: Option<String>,
}

/// Refuses what is no template, or none of a message without a payload: a filter that there is not, a
/// loop without an end. What a payload's fields decide shows when it renders.
///
/// # Errors
/// The line and what is wrong there.
pub fn check(source: &str) -> Result<(), String> {
    use minijinja::ErrorKind::{OutOfFuel, TemplateNotFound, UnknownFilter, UnknownFunction, UnknownTest};
    let described = |error: minijinja::Error| {
        let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        format!("line {}: {}{detail}", error.line().unwrap_or(1), error.kind())
    };
    let environment = environment();
    let template = environment.template_from_str(source).map_err(described)?;
    match template.render_captured_to(minijinja::Value::UNDEFINED, Bounded(Vec::new())) {
        Err(error)
            if matches!(
                error.kind(),
                OutOfFuel | TemplateNotFound | UnknownFilter | UnknownFunction | UnknownTest
            ) =>
        {
            Err(described(error))
        }
        _ => Ok(()),
    }
}

/// Renders both, each by itself.
///
/// What does not render is left out, with the reason in the log: the message is then said as it would
/// be without a template.
pub fn words(template: &Template, message: &Message<'_>) -> Words {
    let environment = environment();
    let delivery = message.delivery;
    let project = delivery.project.as_deref();
    // A number of 25 digits is shown as its nearest double here; the webhook's body has it whole.
    let data: Value = serde_json::from_str(delivery.payload.get()).unwrap_or_default();
    let held_back =
        message.digest.as_ref().map_or(delivery.held_back.unsigned_abs(), |digest| digest.held_back);
    let context = minijinja::Value::from(minijinja::value::Serde(json!({
        "type": delivery.event_type,
        "project": project.map(|project| project.name.as_deref().unwrap_or(&project.slug)),
        "data": data,
        "url": message.url,
        "title": message.title(),
        "severity": delivery.severity.map(Severity::as_str),
        "held_back": held_back,
    })));
    let render = |part: &str, source: &Option<String>| {
        let source = source.as_deref()?;
        let mut output = Bounded(Vec::new());
        let rendered = environment
            .template_from_str(source)
            .and_then(|template| template.render_captured_to(context.clone(), &mut output));
        match rendered {
            Ok(_) => {
                let text = String::from_utf8_lossy(&output.0).trim().to_owned();
                (!text.is_empty()).then_some(text)
            }
            Err(error) => {
                // Not the error's own words, which quote the template and the payload.
                tracing::warn!(channel = message.channel.name, part, line = error.line(), kind = ?error.kind(), "template does not render");
                None
            }
        }
    };
    Words { title: render("title", &template.title), body: render("body", &template.body) }
}

/// In which a template runs out of steps before it runs long, and reads no file.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(50);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    // Each kind escapes what it sends, as it does any other text.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment
}

/// Takes so many bytes and no more.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT {
            return Err(io::Error::other("the output is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::delivery::{Delivery, Options};
    use crate::kind::Kind;
    use crate::tests::{channel, delivery};

    fn rendered(title: &str, body: &str, delivery: &Delivery) -> Words {
        let channel = channel(Kind::Webhook, json!({"url": "https://x.example.com/"}));
        let options = Options::default();
        let template = Template { title: Some(title.into()), body: Some(body.into()) };
        words(&template, &Message::new(&channel, delivery, &options))
    }

    #[test]
    fn variables_are_the_messages() {
        let payload =
            r#"{"task_name": "report", "tags": ["a", "b"], "n": 3, "url": "https://ci.example.com/1"}"#;
        let delivery = Delivery { held_back: 41, ..delivery("task.failed", payload) };
        let said = rendered(
            "{{ type }} in {{ project }}: {{ data.task_name | upper }}",
            "{% for tag in data.tags %}{{ tag }};{% endfor %} {{ data.n + 1 }} {{ url }} {{ held_back }} {{ data.nothing }}|{{ title }}",
            &delivery,
        );
        assert_eq!(said.title.as_deref(), Some("task.failed in Billing: REPORT"));
        assert_eq!(said.body.as_deref(), Some("a;b; 4 https://ci.example.com/1 41 |Task failed: report"));
    }

    #[test]
    fn what_fails_or_does_not_end_is_left_out() {
        let delivery = delivery("task.failed", "{}");
        for source in [
            "{{ unclosed",
            "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
            "{{ 'x' * 20000 }}",
            "{{ 'x' * 1000000000000 }}",
            "{% include 'x' %}",
            "{{ data.a.b.c.d }}",
            "{{ nothing() }}",
            "   ",
        ] {
            let said = rendered("kept", source, &delivery);
            assert_eq!((said.title.as_deref(), said.body), (Some("kept"), None), "{source}");
        }
    }
}
