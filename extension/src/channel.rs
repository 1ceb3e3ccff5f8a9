//! Channels' secrets on their way out of the row.
//!
//! A secret must never reach the table, nor be lost by `INSERT … ON CONFLICT DO UPDATE`, where the
//! proposed row that BEFORE INSERT has already masked is what BEFORE UPDATE sees. So the BEFORE
//! triggers put secrets aside in this backend's memory, by the row's id and for one statement only,
//! and the AFTER trigger, which runs for the row that was really written, seals them. The row that
//! a conflict updates has another id than the proposed one; it finds it by scope and name.

use std::cell::RefCell;
use std::collections::HashMap;

use klaxon_channel::config::{ConfigError, Given, Rules, SecretField, check};
use klaxon_channel::kind::{Kind, UnknownKind};
use klaxon_model::seal::{Plaintext, PublicKey, seal};
use pgrx::prelude::*;
use pgrx::{AllocatedByRust, JsonB};
use serde_json::Value;

use crate::failure;
use crate::identity::{as_owner, principal};
use crate::jsonb::JsonbText;
use crate::schema;
use crate::setting::ALLOW_HTTP;
use crate::subtransaction::attempt;

type Scope = (String, Option<String>, Option<String>);
type Outcome<'a> = Result<Option<PgHeapTuple<'a, AllocatedByRust>>, PgTriggerError>;

/// A secret put aside: what was given, or that what is stored stays.
struct Aside {
    field: String,
    given: Given,
    destination: Option<String>,
}

/// What the rows of one statement brought.
#[derive(Default)]
struct Statement {
    by_id: HashMap<i64, Vec<Aside>>,
    /// The last row proposed with this scope and name.
    proposed: HashMap<Scope, i64>,
}

thread_local! {
    static ASIDE: RefCell<Statement> = RefCell::default();
}

/// BEFORE INSERT OR UPDATE, once a statement: forgets what an earlier statement left.
#[pg_trigger]
pub fn begin_channels<'a>(_trigger: &'a PgTrigger<'a>) -> Outcome<'a> {
    ASIDE.take();
    schema::check();
    Ok(None)
}

/// BEFORE INSERT OR UPDATE, each row: validates the config and takes the secrets out of it.
#[pg_trigger]
pub fn mask_channel<'a>(trigger: &'a PgTrigger<'a>) -> Outcome<'a> {
    let Some(new) = trigger.new() else { return Ok(None) };
    let mut row = new.into_owned();
    let old = trigger.old();
    if old.is_none() && is_restored(&row) {
        return Ok(Some(row));
    }
    let kind = kind_of(&row);
    let text = config_text(&row);
    let config: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        failure::invalid(format!("channel config: {error}"), "It is a flat JSON object.")
    });
    let rules = Rules { allow_http: ALLOW_HTTP.get(), needs_smtp_host: false };
    let checked = check(kind, &config, &rules).unwrap_or_else(|error| refuse_config(kind, &error));

    let mut secrets: Vec<Aside> = checked
        .secrets
        .into_iter()
        .map(|SecretField { name, value }| Aside {
            field: name,
            given: value,
            destination: checked.destination.clone(),
        })
        .collect();
    let (id, scope) = (id_of(&row), scope_of(&row));
    if let Some(old) = &old {
        let proposed = ASIDE.with_borrow_mut(|aside| {
            let proposed = aside.proposed.remove(&scope)?;
            aside.by_id.remove(&proposed)
        });
        secrets = secrets.into_iter().map(|secret| resolve(secret, proposed.as_deref(), old, kind)).collect();
    }
    ASIDE.with_borrow_mut(|aside| {
        if old.is_none() {
            aside.proposed.insert(scope, id);
        }
        aside.by_id.insert(id, secrets);
    });
    row.set_by_name("config", JsonB(checked.stored)).unwrap_or_else(|error| failure::internal(error));
    Ok(Some(row))
}

/// A masked field of an UPDATE keeps what is stored, or takes what the proposed row of the same
/// `INSERT … ON CONFLICT` brought; not if it would then be sent somewhere else.
fn resolve(
    secret: Aside,
    proposed: Option<&[Aside]>,
    old: &PgHeapTuple<'_, pgrx::AllocatedByPostgres>,
    kind: Kind,
) -> Aside {
    if !matches!(secret.given, Given::Keep) {
        return secret;
    }
    if let Some(brought) = proposed.into_iter().flatten().find(|p| p.field == secret.field)
        && !matches!(brought.given, Given::Keep)
    {
        return Aside { given: brought.given.clone(), ..secret };
    }
    let id = id_of(old);
    let same_kind = old.get_by_name::<&str>("kind").ok().flatten() == Some(kind.as_str());
    match stored_destination(id, &secret.field).filter(|_| same_kind) {
        None => failure::invalid(
            format!("config field \"{}\": there is no stored secret to keep", secret.field),
            "Give the secret itself, or leave the field out.",
        ),
        Some(stored) if stored.is_some() && secret.destination.is_some() && stored != secret.destination => {
            failure::invalid(
                format!(
                    "config field \"{}\": a secret is not kept while where it is sent to changes",
                    secret.field
                ),
                "Give the secret again together with the new destination.",
            )
        }
        Some(_) => secret,
    }
}

