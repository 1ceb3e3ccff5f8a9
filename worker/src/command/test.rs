//! `klaxon test`: a test message, through a channel that is saved or by a configuration that is not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use klaxon_channel::config::{self, Given, Rules};
use klaxon_channel::kind::Kind;
use klaxon_model::seal;
use secrecy::SecretString;
use serde_json::Value;

use super::run::{courier, guard};
use crate::channel::{Answer, Channel, Courier, Verdict};
use crate::config::Settings;
use crate::database::{Target, describe};
use crate::egress::Guard;
use crate::keys;

/// Send a test message
///
/// With --channel the worker that runs sends it, as CALL klaxon.test_channel() has it do, and it is logged.
/// With --kind this command sends it itself, by the configuration in the file that --config then names and
/// through the same guard; nothing is saved or logged.
#[derive(Args)]
pub struct Test {
    /// A channel that the role of database-url may edit
    #[arg(long, value_name = "NAME", required_unless_present = "kind", conflicts_with = "kind")]
    channel: Option<String>,
    /// The kind of the channel whose configuration --config names, JSON
    #[arg(long, value_name = "KIND", requires = "config")]
    kind: Option<Kind>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// What came of it.
struct Told {
    success: bool,
    status_code: Option<i32>,
    error: Option<String>,
    response_body: Option<String>,
}

impl Test {
    /// Whether `--config` names a channel's configuration, and not the worker's.
    pub fn is_unsaved(&self) -> bool {
        self.kind.is_some()
    }

    /// Sends it and says what was answered: exit 0 where it arrived, 1 where it did not.
    ///
    /// # Errors
    /// The channel is unknown, or the configuration is none.
    pub async fn run(self, config: Option<PathBuf>, settings: &Settings) -> anyhow::Result<ExitCode> {
        let told = match (&self.channel, self.kind, config) {
            (Some(channel), _, _) => saved(settings, channel).await?,
            (None, Some(kind), Some(path)) => unsaved(settings, kind, &path).await?,
            _ => bail!("name a channel, or a kind and the file of its configuration"),
        };
        if self.json {
            println!(
                "{}",
                serde_json::json!({"success": told.success, "status_code": told.status_code, "error": told.error,
                    "response_body": told.response_body})
            );
        } else {
            let code = told.status_code.map(|code| format!(", {code}")).unwrap_or_default();
            match &told.error {
                None => println!("sent{code}"),
                Some(error) => println!("not sent{code}: {error}"),
            }
            if let Some(body) = &told.response_body {
                println!("{body}");
            }
        }
        Ok(if told.success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

async fn saved(settings: &Settings, channel: &str) -> anyhow::Result<Told> {
    let target = Target::all(&settings.database_url)?.into_iter().next().context("no database")?;
    let session = target.connect().await?;
    let row =
        session.client.query_one("CALL klaxon.test_channel($1)", &[&channel]).await.map_err(describe)?;
    Ok(Told {
        success: row.try_get(0)?,
        status_code: row.try_get(1)?,
        error: row.try_get(2)?,
        response_body: row.try_get(3)?,
    })
}

async fn unsaved(settings: &Settings, kind: Kind, path: &Path) -> anyhow::Result<Told> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let rules = Rules { allow_http: settings.allow_http, needs_smtp_host: settings.smtp_host.is_none() };
    let checked = config::check(kind, &config, &rules).with_context(|| path.display().to_string())?;
    let mut secrets = BTreeMap::new();
    for secret in checked.secrets {
        let value = match secret.value {
            Given::Clear(value) => SecretString::from(value.as_str()),
            Given::Sealed(sealed) => {
                let plain =
                    seal::open(&keys::secret_keys(settings)?, &sealed).context(secret.name.clone())?;
                if plain.destination.is_some() && plain.destination != checked.destination {
                    bail!("{} was sealed for another destination", secret.name);
                }
                plain.value
            }
            Given::Keep => bail!("{} is masked: nothing is stored that it could stand for", secret.name),
        };
        secrets.insert(secret.name, value);
    }
    let opened = config::open(kind, &checked.stored, &secrets)?;
    let channel = Channel { id: 0, name: "test".into(), settings: Ok(opened) };
    let courier = Courier::new(Guard::new(guard(settings)?)?, courier(settings))?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(Told::from(
        courier.deliver(&channel, &crate::run::test::delivery(i64::try_from(now.as_micros())?)).await,
    ))
}

impl From<Answer> for Told {
    fn from(answer: Answer) -> Self {
        Self {
            success: answer.verdict == Verdict::Sent,
            status_code: answer.code,
            error: answer.error,
            response_body: answer.body,
        }
    }
}
