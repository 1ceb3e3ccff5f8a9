//! `klaxon adopt`: a copied database becomes this deployment's own.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::config::Settings;
use crate::database::{Target, describe};
use crate::deployment;
use crate::keys;

/// Make a copied database this deployment's own; what it has pending is dropped
#[derive(Args)]
pub struct Adopt {
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Adopt {
    /// Takes over every database of the settings that is another deployment's.
    pub async fn run(self, _config: Option<PathBuf>, settings: &Settings) -> anyhow::Result<ExitCode> {
        let id = settings
            .deployment_id
            .as_deref()
            .context("deployment-id is not set: run \"klaxon init\" for a database of this deployment first, or write one into the file")?;
        let public = keys::secret_keys(settings)?.first().context("no key")?.public().to_base64();
        for target in Target::all(&settings.database_url)? {
            let mut session = target.connect().await?;
            let found = deployment::read(&session.client).await?;
            if found.id.as_deref().is_some_and(|found| found.eq_ignore_ascii_case(id)) {
                println!("{} is this deployment's already", target.name());
                continue;
            }
            let transaction = session.client.transaction().await.map_err(describe)?;
            // Nothing may be added to what is about to be dropped.
            transaction
                .batch_execute("LOCK TABLE klaxon.outbox, klaxon.digest_item IN EXCLUSIVE MODE")
                .await
                .map_err(describe)?;
            let pending: i64 = transaction
                .query_one("SELECT pg_catalog.count(*) FROM klaxon.outbox", &[])
                .await
                .map_err(describe)?
                .try_get(0)?;
            if !self.yes
                && std::io::stdin().is_terminal()
                && !confirmed(&target, found.id.as_deref(), pending)?
            {
                bail!("nothing was changed");
            }
            transaction
                .batch_execute(
                    "DELETE FROM klaxon.outbox; DELETE FROM klaxon.digest_item; DELETE FROM klaxon.worker",
                )
                .await
                .map_err(describe)?;
            transaction.execute("SELECT klaxon.set_public_key($1)", &[&public]).await.map_err(describe)?;
            transaction
                .execute("UPDATE klaxon.deployment SET id = $1::text::uuid", &[&id])
                .await
                .map_err(describe)?;
            transaction
                .execute("INSERT INTO klaxon.audit_head (chain) VALUES (pg_catalog.gen_random_uuid()) ON CONFLICT DO NOTHING", &[])
                .await
                .map_err(describe)?;
            transaction.commit().await.map_err(describe)?;
            println!("{} is now deployment {id}'s; {pending} pending deliveries were dropped", target.name());
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn confirmed(target: &Target, from: Option<&str>, pending: i64) -> anyhow::Result<bool> {
    print!(
        "{} belongs to deployment {}. Take it over and drop {pending} pending deliveries? [y/N] ",
        target.name(),
        from.unwrap_or("none")
    );
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