/// AFTER INSERT OR UPDATE, each row: seals what was put aside and drops what the config no longer has.
#[pg_trigger]
pub fn seal_channel<'a>(trigger: &'a PgTrigger<'a>) -> Outcome<'a> {
    let Some(row) = trigger.new() else { return Ok(None) };
    if trigger.old().is_none() && is_restored(&row) {
        return Ok(None);
    }
    let id = id_of(&row);
    let secrets = ASIDE.with_borrow_mut(|aside| aside.by_id.remove(&id)).unwrap_or_default();
    let fields: Vec<String> = secrets.iter().map(|secret| secret.field.clone()).collect();
    let outcome = Spi::connect_mut(|client| -> spi::Result<()> {
        client.update(
            "DELETE FROM klaxon.channel_secret WHERE channel_id OPERATOR(pg_catalog.=) $1
             AND NOT field OPERATOR(pg_catalog.=) ANY ($2)",
            None,
            &[id.into(), fields.into()],
        )?;
        for secret in secrets {
            let Some(sealed) = sealed(Some(id), &secret) else {
                if trigger.old().is_none() {
                    failure::invalid(
                        format!(
                            "config field \"{}\": a new channel has no stored secret to keep",
                            secret.field
                        ),
                        "Give the secret itself, or what klaxon seal prints.",
                    )
                }
                continue;
            };
            client.update(
                "INSERT INTO klaxon.channel_secret (channel_id, field, sealed, destination) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (channel_id, field) DO UPDATE
                 SET sealed = EXCLUDED.sealed, destination = EXCLUDED.destination, updated_at = pg_catalog.clock_timestamp()",
                None,
                &[id.into(), secret.field.into(), sealed.into(), secret.destination.into()],
            )?;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(None),
        Err(error) => failure::internal(error),
    }
}

/// Has a configuration tested that is not saved; returns the test's id.
#[pg_extern(volatile)]
pub fn request_config_test(kind: Option<&str>, config: Option<JsonbText>) -> pgrx::Uuid {
    let (Some(kind), Some(JsonbText(text))) = (kind, config) else {
        failure::raise(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            "kind or config is null".into(),
            None,
            "Give both.",
        )
    };
    let kind = parse_kind(kind);
    let config: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        failure::invalid(format!("channel config: {error}"), "It is a flat JSON object.")
    });
    let rules = Rules { allow_http: ALLOW_HTTP.get(), needs_smtp_host: false };
    let checked = check(kind, &config, &rules).unwrap_or_else(|error| refuse_config(kind, &error));
    let by = principal();
    let created = attempt(|| {
        as_owner(|| {
            let (mut fields, mut values) = (Vec::new(), Vec::new());
            for SecretField { name, value } in checked.secrets {
                let secret = Aside { field: name, given: value, destination: checked.destination.clone() };
                let Some(sealed) = sealed(None, &secret) else {
                    failure::invalid(
                        format!("config field \"{}\": there is no stored secret to keep", secret.field),
                        "Give the secret itself, or what klaxon seal prints.",
                    )
                };
                fields.push(secret.field);
                values.push(sealed);
            }
            Spi::get_one_with_args::<pgrx::Uuid>(
                "SELECT klaxon.create_config_test($1, $2, $3, $4, $5)",
                &[
                    kind.as_str().into(),
                    JsonB(checked.stored).into(),
                    fields.into(),
                    values.into(),
                    by.as_str().into(),
                ],
            )
        })
    });
    created
        .unwrap_or_else(|caught| caught.raise())
        .ok()
        .flatten()
        .unwrap_or_else(|| failure::internal("the test was not written"))
}

/// What the column `kind` may hold.
#[pg_extern(immutable, strict, parallel_safe)]
pub fn is_channel_kind(kind: &str) -> bool {
    kind.parse::<Kind>().is_ok()
}

