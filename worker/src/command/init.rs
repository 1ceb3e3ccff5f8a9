//! `klaxon init`: a new deployment.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use klaxon_model::audit;
use klaxon_model::seal::SecretKey;
use secrecy::ExposeSecret as _;
use uuid::Uuid;

use crate::config::Settings;
use crate::database::{Session, Target, describe};
use crate::deployment;
use crate::keys::write_new;

/// Write the configuration file and the keys, and make the databases this deployment's
#[derive(Args)]
pub struct Init {
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

impl Init {
    /// Makes a deployment: everything is checked before anything is written.
    pub async fn run(self, config: Option<PathBuf>, settings: &Settings) -> anyhow::Result<ExitCode> {
        let path = config.unwrap_or_else(|| PathBuf::from("klaxon.toml"));
        if path.exists() {
            bail!("{} exists: it is a deployment's already; name another by --config", path.display());
        }
        let targets = Target::all(&settings.database_url)?;
        let mut sessions = Vec::new();
        for target in &targets {
            let session = target.connect().await?;
            let found = deployment::read(&session.client).await.with_context(|| target.name().to_owned())?;
            if let Some(id) = found.id {
                bail!(
                    "{} belongs to deployment {id} already: run its worker, or \"klaxon adopt\" if it is a copy",
                    target.name()
                );
            }
            sessions.push(session);
        }
        let id = Uuid::new_v4().to_string();
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        if !folder.as_os_str().is_empty() {
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let (secret_path, audit_path) = (folder.join("secret.key"), folder.join("audit.key"));
        for key in [&secret_path, &audit_path] {
            if key.exists() {
                bail!(
                    "{} exists: a key is never overwritten; name another folder by --config",
                    key.display()
                );
            }
        }
        let secret = SecretKey::generate();
        let public = secret.public().to_base64();
        write_new(&secret_path, &format!("{}\n", *secret.to_base64()))?;
        write_new(&audit_path, &format!("{}\n", *audit::Key::generate().to_base64()))?;
        for (session, target) in sessions.iter_mut().zip(&targets) {
            claim(session, &id, &public).await.with_context(|| target.name().to_owned())?;
        }
        // Last: with the file there, the deployment is whole.
        write_new(&path, &configuration(settings, &id)?)?;
        if self.json {
            println!(
                "{}",
                serde_json::json!({"config": path, "deployment_id": id, "public_key": public,
                    "secret_key_file": secret_path, "audit_key_file": audit_path})
            );
        } else {
            println!("deployment   {id}");
            for target in &targets {
                println!("database     {}", target.name());
            }
            println!("public key   {public}");
            println!(
                "wrote        {}, {} and {}",
                path.display(),
                secret_path.display(),
                audit_path.display()
            );
            println!(
                "\nKeep a copy of both keys where the database is not: without them no secret opens and no log verifies."
            );
            println!("Next: klaxon run --config {}", path.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes a database this deployment's.
async fn claim(session: &mut Session, id: &str, public_key: &str) -> anyhow::Result<()> {
    let transaction = session.client.transaction().await.map_err(describe)?;
    transaction.execute("SELECT klaxon.set_public_key($1)", &[&public_key]).await.map_err(describe)?;
    let claimed = transaction
        .execute("UPDATE klaxon.deployment SET id = $1::text::uuid WHERE id IS NULL", &[&id])
        .await
        .map_err(describe)?;
    if claimed != 1 {
        bail!(
            "another init was quicker: the database belongs to a deployment already; run \"klaxon adopt\" if it is a copy"
        );
    }
    transaction
        .execute("INSERT INTO klaxon.audit_head (chain) VALUES (pg_catalog.gen_random_uuid()) ON CONFLICT DO NOTHING", &[])
        .await
        .map_err(describe)?;
    transaction.commit().await.map_err(describe)
}

/// The configuration file: what was said on the way, and what was made.
fn configuration(settings: &Settings, id: &str) -> anyhow::Result<String> {
    let mut text = String::from("# klaxon: every setting is listed by \"klaxon run --help\".\n\n");
    if !settings.database_url.is_empty() {
        let urls: Vec<toml::Value> =
            settings.database_url.iter().map(|url| toml::Value::from(url.expose_secret())).collect();
        text.push_str(&format!("database-url = {}\n", toml::Value::Array(urls)));
    }
    for (key, value) in
        [("deployment-id", id), ("secret-key-file", "secret.key"), ("audit-key-file", "audit.key")]
    {
        text.push_str(&format!("{key} = {}\n", toml::Value::from(value)));
    }
    Ok(text)
}
