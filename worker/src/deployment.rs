//! Which deployment a database belongs to: a copy of it in another place must not page anyone.

use anyhow::{Context as _, bail};
use klaxon_model::version::{self, Behind};
use tokio_postgres::{Client, GenericClient, Transaction};
use uuid::Uuid;

use crate::database::describe;
use crate::keys::Keys;

/// A key that the deployment uses and the key files do not have.
#[derive(Debug, thiserror::Error)]
pub enum MissingKey {
    /// Secrets would not open.
    #[error(
        "the database seals secrets to public key {public}, which none of the secret-key-file's keys opens: \
         restore that file, or run \"SELECT klaxon.set_public_key('{own}')\" as a superuser and write every secret again"
    )]
    Secret {
        /// The key that is sealed to.
        public: String,
        /// The newest of the file.
        own: String,
    },
    /// The log could not be continued, so that nothing that is sent could be settled.
    #[error(
        "the audit log is under key {id}, which audit-key-file does not have (its newest is {own}): \
         restore that file, or copy both key files from where \"klaxon keys rotate\" was called"
    )]
    Audit {
        /// The key that the log's next record must be under.
        id: String,
        /// The newest of the file.
        own: String,
    },
}

/// What the database says of itself; none before `klaxon init`.
#[derive(Clone, Debug, Default)]
pub struct Deployment {
    /// The deployment's id.
    pub id: Option<String>,
    /// The key that secrets are sealed to.
    pub public_key: Option<String>,
    /// The schema's version.
    pub schema: String,
}

impl Deployment {
    /// Whether the database is that deployment's.
    #[must_use]
    pub fn is(&self, id: &str) -> bool {
        self.id.as_deref().is_some_and(|found| found.eq_ignore_ascii_case(id))
    }
}

/// Reads it.
///
/// # Errors
/// Where the extension is not installed, or is more than a minor version from this worker's.
pub async fn read(client: &Client) -> anyhow::Result<Deployment> {
    let version = client
        .query_opt("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_klaxon'", &[])
        .await
        .map_err(describe)?;
    let Some(version) = version else {
        bail!("the database has no pg_klaxon: run \"CREATE EXTENSION pg_klaxon\" in it as a superuser");
    };
    let schema: String = version.try_get(0)?;
    let worker = env!("CARGO_PKG_VERSION");
    match version::behind(worker, &schema) {
        None => {}
        Some(Behind::Schema) => bail!(
            "the database has pg_klaxon {schema} and this worker is {worker}, which may be one minor version ahead: \
             run \"ALTER EXTENSION pg_klaxon UPDATE\" there"
        ),
        Some(Behind::Ours) => bail!(
            "the database has pg_klaxon {schema} and this worker is {worker}, which may be one minor version behind: \
             run the worker of that version"
        ),
    }
    let row = client
        .query_opt("SELECT id::text, public_key FROM klaxon.deployment", &[])
        .await
        .map_err(describe)?;
    Ok(match row {
        None => Deployment { schema, ..Deployment::default() },
        Some(row) => Deployment { id: row.try_get(0)?, public_key: row.try_get(1)?, schema },
    })
}

/// Refuses a database that is another deployment's, or whose secrets are sealed to another key, or whose log is under
/// another. Returns what it says of itself.
///
/// # Errors
/// What differs, and what to run; a [`MissingKey`] where it is a key.
pub async fn check(client: &Client, id: Option<&str>, keys: &Keys) -> anyhow::Result<Deployment> {
    let found = read(client).await?;
    let id = id.context("deployment-id is not set: \"klaxon init\" writes it")?;
    match found.id.as_deref() {
        None => bail!("the database belongs to no deployment yet: run \"klaxon init\""),
        Some(other) if !found.is(id) => bail!(
            "the database belongs to deployment {other}, not to {id}: it may be a copy, and a copy must not page anyone; \
             run \"klaxon adopt\" to make it this deployment's own, which drops what it has pending"
        ),
        Some(_) => {}
    }
    let public = found.public_key.as_deref().unwrap_or_default();
    if !keys.secret.iter().any(|key| key.public().to_base64() == public) {
        let own = keys.secret.first().map(|key| key.public().to_base64()).unwrap_or_default();
        bail!(MissingKey::Secret { public: public.to_owned(), own });
    }
    let head = client.query_opt("SELECT key_id FROM klaxon.audit_head", &[]).await.map_err(describe)?;
    let Some(head) = head else {
        bail!(
            "the audit log has no head: restore klaxon.audit_head; \"klaxon audit verify\" says how the log stands"
        );
    };
    // None before the first record.
    let in_use: Option<String> = head.try_get(0)?;
    if let Some(id) = in_use.filter(|id| keys.audit.iter().all(|key| key.id() != id)) {
        let own = keys.audit.first().map(|key| key.id().to_owned()).unwrap_or_default();
        bail!(MissingKey::Audit { id, own });
    }
    Ok(found)
}

