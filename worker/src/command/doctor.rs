//! `klaxon doctor`: everything that commonly stands between an installation and its first message, each
//! finding with what mends it.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Cell, Color};
use serde::Serialize;
use serde_json::json;

use super::status::table;
use crate::config::Settings;
use crate::database::Target;
use crate::keys::{self, Keys};

mod database;
mod egress;

/// Examine the installation, and say what would mend what is wrong
///
/// Looks at the key files, the connection and what lies between, versions, the deployment, rights, the wake-up
/// mode, clocks, durability, vacuum and replication, and at whether each channel's host can be reached under the
/// egress policy, to which nothing is sent. Exits 0 where nothing is to be done, 1 with findings, 2 where it could
/// not look.
#[derive(Args)]
pub struct Doctor {
    /// Print an object a finding, each on a line of its own
    #[arg(long)]
    json: bool,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// It works, with a reservation.
    Warning,
    /// It does not.
    Failure,
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    detail: String,
    /// The command that mends it.
    mend: Option<String>,
}

/// What all checks found, of one place after the other.
#[derive(Debug, Default)]
struct Findings(Vec<(String, Vec<Finding>)>);

impl Findings {
    /// What is found from here on is of this place.
    fn of(&mut self, place: impl Into<String>) {
        self.0.push((place.into(), Vec::new()));
    }

    fn add(&mut self, check: &'static str, level: Level, detail: impl Into<String>, mend: Option<String>) {
        let finding = Finding { check, level, detail: detail.into(), mend };
        match self.0.last_mut() {
            Some((_, findings)) => findings.push(finding),
            None => self.0.push((String::new(), vec![finding])),
        }
    }

    fn ok(&mut self, check: &'static str, detail: impl Into<String>) {
        self.add(check, Level::Ok, detail, None);
    }

    fn warn(&mut self, check: &'static str, detail: impl Into<String>, mend: impl Into<String>) {
        self.add(check, Level::Warning, detail, Some(mend.into()));
    }

    fn fail(&mut self, check: &'static str, detail: impl Into<String>, mend: impl Into<String>) {
        self.add(check, Level::Failure, detail, Some(mend.into()));
    }

    fn all(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter().flat_map(|(_, findings)| findings)
    }
}

impl Doctor {
    /// Examines everything and prints what was found.
    ///
    /// # Errors
    /// The settings name no database that could be one.
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let targets = Target::all(&settings.database_url)?;
        let mut findings = Findings::default();
        findings.of("keys");
        let keys = key_files(settings, &mut findings);
        for target in &targets {
            findings.of(target.name());
            match target.connect().await {
                Ok(session) => database::examine(session, settings, keys.as_ref(), &mut findings).await,
                Err(error) => findings.fail(
                    "connection",
                    format!("{error:#}"),
                    "check database-url, and that pg_hba.conf lets this host and role in",
                ),
            }
        }
        print!("{}", if self.json { findings.json() } else { findings.text() });
        let well = findings.all().all(|finding| finding.level == Level::Ok);
        Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The key files' own messages say what to run.
fn key_files(settings: &Settings, findings: &mut Findings) -> Option<Keys> {
    let (secret, audit) = (keys::secret_keys(settings), keys::audit_keys(settings));
    for (check, read) in
        [("secret-key-file", secret.as_ref().err()), ("audit-key-file", audit.as_ref().err())]
    {
        let Some(error) = read else {
            findings.ok(check, "readable, and its owner's alone");
            continue;
        };
        let said = format!("{error:#}");
        let (detail, mend) = said.split_once(": ").unwrap_or((&said, "restore it from its copy"));
        findings.fail(check, detail, mend);
    }
    Some(Keys { secret: secret.ok()?, audit: audit.ok()? })
}

impl Findings {
    fn json(&self) -> String {
        let line = |(place, finding): (&String, &Finding)| {
            let mut object = json!(finding);
            object["of"] = place.as_str().into();
            format!("{object}\n")
        };
        self.0.iter().flat_map(|(place, all)| all.iter().map(move |one| (place, one))).map(line).collect()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (place, findings) in &self.0 {
            let mut shown = table(&[]);
            for finding in findings {
                let (word, color) = match finding.level {
                    Level::Ok => ("ok", Color::Green),
                    Level::Warning => ("warning", Color::Yellow),
                    Level::Failure => ("failure", Color::Red),
                };
                let mend = finding.mend.as_ref().map(|mend| format!("\nmend: {mend}")).unwrap_or_default();
                shown.add_row(vec![
                    Cell::new(word).fg(color),
                    Cell::new(finding.check),
                    Cell::new(format!("{}{mend}", finding.detail)),
                ]);
            }
            text.push_str(&format!("{place}\n{shown}\n\n"));
        }
        let worse = self.all().filter(|finding| finding.level != Level::Ok).count();
        text.push_str(&match worse {
            0 => "nothing to mend\n".to_owned(),
            1 => "1 finding\n".to_owned(),
            many => format!("{many} findings\n"),
        });
        text
    }
}
