//! `klaxon preview`: what a channel would be sent, rendered and not sent.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use klaxon_channel::form::{Form, Request};
use klaxon_channel::message::Message;
use klaxon_channel::sample;
use klaxon_model::event_type::is_name;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use super::run::courier;
use crate::channel::{DIGEST, Delivery, Options, Project, strike};
use crate::config::Settings;
use crate::database::{Target, describe};
use crate::directory::{self, Directory, Found, Meaning, Route};
use crate::keyring::Keyring;
use crate::statement::Statements;
use crate::trace;

/// Show what a channel would be sent
///
/// Renders the message with the channel's own template and sends nothing. Without --payload it is made up, as
/// an application might send it. Secrets show as `[secret]`.
#[derive(Args)]
pub struct Preview {
    /// The channel: of the project where one is named, else a global one
    #[arg(long, value_name = "NAME")]
    channel: String,
    /// The type of the event, or digest
    #[arg(long, value_name = "TYPE")]
    event: String,
    /// A file with the payload, JSON
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// The project of the event
    #[arg(long, value_name = "SLUG")]
    project: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Preview {
    /// Prints it.
    ///
    /// # Errors
    /// The channel is unknown or does not open, or the payload is no JSON.
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        if !is_name(&self.event) {
            bail!("\"{}\" is no event type", self.event);
        }
        let payload = match &self.payload {
            None => sample::payload(&self.event).to_string(),
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
            }
        };
        let payload = RawValue::from_string(payload).context("the payload is no JSON")?;
        let (route, project, meaning) = self.look_up(settings).await?;
        let digest = self.event == DIGEST;
        let traceparent = trace::of_event(&payload, None);
        let delivery = Delivery {
            id: Uuid::new_v4(),
            event_id: (!digest).then(Uuid::new_v4),
            event_type: self.event.clone(),
            severity: meaning.severity,
            resolves: meaning.resolves,
            project,
            attempt: 1,
            occurred_at: now()?,
            made_at: now()?,
            payload,
            held_back: 0,
            held_for: None,
            traceparent,
        };
        let target = match &route.channel.settings {
            Ok(settings) => &*settings.target,
            Err(problem) => bail!("the channel's config does not open: {problem}"),
        };
        let options = courier(settings);
        let request = target.render(&Message::new(&route.channel, &delivery, &options));
        let request = request.map_err(anyhow::Error::msg)?;
        print!("{}", if self.json { as_json(&request) } else { as_text(&request) }.shown(target, &options));
        Ok(ExitCode::SUCCESS)
    }

    async fn look_up(
        &self,
        settings: &Settings,
    ) -> anyhow::Result<(Arc<Route>, Option<Arc<Project>>, Meaning)> {
        let keyring = Keyring::load(settings)?;
        let database = Target::all(&settings.database_url)?.into_iter().next().context("no database")?;
        let session = database.connect().await?;
        let id = self.channel_id(&session.client).await?;
        let statements = Statements::prepare(&session.client).await.map_err(describe)?;
        let mut directory = Directory::new(Instant::now());
        directory.find(id, self.project.as_deref());
        let request = directory.request(Instant::now()).context("nothing to look up")?;
        directory
            .apply(directory::load(&session.client, &statements, &keyring, request).await.map_err(describe)?);
        let (Found::Route(route), project) = directory.find(id, self.project.as_deref()) else {
            bail!("there is no channel \"{}\"", self.channel);
        };
        let meaning = match directory.meaning(&self.event) {
            Some(meaning) => meaning.clone(),
            None if self.event == DIGEST => Meaning::default(),
            None => bail!("there is no event type \"{}\"", self.event),
        };
        if self.project.is_some() && project.is_none() {
            bail!("there is no project \"{}\"", self.project.as_deref().unwrap_or_default());
        }
        Ok((route, project, meaning))
    }

    async fn channel_id(&self, client: &Client) -> anyhow::Result<i64> {
        let rows = client
            .query(
                "SELECT c.id FROM klaxon.channel AS c
                 WHERE c.name = $1 AND (c.project IS NULL OR c.project = $2)
                 ORDER BY c.project IS NULL, c.owner IS NOT NULL, c.id",
                &[&self.channel, &self.project],
            )
            .await
            .map_err(describe)?;
        let row = rows.first().with_context(|| match &self.project {
            None => format!("there is no channel \"{}\"; a project's is found with --project", self.channel),
            Some(project) => format!("there is no channel \"{}\" for project \"{project}\"", self.channel),
        })?;
        Ok(row.try_get(0)?)
    }
}

/// What is printed, its secrets not yet struck.
struct Page(String);

impl Page {
    fn shown(self, target: &dyn Form, options: &Options) -> String {
        strike(&self.0, target, options.smtp.as_ref())
    }
}

fn as_text(request: &Request) -> Page {
    Page(match request {
        Request::Http(post) => {
            let body: Value = serde_json::from_slice(&post.body).unwrap_or_default();
            let headers: String = headers(post).map(|(name, value)| format!("{name}: {value}\n")).collect();
            format!("POST {}\n{headers}\n{body:#}\n", post.url)
        }
        Request::Mail { server, mail } => {
            let mail = String::from_utf8_lossy(&mail.formatted()).replace("\r\n", "\n");
            format!("MAIL {}:{}\n\n{}\n", server.host, server.port, mail.trim_end())
        }
    })
}

fn as_json(request: &Request) -> Page {
    let value = match request {
        Request::Http(post) => json!({
            "method": "POST",
            "url": post.url.as_str(),
            "headers": headers(post).collect::<std::collections::BTreeMap<_, _>>(),
            "body": serde_json::from_slice::<Value>(&post.body).unwrap_or_default(),
        }),
        Request::Mail { server, mail } => json!({
            "server": format!("{}:{}", server.host, server.port),
            "mail": String::from_utf8_lossy(&mail.formatted()),
        }),
    };
    Page(format!("{value}\n"))
}

fn headers(post: &klaxon_channel::form::Post) -> impl Iterator<Item = (&str, &str)> {
    post.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()))
}

fn now() -> anyhow::Result<i64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_micros())?)
}
