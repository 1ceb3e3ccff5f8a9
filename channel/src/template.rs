//! A channel's own words: minijinja templates for heading and text.
//!
//! A template is its channel's owner's, and the worker everybody's: what one may take is bounded, it
//! reads nothing but the message, and one that fails is left aside, never the delivery.

use std::io::{self, Write};

use klaxon_model::event_type::Severity;
use minijinja::{Environment, Template as Compiled};
use serde_json::{Value, json};

use crate::config::Template;
use crate::message::Message;

mod bounds;

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
    let environment = bounds::environment(0);
    let template = environment.template_from_str(source).map_err(described)?;
    bounds::objection(&template).map_or(Ok(()), Err)?;
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
    let delivery = message.delivery;
    let environment = bounds::environment(delivery.payload.get().len());
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
        let rendered = compiled(&environment, source)
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

/// A template that is stored, which may be from before what is refused now.
fn compiled<'a>(
    environment: &'a Environment<'_>,
    source: &'a str,
) -> Result<Compiled<'a, 'a>, minijinja::Error> {
    let template = environment.template_from_str(source)?;
    match bounds::objection(&template) {
        None => Ok(template),
        Some(objection) => Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, objection)),
    }
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

    #[test]
    fn what_would_grow_without_a_step_for_it_is_refused() {
        let body = r#"{"x": [0, 0], "rows": [{"a": 1}]}"#;
        let growing = "{% set x = data.x %}".to_owned()
            + &"{% set x = [x, x] %}".repeat(60)
            + "{{ x | string | length }}";
        let adding = format!("{{{{ (data.x{}) | length }}}}", " + data.x".repeat(17));
        for (source, why) in [
            (growing.as_str(), "line 1: no value is named by set or with, but text between set and endset"),
            (
                "{% with x = data.x + data.x %}{{ x }}{% endwith %}",
                "line 1: no value is named by set or with, but text between set and endset",
            ),
            (
                "\n{% for x in [data.x, data.x] %}{{ x }}{% endfor %}",
                "line 2: lists and maps are of constants only",
            ),
            (
                "{% for x in (data.x, data.x) %}{{ x }}{% endfor %}",
                "line 1: lists and maps are of constants only",
            ),
            ("{{ {'a': data.x, 'b': data.x} }}", "line 1: lists and maps are of constants only"),
            ("{{ data.x | map('default', data.x, true) }}", "line 1: map takes a filter or an attribute"),
            (
                "{{ data.x | map(attribute='b', default=data.x) }}",
                "line 1: map takes a filter or an attribute",
            ),
            (adding.as_str(), "line 1: there are more than 16 sums and products"),
            ("{{ dict(a=1, b=2) }}", "line 1: unknown function: dict is unknown"),
            ("{{ namespace(a=1) }}", "line 1: unknown function: namespace is unknown"),
            ("{{ [1] | zip([2]) }}", "line 1: unknown filter: filter zip is unknown"),
            ("{{ [1] | batch(2, fill_with=3) }}", "line 1: unknown filter: filter batch is unknown"),
        ] {
            assert_eq!(check(source), Err(why.to_owned()), "{source}");
            let said = rendered("kept", source, &delivery("task.failed", body));
            assert_eq!((said.title.as_deref(), said.body), (Some("kept"), None), "{source}");
        }
        for (source, expected) in [
            ("{% if type in ['task.failed', 'run.failed'] %}yes{% endif %}", "yes"),
            ("{% set text %}{{ data.rows | length }}{% endset %}{{ text }}", "1"),
            ("{% for row in data.rows if row.a == 1 %}{{ row.a + 1 }}{% endfor %}", "2"),
            ("{% for key, value in data | dictsort %}{{ key }} {% endfor %}", "rows x"),
            ("{{ data.rows | map(attribute='a') | join(', ') }}{{ data.x | map('abs') | sum }}", "10"),
        ] {
            assert_eq!(check(source), Ok(()), "{source}");
            let said = rendered("kept", source, &delivery("task.failed", body));
            assert_eq!(said.body.as_deref(), Some(expected), "{source}");
        }
    }

    /// The larger the payload, the longer a step may take, and the fewer there are.
    #[test]
    fn a_large_payload_has_fewer_steps() {
        let source = "{% for n in range(300) %}{{ n }}{% endfor %}";
        let of = |bytes: usize| {
            rendered("kept", source, &delivery("task.failed", &json!({"x": "x".repeat(bytes)}).to_string()))
        };
        assert!(of(0).body.is_some());
        assert_eq!(of(1 << 18).body, None);
    }
}
