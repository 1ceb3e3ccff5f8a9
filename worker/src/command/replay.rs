//! `klaxon replay`: past events to a channel again.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_postgres::Client;

use super::confirm::confirm;
use super::moment;
use crate::config::Settings;
use crate::database::{Target, describe};

/// How many events a transaction of its own has, about: enough that the scan for them is not what takes the
/// time, and few enough that progress can be seen, and an interruption loses little.
const SLICE: i64 = 10_000;
/// Each slice reads the table of events once, so there are not to be many.
const SLICES: i64 = 100;

/// Send past events to a channel again
///
/// Each as a new delivery, as klaxon.replay() does it, whatever was subscribed to. The role of database-url
/// must be one that may edit the channel. Many events are replayed in slices of time, each in a transaction of its
/// own: what is said on interruption is where to go on.
#[derive(Args)]
pub struct Replay {
    /// To this channel
    #[arg(long, value_name = "NAME")]
    channel: String,
    /// Events that occurred from then on: a time as Postgres reads it, or an age such as "2 hours"
    #[arg(long, value_name = "TIME")]
    since: String,
    /// Up to then [default: now]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Of this type alone, or of those that a glob means; repeatable
    #[arg(long, value_name = "TYPE")]
    event: Vec<String>,
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

/// What is replayed.
struct Selection<'r> {
    client: &'r Client,
    channel: &'r str,
    events: Option<&'r [String]>,
}

impl Replay {
    /// Counts them, asks, and replays them.
    ///
    /// # Errors
    /// The channel is not one that the role may edit, an event type is none, or a time reads as none.
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let session = Target::only(&settings.database_url)?.connect().await?;
        let client = &session.client;
        let since = moment::read(client, "--since", &self.since).await?;
        let until = moment::read(client, "--until", self.until.as_deref().unwrap_or("now")).await?;
        // As long as it takes; and where clocks are never set, a day is a day.
        client.batch_execute("SET statement_timeout = 0; SET TimeZone = 'UTC'").await.map_err(describe)?;
        let events = (!self.event.is_empty()).then_some(&self.event[..]);
        let selection = Selection { client, channel: &self.channel, events };
        let found = selection.replay(&since, &until, true).await?;
        let ask = format!(
            "{} from {since} to {until} would be sent to {} again. Go on?",
            events_of(found),
            self.channel
        );
        if self.dry_run || found == 0 || !(self.yes || confirm(&ask)?) {
            self.tell(found, 0);
            return Ok(ExitCode::SUCCESS);
        }
        let bar = self.progress(found);
        let mut replayed = 0;
        for (from, to) in selection.slices(&since, &until, found).await? {
            // Without its COMMIT, which is sent by who is not interrupted, a slice has not been.
            client.batch_execute("BEGIN").await.map_err(describe)?;
            let slice = tokio::select! {
                slice = selection.replay(&from, &to, false) => slice,
                _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            };
            match slice {
                Ok(slice) => {
                    client.batch_execute("COMMIT").await.map_err(describe)?;
                    replayed += slice;
                    bar.inc(u64::try_from(slice).unwrap_or_default());
                }
                Err(error) => {
                    bar.abandon();
                    return Err(error.context(format!(
                        "{} are pending for {}; go on with --since \"{from}\"",
                        events_of(replayed),
                        self.channel
                    )));
                }
            }
        }
        bar.finish_and_clear();
        self.tell(found, replayed);
        Ok(ExitCode::SUCCESS)
    }

    fn tell(&self, found: i64, replayed: i64) {
        if self.json {
            println!("{}", json!({"events": found, "replayed": replayed}));
        } else if self.dry_run {
            println!("{} would be sent to {} again", events_of(found), self.channel);
        } else {
            println!("{replayed} of {} are pending for {}", events_of(found), self.channel);
        }
    }

    fn progress(&self, events: i64) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(
            "replaying {bar:40} {human_pos}/{human_len} events, {per_sec}, {eta} left",
        );
        let bar = ProgressBar::new(u64::try_from(events).unwrap_or_default());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }
}

impl Selection<'_> {
    async fn replay(&self, since: &str, until: &str, dry_run: bool) -> anyhow::Result<i64> {
        let row = self
            .client
            .query_one(
                "SELECT klaxon.replay($1, $2::text::timestamptz, $3::text::timestamptz, $4, $5)",
                &[&self.channel, &since, &until, &self.events, &dry_run],
            )
            .await
            .map_err(describe)?;
        Ok(row.try_get(0)?)
    }

    /// The time in between in parts, which share no microsecond: none finer is stored. They are of equal length
    /// over the time whose events the role sees; the first and the last reach as far as was asked.
    async fn slices(&self, since: &str, until: &str, found: i64) -> anyhow::Result<Vec<(String, String)>> {
        let parts = (found / SLICE).clamp(1, SLICES);
        let rows = self
            .client
            .query(
                "WITH seen AS (
                     SELECT greatest($1::text::timestamptz, min(occurred_at)) AS since,
                            least($2::text::timestamptz, max(occurred_at)) AS until
                     FROM klaxon.event
                 ), cut AS (
                     SELECT since + (until - since) * (part::float8 / $3::bigint) AS at
                     FROM seen, generate_series(1, $3::bigint - 1) AS part
                     WHERE since < until
                 )
                 SELECT coalesce((lag(at) OVER (ORDER BY at) + interval '1 us')::text, $1), coalesce(at::text, $2)
                 FROM (SELECT at FROM cut UNION ALL SELECT NULL) AS parts ORDER BY at",
                &[&since, &until, &parts],
            )
            .await
            .map_err(describe)?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }
}

fn events_of(found: i64) -> String {
    match found {
        1 => "1 event".into(),
        many => format!("{many} events"),
    }
}
