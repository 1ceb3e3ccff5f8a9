//! `klaxon init`: a new deployment.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::config::Settings;
use crate::database::{Target, describe};
use crate::deployment;
use crate::installation::Installation;

/// Write the configuration file and the keys, and make the databases this deployment's
#[derive(Args)]
pub struct Init {
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

impl Init {
    /// Makes a deployment: everything is checked before anything is written, and the databases are
    /// this deployment's only once its files are there.
    ///
    /// # Errors
    /// Where a file is there already, a database cannot be reached, has no extension or belongs to a
    /// deployment.
    pub async fn run(self, config: Option<PathBuf>, settings: &Settings) -> anyhow::Result<ExitCode> {
        let path = config.unwrap_or_else(|| PathBuf::from("klaxon.toml"));
        if path.exists() {
            bail!(
                "{} exists: it is a deployment's already; \"klaxon adopt\" adds a database to it, and --config names another",
                path.display()
            );
        }
        let installation = Installation::new(&path, settings)?;
        let targets = Target::all(&settings.database_url)?;
        let mut sessions = Vec::new();
        for target in &targets {
            let session = target.connect().await?;
            let found = deployment::read(&session.client).await.with_context(|| target.name().to_owned())?;
            if let Some(id) = found.id {
                bail!(
                    "{} belongs to deployment {id} already: run its worker, or \"klaxon adopt --config {}\" if it is a copy",
                    target.name(),
                    path.display()
                );
            }
            sessions.push(session);
        }
        let public_key = installation.public_key();
        let mut claims = Vec::new();
        for (session, target) in sessions.iter_mut().zip(&targets) {
            let transaction = session.client.transaction().await.map_err(describe)?;
            deployment::claim(&transaction, None, &installation.id, &public_key)
                .await
                .with_context(|| target.name().to_owned())?;
            claims.push(transaction);
        }
        installation.write()?;
        for (done, (claim, target)) in claims.into_iter().zip(&targets).enumerate() {
            if let Err(error) = claim.commit().await {
                if done == 0 {
                    installation.remove();
                    return Err(describe(error).context(target.name().to_owned()));
                }
                return Err(describe(error).context(format!(
                    "{} is not this deployment's yet: run \"klaxon adopt --config {}\"",
                    target.name(),
                    path.display()
                )));
            }
        }
        self.report(&installation, &targets);
        Ok(ExitCode::SUCCESS)
    }

    fn report(&self, made: &Installation, targets: &[Target]) {
        let names: Vec<&str> = targets.iter().map(Target::name).collect();
        if self.json {
            println!(
                "{}",
                serde_json::json!({"config": made.config, "deployment_id": made.id, "public_key": made.public_key(),
                    "secret_key_file": made.secret_key_file, "audit_key_file": made.audit_key_file, "databases": names})
            );
            return;
        }
        println!("deployment   {}", made.id);
        for name in names {
            println!("database     {name}");
        }
        println!("public key   {}", made.public_key());
        println!(
            "wrote        {}, {} and {}",
            made.config.display(),
            made.secret_key_file.display(),
            made.audit_key_file.display()
        );
        println!(
            "\nKeep a copy of both keys where the database is not: without them no secret opens and no log verifies."
        );
        println!("Next: klaxon run --config {}", made.config.display());
    }
}
