//! `klaxon adopt`: a copied database becomes this deployment's own.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use klaxon_model::seal;

use super::confirm::confirm;
use crate::config::{self, Settings};
use crate::database::{Target, describe};
use crate::deployment::{self, Deployment, Estate};
use crate::installation::Installation;
use crate::journal;
use crate::keys;

/// Make a copied database this deployment's own; what it has pending is dropped
///
/// Where there is no configuration file yet, it is written with keys of its own, as "klaxon init"
/// writes it.
#[derive(Args)]
pub struct Adopt {
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Adopt {
    /// Takes over every database of the settings that is another deployment's, or none's.
    ///
    /// # Errors
    /// Where a database cannot be reached or has no extension, or the answer was no.
    pub async fn run(self, config: Option<PathBuf>, settings: &Settings) -> anyhow::Result<ExitCode> {
        let targets = Target::all(&settings.database_url)?;
        let made = match settings.deployment_id {
            Some(_) => None,
            None => Some(Self::install(config, settings)?),
        };
        let (id, keys, audit) = match (&made, &settings.deployment_id) {
            (Some(made), _) => (made.id.clone(), vec![made.secret.clone()], vec![made.audit.clone()]),
            (None, Some(id)) => (id.clone(), keys::secret_keys(settings)?, keys::audit_keys(settings)?),
            (None, None) => bail!("deployment-id is not set"),
        };
        let public_key = keys.first().context("no key")?.public().to_base64();
        let mut written = false;
        for target in targets {
            let mut session = target.connect().await?;
            let found = deployment::read(&session.client).await.with_context(|| target.name().to_owned())?;
            if found.is(&id) {
                println!(
                    "{} is this deployment's already (if the configuration is a copy too, write another deployment-id into it first)",
                    target.name()
                );
                continue;
            }
            // Asked before anything is locked: emitters must not wait for an answer.
            let estate = Estate::read(&session.client).await?;
            if !self.yes && !confirm(&question(&target, &found, &estate))? {
                bail!("nothing was changed in {}", target.name());
            }
            let transaction = session.client.transaction().await.map_err(describe)?;
            let estate = match found.id {
                Some(_) => Some(Estate::drop_pending(&transaction).await?),
                // Nobody else's: what is pending waits for its first worker.
                None => None,
            };
            deployment::claim(&transaction, found.id.as_deref(), &id, &public_key)
                .await
                .with_context(|| target.name().to_owned())?;
            journal::take_over(&transaction, found.id.as_deref(), &audit)
                .await
                .with_context(|| target.name().to_owned())?;
            if let Some(made) = made.as_ref().filter(|_| !written) {
                made.write()?;
                written = true;
                println!("wrote {} and its keys", made.config.display());
            }
            transaction.commit().await.map_err(describe)?;
            let Some(estate) = estate else {
                println!("{} is now deployment {id}'s", target.name());
                continue;
            };
            estate.end_workers(&session.client).await?;
            println!(
                "{} is now deployment {id}'s; {} pending deliveries were dropped",
                target.name(),
                estate.pending
            );
            let closed = estate.secrets.iter().filter(|sealed| seal::open(&keys, sealed).is_err()).count();
            if closed > 0 {
                println!(
                    "secrets of channels that only the former deployment's key opens: {closed}; write again those that are to be used"
                );
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// A deployment for who has none: a copy's operator, whom `init` sends here.
    fn install(config: Option<PathBuf>, settings: &Settings) -> anyhow::Result<Installation> {
        let path = config.unwrap_or_else(|| PathBuf::from(config::DEFAULT_PATHS[0]));
        if path.exists() {
            bail!("deployment-id is not set in {}: write one, a new UUID, into it", path.display());
        }
        Installation::new(&path, settings)
    }
}

fn question(target: &Target, from: &Deployment, estate: &Estate) -> String {
    match &from.id {
        None => format!("{} belongs to no deployment. Make it this one's?", target.name()),
        Some(id) => format!(
            "{} belongs to deployment {id}. Take it over and drop {} pending deliveries?",
            target.name(),
            estate.pending
        ),
    }
}
