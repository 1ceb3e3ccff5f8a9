//! `klaxon keys`: new keys in the place of those in use.
//!
//! Every step may be interrupted, and the next call goes on from there. The files come first: from
//! then on whoever meets something under a new key finds it. Former keys stay in them, since they
//! open what was sealed and verify what was signed before.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use klaxon_model::audit;
use klaxon_model::seal::{self, PublicKey, SecretKey};
use tokio_postgres::Client;

use crate::config::Settings;
use crate::database::{Target, describe};
use crate::deployment;
use crate::keys::{self, Keys};
use crate::settle::Head;

/// The keys that secrets are sealed to and the log is signed with
#[derive(Subcommand)]
pub enum KeysCommand {
    /// Renew both keys; running workers go on
    Rotate(Rotate),
}

/// Renew both keys; running workers go on
///
/// Writes a new key before the former ones in both files, has every database seal to the new one and
/// sign its log under it, and seals all stored secrets anew. Needs a superuser's connection. Workers on
/// other hosts need the new files before their next record: until then they leave their shards to others.
#[derive(Args)]
pub struct Rotate {
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// What was done in one database.
struct Done {
    database: String,
    resealed: u64,
    unopened: u64,
}

impl KeysCommand {
    /// Does what was asked.
    ///
    /// # Errors
    /// As the command says.
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let Self::Rotate(rotate) = self;
        rotate.run(settings).await
    }
}

impl Rotate {
    async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let mut keys = Keys::load(settings)?;
        let mut clients = Vec::new();
        for target in Target::all(&settings.database_url)? {
            let client = target.connect().await?.client;
            prepare(&client, settings, &keys).await.with_context(|| target.name().to_owned())?;
            clients.push((target, client));
        }
        let mut begun = false;
        for (target, client) in &clients {
            begun |= !is_in_use(client, &keys).await.with_context(|| target.name().to_owned())?;
        }
        if begun {
            eprintln!(
                "going on with a rotation that was interrupted: the newest keys are not in use everywhere"
            );
        } else {
            let (secret, audit) = (SecretKey::generate(), audit::Key::generate());
            write(settings.secret_key_file.as_deref(), &secret.to_base64())?;
            write(settings.audit_key_file.as_deref(), &audit.to_base64())?;
            keys.secret.insert(0, secret);
            keys.audit.insert(0, audit);
        }
        let mut done = Vec::new();
        for (target, client) in &mut clients {
            let (resealed, unopened) =
                rotate(client, &keys).await.with_context(|| target.name().to_owned())?;
            done.push(Done { database: target.name().to_owned(), resealed, unopened });
        }
        self.report(&keys, &done);
        Ok(ExitCode::SUCCESS)
    }

    fn report(&self, keys: &Keys, done: &[Done]) {
        let (public, audit) = (keys.secret[0].public().to_base64(), keys.audit[0].id());
        if self.json {
            let databases: Vec<_> = done
                .iter()
                .map(|done| {
                    serde_json::json!({"database": done.database, "resealed": done.resealed, "unopened": done.unopened})
                })
                .collect();
            println!(
                "{}",
                serde_json::json!({"public_key": public, "audit_key_id": audit, "databases": databases})
            );
            return;
        }
        println!("public key   {public}");
        println!("audit key    {audit}");
        for done in done {
            println!("database     {}: {} secrets sealed anew", done.database, done.resealed);
            if done.unopened > 0 {
                println!(
                    "             {} secrets open with none of the keys: write them again",
                    done.unopened
                );
            }
        }
        println!(
            "\nKeep a copy of both files where the database is not; workers on other hosts need them, too."
        );
    }
}

fn write(path: Option<&Path>, key: &str) -> anyhow::Result<()> {
    keys::prepend(path.context("a key file is not set")?, key)
}

