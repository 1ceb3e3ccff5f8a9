//! Which deployment a database belongs to: a copy of it in another place must not page anyone.

use anyhow::{Context as _, bail};
use klaxon_model::seal::SecretKey;
use tokio_postgres::Client;

use crate::database::describe;

/// What the database says of itself; none before `klaxon init`.
#[derive(Clone, Debug, Default)]
pub struct Deployment {
    /// The deployment's id.
    pub id: Option<String>,
    /// The key that secrets are sealed to.
    pub public_key: Option<String>,
}

/// Reads it.
///
/// # Errors
/// Where the extension is not installed, or is not of this worker's minor version.
pub async fn read(client: &Client) -> anyhow::Result<Deployment> {
    let version = client
        .query_opt("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_klaxon'", &[])
        .await
        .map_err(describe)?;
    let Some(version) = version else {
        bail!("the database has no pg_klaxon: run \"CREATE EXTENSION pg_klaxon\" in it as a superuser");
    };
    let version: String = version.try_get(0)?;
    let minor = |version: &str| version.splitn(3, '.').take(2).map(str::to_owned).collect::<Vec<_>>();
    if minor(&version) != minor(env!("CARGO_PKG_VERSION")) {
        bail!(
            "the database has pg_klaxon {version} and this worker is {}: run \"ALTER EXTENSION pg_klaxon UPDATE\", or the worker of that version",
            env!("CARGO_PKG_VERSION")
        );
    }
    let row = client
        .query_opt("SELECT id::text, public_key FROM klaxon.deployment", &[])
        .await
        .map_err(describe)?;
    Ok(match row {
        None => Deployment::default(),
        Some(row) => Deployment { id: row.try_get(0)?, public_key: row.try_get(1)? },
    })
}

/// Refuses a database that is another deployment's, or whose secrets are sealed to another key.
///
/// # Errors
/// What differs, and what to run.
pub async fn check(client: &Client, id: Option<&str>, keys: &[SecretKey]) -> anyhow::Result<()> {
    let found = read(client).await?;
    let id = id.context("deployment-id is not set: \"klaxon init\" writes it")?;
    match found.id.as_deref() {
        None => bail!("the database belongs to no deployment yet: run \"klaxon init\""),
        Some(found) if !found.eq_ignore_ascii_case(id) => bail!(
            "the database belongs to deployment {found}, not to {id}: it may be a copy, and a copy must not page anyone; \
             run \"klaxon adopt\" to make it this deployment's own, which drops what it has pending"
        ),
        Some(_) => {}
    }
    let public = found.public_key.unwrap_or_default();
    if !keys.iter().any(|key| key.public().to_base64() == public) {
        bail!(
            "the database seals secrets to public key {public}, which none of the secret-key-file's keys opens: \
             restore that file, or run \"SELECT klaxon.set_public_key('{}')\" as a superuser and write every secret again",
            keys.first().map(|key| key.public().to_base64()).unwrap_or_default()
        );
    }
    Ok(())
}
