//! `klaxon retry`: dead letters back to the outbox.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::confirm::confirm;
use super::moment;
use crate::config::Settings;
use crate::database::{Target, describe};

/// Put dead letters back, to be tried again
///
/// Those of channels that the role of database-url may edit, as klaxon.retry_dead() does it. What narrows them
/// down may be combined; --all says that nothing does.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("which").args(["channel", "since", "delivery", "all"]).multiple(true).required(true)))]
pub struct Retry {
    /// Of this channel
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// Given up since then: a time as Postgres reads it, or an age such as "2 hours"
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// This delivery alone
    #[arg(long, value_name = "ID")]
    delivery: Option<Uuid>,
    /// All of them
    #[arg(long, conflicts_with_all = ["channel", "since", "delivery"])]
    all: bool,
    /// Only say how many
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Retry {
    /// Puts them back, all at once.
    ///
    /// # Errors
    /// The channel is not one that the role may edit, or the time reads as none.
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let session = Target::only(&settings.database_url)?.connect().await?;
        let client = &session.client;
        let since = match &self.since {
            Some(text) => Some(moment::read(client, "--since", text).await?),
            None => None,
        };
        // As long as it takes: whoever waits can interrupt it.
        client.batch_execute("SET statement_timeout = 0").await.map_err(describe)?;
        let retry = async |dry_run: bool| -> anyhow::Result<i64> {
            let row = client
                .query_one(
                    "SELECT klaxon.retry_dead($1, $2::text::timestamptz, $3, $4)",
                    &[&self.channel, &since, &self.delivery, &dry_run],
                )
                .await
                .map_err(describe)?;
            Ok(row.try_get(0)?)
        };
        let dead = retry(true).await?;
        let ask = format!("{} tried again. Go on?", are(dead));
        if self.dry_run || dead == 0 || !(self.yes || confirm(&ask)?) {
            self.tell(dead, 0);
            return Ok(ExitCode::SUCCESS);
        }
        self.tell(dead, retry(false).await?);
        Ok(ExitCode::SUCCESS)
    }

    fn tell(&self, dead: i64, retried: i64) {
        if self.json {
            println!("{}", json!({"dead": dead, "retried": retried}));
        } else if self.dry_run {
            println!("{} tried again", are(dead));
        } else {
            println!("{retried} of {dead} dead letters are pending again");
        }
    }
}

fn are(dead: i64) -> String {
    match dead {
        1 => "1 dead letter would be".into(),
        many => format!("{many} dead letters would be"),
    }
}