/// Makes the database a deployment's, where it still is `former`'s, and begins its audit log.
///
/// # Errors
/// Where the role is no superuser, or somebody else was quicker.
pub async fn claim(
    transaction: &Transaction<'_>,
    former: Option<&str>,
    id: &str,
    public_key: &str,
) -> anyhow::Result<()> {
    transaction.execute("SELECT klaxon.set_public_key($1)", &[&public_key]).await.map_err(describe)?;
    let claimed = transaction
        .execute(
            "UPDATE klaxon.deployment SET id = $1::text::uuid WHERE id IS NOT DISTINCT FROM $2::text::uuid",
            &[&id, &former],
        )
        .await
        .map_err(describe)?;
    if claimed != 1 {
        bail!(
            "somebody else was quicker: the database belongs to a deployment already; run \"klaxon adopt\" if it is a copy"
        );
    }
    transaction
        .execute(
            "INSERT INTO klaxon.audit_head (chain) SELECT pg_catalog.gen_random_uuid() WHERE NOT EXISTS (SELECT FROM klaxon.audit_head)",
            &[],
        )
        .await
        .map_err(describe)?;
    Ok(())
}

/// What a deployment leaves behind in a database that is taken over.
#[derive(Debug)]
pub struct Estate {
    /// Deliveries and digest items that were pending.
    pub pending: i64,
    /// Channels' secrets, sealed.
    pub secrets: Vec<String>,
    workers: Vec<Uuid>,
}

/// What there is to drop.
const ESTATE: &str = "
    SELECT (SELECT pg_catalog.count(*) FROM klaxon.outbox) + (SELECT pg_catalog.count(*) FROM klaxon.digest_item),
           ARRAY(SELECT sealed FROM klaxon.channel_secret),
           ARRAY(SELECT id FROM klaxon.worker)";

/// Ends the sessions of workers, by the rule of `sql/fence.sql`: a copy's rows name process ids of
/// another server.
const END: &str = "
    WITH gone AS (DELETE FROM klaxon.worker WHERE id = ANY ($1) RETURNING pid, started_at)
    SELECT pg_catalog.count(*) FILTER (WHERE pg_catalog.pg_terminate_backend(a.pid))
    FROM gone AS g
    JOIN pg_catalog.pg_stat_activity AS a
      ON a.pid = g.pid AND a.backend_start <= g.started_at AND a.datname = pg_catalog.current_database()
     AND a.application_name LIKE 'klaxon%' AND a.pid <> pg_catalog.pg_backend_pid()";

impl Estate {
    /// Looks at what there is.
    ///
    /// # Errors
    /// Where the role may not.
    pub async fn read(client: &impl GenericClient) -> anyhow::Result<Self> {
        let row = client.query_one(ESTATE, &[]).await.map_err(describe)?;
        Ok(Self { pending: row.try_get(0)?, secrets: row.try_get(1)?, workers: row.try_get(2)? })
    }

    /// Drops what is pending; dead letters stay. Says what it was.
    ///
    /// # Errors
    /// Where the role may not, or somebody holds the tables for too long.
    pub async fn drop_pending(transaction: &Transaction<'_>) -> anyhow::Result<Self> {
        // Nothing may be added to what is about to be dropped.
        transaction
            .batch_execute("LOCK TABLE klaxon.outbox, klaxon.digest_item IN EXCLUSIVE MODE")
            .await
            .map_err(describe)?;
        let estate = Self::read(transaction).await?;
        transaction
            .batch_execute("DELETE FROM klaxon.outbox; DELETE FROM klaxon.digest_item")
            .await
            .map_err(describe)?;
        Ok(estate)
    }

    /// Ends the former deployment's workers. Only after the commit: they connect again, and are
    /// refused by what was committed.
    ///
    /// # Errors
    /// Where the role may not.
    pub async fn end_workers(&self, client: &impl GenericClient) -> anyhow::Result<()> {
        client.query_one(END, &[&self.workers]).await.map_err(describe)?;
        Ok(())
    }
}
