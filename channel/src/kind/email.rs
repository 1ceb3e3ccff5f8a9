//! Mail: text and HTML that read well in a plain client and on a phone.

use std::str::FromStr as _;

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message as Mail};
use serde_json::{Map, Value};

use crate::answer::{MailRow, Means};
use crate::config::{Config, ConfigError, Field, Rules, field};
use crate::digest::Entry;
use crate::form::{Form, Login, Request, Server, Step};
use crate::message::Message;
use crate::text::one_line;

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

/// A mail.
pub(super) struct Email {
    /// The channel's own server; `None` is the worker's.
    server: Option<Server>,
    /// The sender; `None` is the worker's.
    from_addr: Option<String>,
    /// The recipients.
    to_addrs: Vec<String>,
}

impl Config for Email {
    const FIELDS: &'static [Field] = &[
        Field::plain("smtp_host"),
        Field::plain("smtp_port"),
        Field::plain("smtp_user"),
        Field::secret("smtp_pass"),
        Field::plain("smtp_tls"),
        Field::plain("from_addr"),
        Field::plain("to_addrs"),
    ];

    fn read(map: &Map<String, Value>, rules: &Rules) -> Result<Self, ConfigError> {
        let server = server(map, rules)?;
        let from_addr = match (field::text(map, "from_addr")?, field::text(map, "smtp_user")?) {
            (Some(from), _) => Some(address("from_addr", from)?),
            (None, Some(user)) => Some(address("from_addr", user).map_err(|_| {
                ConfigError::new(
                    "from_addr",
                    "is required where \"smtp_user\" is no mail address",
                    "It looks like klaxon@example.com.",
                )
            })?),
            (None, None) if server.is_some() => return Err(field::missing("from_addr")),
            (None, None) => None,
        };
        Ok(Self { server, from_addr, to_addrs: recipients(map)? })
    }
}

fn server(map: &Map<String, Value>, rules: &Rules) -> Result<Option<Server>, ConfigError> {
    let Some(host) = field::text(map, "smtp_host")? else {
        if rules.needs_smtp_host {
            return Err(field::missing("smtp_host"));
        }
        let fields = ["smtp_port", "smtp_user", "smtp_pass", "smtp_tls"];
        return match fields.into_iter().find(|field| map.contains_key(*field)) {
            None => Ok(None),
            Some(needs) => Err(ConfigError::new(
                needs,
                "needs \"smtp_host\"",
                "Without it the worker's own server is used.",
            )),
        };
    };
    url::Host::parse(host)
        .map_err(|_| ConfigError::new("smtp_host", "is no host name", "It looks like smtp.example.com."))?;
    let port = field::integer(map, "smtp_port")?.unwrap_or(587);
    let port =
        u16::try_from(port).ok().filter(|port| [25, 465, 587, 2525].contains(port)).ok_or_else(|| {
            ConfigError::new(
                "smtp_port",
                format!("must be 25, 465, 587 or 2525, not {port}"),
                "587 is the usual one.",
            )
        })?;
    let tls = field::flag(map, "smtp_tls")?.unwrap_or(true);
    if !tls && port != 25 {
        return Err(ConfigError::new("smtp_tls", "can be false on port 25 only", "Leave it out."));
    }
    let (user, pass) = (field::text(map, "smtp_user")?, field::secret(map, "smtp_pass")?);
    let login = match (user, pass) {
        (None, Some(_)) => {
            return Err(ConfigError::new(
                "smtp_user",
                "is required with \"smtp_pass\"",
                "A password is somebody's.",
            ));
        }
        (_, Some(_)) if !tls => {
            return Err(ConfigError::new(
                "smtp_pass",
                "is not sent without TLS",
                "Set smtp_tls to true, or leave the password out.",
            ));
        }
        (Some(user), Some(pass)) => {
            Some(Login { user: user.to_owned(), pass: pass.clear().unwrap_or_default().into() })
        }
        (_, None) => None,
    };
    Ok(Some(Server { host: host.to_owned(), port, tls, implicit: None, login }))
}

fn recipients(map: &Map<String, Value>) -> Result<Vec<String>, ConfigError> {
    let list = map.get("to_addrs").ok_or_else(|| field::missing("to_addrs"))?;
    let hint = "It is a list of mail addresses.";
    let list = list.as_array().ok_or_else(|| ConfigError::new("to_addrs", "must be a list", hint))?;
    if !(1..=100).contains(&list.len()) {
        return Err(ConfigError::new("to_addrs", format!("has {} entries, not 1 to 100", list.len()), hint));
    }
    let no_strings = || ConfigError::new("to_addrs", "must be a list of strings", hint);
    list.iter().map(|each| address("to_addrs", each.as_str().ok_or_else(no_strings)?)).collect()
}

fn address(field: &str, text: &str) -> Result<String, ConfigError> {
    Address::from_str(text).map(|_| text.to_owned()).map_err(|_| {
        ConfigError::new(
            field,
            format!("holds \"{}\", which is no mail address", field::shown(text)),
            "It looks like ann@example.com.",
        )
    })
}

/// Who may not log in at the channel's own server will not be let in by asking again; at the worker's
/// it is the operator who must see to it, and no channel's fault.
static OWN_SERVERS_ANSWERS: [MailRow; 1] = [MailRow::of(&[Step::Login], true, Means::Disable)];

impl Form for Email {
    fn destination(&self) -> Option<String> {
        self.server.as_ref().map(|server| format!("smtp://{}:{}", server.host.to_lowercase(), server.port))
    }

    fn secrets(&self, strike: &mut dyn FnMut(&str)) {
        if let Some(login) = self.server.as_ref().and_then(|server| server.login.as_ref()) {
            login.secrets(strike);
        }
    }

    fn render(&self, message: &Message<'_>) -> Result<Request, String> {
        let own = message.options.smtp.as_ref();
        let server = match (&self.server, own) {
            (Some(server), _) => server.clone(),
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
            // What would be an encoded word (RFC 2047) is none.
            .subject(one_line(message.title(), SUBJECT).replace("=?", "=\u{200b}?"))
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

    fn mail_answers(&self) -> &'static [MailRow] {
        if self.server.is_some() { &OWN_SERVERS_ANSWERS } else { &[] }
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
         <body style=\"font:16px/1.45 system-ui,sans-serif;color:#222;max-width:640px;overflow-wrap:anywhere;word-break:break-word;margin:0 auto;padding:16px\">\
         <h1 style=\"font-size:20px;margin:0 0 12px\">{}</h1>{body}<table style=\"border-collapse:collapse\">{rows}</table>{failures}{held}{link}\
         <p style=\"color:#888;font-size:13px\">{}, {}</p></body></html>",
        escape(message.title()),
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
