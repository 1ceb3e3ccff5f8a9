//! Mail: text and HTML that read well in a plain client and on a phone.

use klaxon_model::channel::Email;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message as Mail};

use super::digest::Entry;
use super::message::Message;
use super::{Answer, Form, Request, Verdict, answer};
use crate::egress::{Login, Sent, Server, Step};

/// Characters of a subject: RFC 5322 section 2.1.1 has lines of 998, people have less.
const SUBJECT: usize = 200;

/// A header that lettre has no type for.
macro_rules! header {
    ($type:ident, $name:literal) => {
        #[derive(Clone)]
        struct $type(String);

        impl Header for $type {
            fn name() -> HeaderName {
                HeaderName::new_from_ascii_str($name)
            }

            fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
                Ok(Self(text.to_owned()))
            }

            fn display(&self) -> HeaderValue {
                HeaderValue::new(Self::name(), self.0.clone())
            }
        }
    };
}
header!(AutoSubmitted, "Auto-Submitted");
header!(ListId, "List-Id");

impl Form for Email {
    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let own = message.options.smtp.as_ref();
        let server = match (&self.server, own) {
            (Some(server), _) => Server {
                host: server.host.clone(),
                port: server.port,
                tls: server.tls,
                implicit: None,
                login: match (&server.user, &server.pass) {
                    (Some(user), Some(pass)) => Some(Login { user: user.clone(), pass: pass.clone() }),
                    _ => None,
                },
            },
            (None, Some(own)) => own.server.clone(),
            (None, None) => return Err("the channel has no smtp_host and the worker no smtp-host".into()),
        };
        let from = self
            .from_addr
            .as_deref()
            .or_else(|| own.and_then(|own| own.from.as_deref()))
            .ok_or("the channel has no from_addr and the worker no smtp-from")?;
        let from: Address = from.parse().map_err(|_| "the sender is no mail address".to_owned())?;
        let name = own.map_or("klaxon", |own| own.from_name.as_str());
        let domain = from.domain().to_owned();
        let thread = thread(message, &domain);
        let mut mail = Mail::builder()
            .from(Mailbox::new(Some(name.to_owned()), from))
            .subject(super::message::one_line(&message.title, SUBJECT))
            .message_id(Some(format!("<{}@{domain}>", message.delivery.id)))
            .references(thread.clone())
            .in_reply_to(thread)
            .header(AutoSubmitted("auto-generated".into()))
            .header(ListId(format!("<{}.klaxon.{domain}>", list(message))));
        for to in &self.to_addrs {
            let address: Address = to.parse().map_err(|_| "a recipient is no mail address".to_owned())?;
            mail = mail.to(Mailbox::new(None, address));
        }
        let mail = mail
            .multipart(MultiPart::alternative_plain_html(text(message), html(message)))
            .map_err(|error| format!("the mail cannot be written: {error}"))?;
        Ok(Request::Mail { server, mail: Box::new(mail) })
    }

    fn read_mail(&self, sent: Sent) -> Answer {
        // Who may not log in at the channel's own server will not be let in by asking again; at the
        // worker's it is the operator who must see to it, and no channel's fault.
        let locked_out = self.server.is_some()
            && matches!(&sent, Sent::Refused(refusal) if refusal.permanent && refusal.step == Step::Login);
        let answer = answer::mail(sent);
        if locked_out { Answer { verdict: Verdict::Dead { disable: true }, ..answer } } else { answer }
    }
}

/// What all firings of one thing refer to, so that clients show them as one thread.
fn thread(message: &Message<'_>, domain: &str) -> String {
    let meant = message.delivery.resolves.as_deref().unwrap_or(&message.delivery.event_type);
    let project = message.delivery.project.as_deref().map_or("", |project| project.slug.as_str());
    let thing = message
        .thing()
        .unwrap_or_else(|| message.delivery.event_id.unwrap_or(message.delivery.id).to_string());
    let hash = klaxon_model::audit::body_hash(&format!("{project}\n{meant}\n{thing}"));
    format!("<thread.{}@{domain}>", hex::encode(&hash[..12]))
}

/// A project's messages are a list one can filter by; only what a header's token may hold.
fn list(message: &Message<'_>) -> String {
    let slug = message.delivery.project.as_deref().map_or("events", |project| project.slug.as_str());
    let token: String = slug
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '-' })
        .collect();
    token.chars().take(60).collect()
}

fn text(message: &Message<'_>) -> String {
    let mut text = message.plain();
    if let Some(url) = &message.link {
        text.push_str(&format!("\n\n{url}"));
    }
    text.push_str(&format!("\n\n-- \n{}, {}\n", message.channel.name, message.occurred_at()));
    text
}

fn html(message: &Message<'_>) -> String {
    let rows: String = message
        .facts()
        .into_iter()
        .map(|(label, value)| {
            format!(
                "<tr><td style=\"padding:2px 12px 2px 0;color:#666;vertical-align:top\">{label}</td><td style=\"padding:2px 0\">{}</td></tr>",
                escape(&value)
            )
        })
        .collect();
    let entry = |entry: Entry| match (&message.digest, entry.link) {
        (None, _) => format!("<code>{}</code>", escape(&entry.title)),
        (Some(_), None) => escape(&entry.title),
        (Some(_), Some(link)) => format!("<a href=\"{}\">{}</a>", escape(&link), escape(&entry.title)),
    };
    let failures: String = message
        .entries()
        .into_iter()
        .map(|item| format!("<li style=\"margin:4px 0\">{}</li>", entry(item)))
        .collect();
    let failures = if failures.is_empty() {
        failures
    } else {
        format!("<ul style=\"padding-left:20px\">{failures}</ul>")
    };
    let body: String = message
        .body
        .iter()
        .map(|body| format!("<p style=\"white-space:pre-line\">{}</p>", escape(body)))
        .collect();
    let held = message.held_back().map(|held| format!("<p>{}</p>", escape(&held))).unwrap_or_default();
    let link = message
        .link
        .as_ref()
        .map(|url| {
            format!(
                "<p><a href=\"{}\" style=\"display:inline-block;padding:10px 18px;background:#1a5fb4;color:#fff;text-decoration:none;border-radius:6px\">Open</a></p>",
                escape(url)
            )
        })
        .unwrap_or_default();
    format!(
        "<!doctype html><html><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"></head>\
         <body style=\"font:16px/1.45 system-ui,sans-serif;color:#222;max-width:640px;margin:0 auto;padding:16px\">\
         <h1 style=\"font-size:20px;margin:0 0 12px\">{}</h1>{body}<table style=\"border-collapse:collapse\">{rows}</table>{failures}{held}{link}\
         <p style=\"color:#888;font-size:13px\">{}, {}</p></body></html>",
        escape(&message.title),
        escape(&message.channel.name),
        message.occurred_at()
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}
