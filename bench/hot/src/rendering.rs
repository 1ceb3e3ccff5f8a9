//! What goes out for a delivery, of every kind.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use anyhow::Context as _;
use klaxon_channel::config::{self, Given, Rules};
use klaxon_channel::delivery::{Channel, Delivery, Options, Project};
use klaxon_channel::form::Request;
use klaxon_channel::kind::Kind;
use klaxon_channel::message::Message;
use klaxon_channel::sample;
use klaxon_model::event_type::Severity;
use secrecy::SecretString;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Operation;

pub fn operations() -> anyhow::Result<Vec<Operation>> {
    let teams =
        "https://prod-01.westeurope.logic.azure.com:443/workflows/1/triggers/manual/paths/invoke?sig=x";
    [
        (
            "render_webhook",
            Kind::Webhook,
            json!({"url": "https://hooks.example.com/x", "hmac_secret": "whsec_c2VjcmV0", "headers": {"X-Team": "ops"}}),
        ),
        (
            "render_email",
            Kind::Email,
            json!({"smtp_host": "smtp.example.com", "from_addr": "klaxon@example.com", "to_addrs": ["ann@example.com"]}),
        ),
        ("render_slack", Kind::Slack, json!({"webhook_url": "https://hooks.slack.com/services/T/B/x"})),
        ("render_telegram", Kind::Telegram, json!({"bot_token": "12:Ab", "chat_id": "-100"})),
        ("render_pagerduty", Kind::Pagerduty, json!({"integration_key": "0123456789abcdef0123456789abcdef"})),
        ("render_discord", Kind::Discord, json!({"webhook_url": "https://discord.com/api/webhooks/1/x"})),
        ("render_teams", Kind::Teams, json!({"webhook_url": teams})),
        ("render_ntfy", Kind::Ntfy, json!({"url": "https://ntfy.example.com", "topic": "ops", "token": "tk_abc"})),
        (
            "render_template",
            Kind::Slack,
            json!({
                "webhook_url": "https://hooks.slack.com/services/T/B/x",
                "template": {"title": "{{ data.task_name }} broke", "body": "Look at {{ data.queue }}: {{ severity }}"}
            }),
        ),
    ]
    .into_iter()
    .map(|(name, kind, config)| render(name, kind, &config))
    .collect()
}

fn render(name: &'static str, kind: Kind, config: &Value) -> anyhow::Result<Operation> {
    let channel = channel(kind, config)?;
    let (delivery, options) = (delivery()?, Options::default());
    Ok(Operation::new(name, move || {
        let message = Message::new(&channel, &delivery, &options);
        let settings = channel.settings.as_ref().expect("they opened");
        match black_box(settings.target.render(&message)).expect("it renders") {
            Request::Http(post) => drop(black_box(post)),
            Request::Mail { mail, .. } => drop(black_box(mail.formatted())),
        }
    }))
}

/// A channel as the worker has it: checked as it is written, opened as it is read.
fn channel(kind: Kind, config: &Value) -> anyhow::Result<Channel> {
    let checked = config::check(kind, config, &Rules::default())?;
    let clear = checked.secrets.into_iter().filter_map(|secret| match secret.value {
        Given::Clear(value) => Some((secret.name, SecretString::from(value.as_str()))),
        _ => None,
    });
    let secrets: BTreeMap<String, SecretString> = clear.collect();
    let settings = config::open(kind, &checked.stored, &secrets)?;
    Ok(Channel { id: 7, name: "ops".into(), settings: Ok(settings) })
}

fn delivery() -> anyhow::Result<Delivery> {
    let payload = sample::payload("task.failed").to_string();
    Ok(Delivery {
        id: Uuid::from_u128(2),
        event_id: Some(Uuid::from_u128(1)),
        event_type: "task.failed".into(),
        severity: Some(Severity::Error),
        resolves: None,
        project: Some(Arc::new(Project {
            slug: "billing".into(),
            name: Some("Billing".into()),
            url: Some("https://ci.example.com/billing".into()),
        })),
        attempt: 2,
        occurred_at: 1_767_225_600_123_456,
        made_at: 1_767_225_601_999_999,
        payload: RawValue::from_string(payload).context("a sample is JSON")?,
        held_back: 0,
        held_for: None,
        traceparent: None,
    })
}