async fn prepare(client: &Client, settings: &Settings, keys: &Keys) -> anyhow::Result<()> {
    deployment::check(client, settings.deployment_id.as_deref(), keys).await?;
    let row = client
        .query_one("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user", &[])
        .await
        .map_err(describe)?;
    if !row.try_get::<_, bool>(0)? {
        bail!("the key that secrets are sealed to is a superuser's to set: name one in --database-url");
    }
    Ok(())
}

/// Whether the newest keys are those in use: no rotation is under way.
async fn is_in_use(client: &Client, keys: &Keys) -> anyhow::Result<bool> {
    let row = client
        .query_one(
            "SELECT d.public_key, h.key_id FROM klaxon.deployment AS d LEFT JOIN klaxon.audit_head AS h ON true",
            &[],
        )
        .await
        .map_err(describe)?;
    let (public, key_id): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    let newest = keys.audit.first().context("no audit key")?.id();
    Ok(keys.secret.first().is_some_and(|key| key.public().to_base64() == public)
        && key_id.is_none_or(|id| id == newest))
}

/// Brings one database to the newest keys. Says how many secrets were sealed anew, and how many open
/// with none.
async fn rotate(client: &mut Client, keys: &Keys) -> anyhow::Result<(u64, u64)> {
    sign_anew(client, &keys.audit).await?;
    let newest = keys.secret.first().context("no secret key")?;
    let public = newest.public();
    client.execute("SELECT klaxon.set_public_key($1)", &[&public.to_base64()]).await.map_err(describe)?;
    let mut resealed = 0;
    // Again until nothing is left: a transaction that had read the former key may commit meanwhile.
    loop {
        let (again, unopened) = seal_anew(client, &keys.secret, &public).await?;
        resealed += again;
        if again == 0 {
            return Ok((resealed, unopened));
        }
    }
}

/// A record, under the key in use, that the next is under the newest.
async fn sign_anew(client: &mut Client, keys: &[audit::Key]) -> anyhow::Result<()> {
    let newest = keys.first().context("no audit key")?;
    let transaction = client.transaction().await.map_err(describe)?;
    let mut head = Head::lock(&transaction).await?;
    let in_use = match &head.key_id {
        // No row yet that a key has signed.
        None => newest,
        Some(id) => keys
            .iter()
            .find(|key| key.id() == *id)
            .with_context(|| format!("the log is under key {id}, which is not in audit-key-file"))?,
    };
    if in_use.id() != newest.id() {
        let detail = serde_json::json!({"key_id": newest.id()}).to_string();
        head.append(&transaction, (in_use, newest), None, "rotation", &[detail]).await?;
    } else if head.key_id.is_none() {
        transaction
            .execute("UPDATE klaxon.audit_head SET key_id = $1", &[&newest.id()])
            .await
            .map_err(describe)?;
    }
    transaction.commit().await.map_err(describe)?;
    Ok(())
}

/// Seals to `public` what is sealed to another key of ours; only where it is still what was read.
async fn seal_anew(client: &Client, keys: &[SecretKey], public: &PublicKey) -> anyhow::Result<(u64, u64)> {
    let newest = &keys[..1];
    let (mut resealed, mut unopened) = (0, 0);
    let rows = client
        .query("SELECT channel_id, field, sealed FROM klaxon.channel_secret ORDER BY channel_id, field", &[])
        .await
        .map_err(describe)?;
    for row in rows {
        let (channel, field, sealed): (i64, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if seal::open(newest, &sealed).is_ok() {
            continue;
        }
        let Ok(plaintext) = seal::open(keys, &sealed) else {
            unopened += 1;
            continue;
        };
        resealed += client
            .execute(
                "UPDATE klaxon.channel_secret SET sealed = $1 WHERE channel_id = $2 AND field = $3 AND sealed = $4",
                &[&seal::seal(public, &plaintext), &channel, &field, &sealed],
            )
            .await
            .map_err(describe)?;
    }
    Ok((resealed, unopened))
}