/// Whether messages carry a text as a link.
#[pg_extern(immutable, strict, parallel_safe)]
pub fn is_link(text: &str) -> bool {
    klaxon_channel::text::link(text).is_some()
}

/// What the column `config` may hold, triggers off or not.
#[pg_extern(immutable, strict, parallel_safe)]
pub fn holds_no_secret(config: JsonbText) -> bool {
    serde_json::from_str(&config.0).is_ok_and(|config| klaxon_channel::config::holds_no_secret(&config))
}

fn sealed(channel: Option<i64>, secret: &Aside) -> Option<String> {
    match &secret.given {
        Given::Keep => None,
        Given::Sealed(sealed) => Some(sealed.clone()),
        Given::Clear(value) => Some(seal(
            &public_key(),
            &Plaintext {
                v: 1,
                channel,
                destination: secret.destination.clone(),
                field: secret.field.clone(),
                value: value.as_str().into(),
            },
        )),
    }
}

fn public_key() -> PublicKey {
    let key = Spi::get_one::<String>("SELECT public_key FROM klaxon.deployment").ok().flatten();
    match key.map(|key| PublicKey::from_base64(&key)) {
        Some(Ok(key)) => key,
        Some(Err(error)) => failure::raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the public key in klaxon.deployment is not one: {error}"),
            None,
            "Run \"klaxon keys rotate\", or set it by klaxon.set_public_key().",
        ),
        None => failure::raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "there is no public key to seal a secret to".into(),
            Some("Secrets are stored sealed, so that only the worker can open them.".into()),
            "Run \"klaxon init\" once for this database.",
        ),
    }
}

/// Raises where a text is not a public key that a secret may be sealed to.
#[pg_extern(immutable, strict)]
pub fn check_public_key(key: &str) -> bool {
    match PublicKey::from_base64(key) {
        Ok(_) => true,
        Err(error) => failure::invalid(
            format!("not a public key: {error}"),
            "It is what \"klaxon init\" prints: 32 bytes in base64.",
        ),
    }
}

/// `Some(destination)` where the channel has such a secret.
fn stored_destination(channel: i64, field: &str) -> Option<Option<String>> {
    Spi::connect(|client| {
        let rows = client
            .select(
                "SELECT destination FROM klaxon.channel_secret
                 WHERE channel_id OPERATOR(pg_catalog.=) $1 AND field OPERATOR(pg_catalog.=) $2",
                Some(1),
                &[channel.into(), field.into()],
            )
            .ok()?;
        let mut found = rows.map(|row| row.get::<String>(1).ok().flatten());
        found.next()
    })
}

/// A row of a dump: everything that can be secret is masked already, and sealed elsewhere.
#[allow(unsafe_code)]
pub fn is_restored<A: pgrx::WhoAllocated>(row: &PgHeapTuple<'_, A>) -> bool {
    let created = row.get_by_name::<pgrx::datum::TimestampWithTimeZone>("created_at").ok().flatten();
    // SAFETY: reads this backend's state.
    let transaction = unsafe { pg_sys::GetCurrentTransactionStartTimestamp() };
    created.is_some_and(|created| i64::from(created) != transaction)
}

fn id_of<A: pgrx::WhoAllocated>(row: &PgHeapTuple<'_, A>) -> i64 {
    row.get_by_name::<i64>("id").ok().flatten().unwrap_or_default()
}

fn scope_of<A: pgrx::WhoAllocated>(row: &PgHeapTuple<'_, A>) -> Scope {
    let text = |name| row.get_by_name::<String>(name).ok().flatten();
    (text("name").unwrap_or_default(), text("project"), text("owner"))
}

fn kind_of<A: pgrx::WhoAllocated>(row: &PgHeapTuple<'_, A>) -> Kind {
    parse_kind(&row.get_by_name::<String>("kind").ok().flatten().unwrap_or_default())
}

fn parse_kind(kind: &str) -> Kind {
    kind.parse().unwrap_or_else(|error: UnknownKind| {
        failure::invalid(error.to_string(), "See the table of channels in the documentation.")
    })
}

fn config_text<A: pgrx::WhoAllocated>(row: &PgHeapTuple<'_, A>) -> String {
    match row.get_by_name::<JsonbText>("config").ok().flatten() {
        Some(JsonbText(text)) => text,
        None => failure::raise(
            PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
            "channel config is null".into(),
            None,
            "A channel without fields of its own still has '{}'.",
        ),
    }
}

fn refuse_config(kind: Kind, error: &ConfigError) -> ! {
    failure::raise(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        error.to_string(),
        Some(format!("The channel is of kind \"{}\".", kind.as_str())),
        &error.hint,
    )
}
