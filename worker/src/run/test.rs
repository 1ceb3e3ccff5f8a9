//! Tests of configurations that are not saved: taken, made and answered beside the deliveries.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use klaxon_channel::kind::Kind;
use serde_json::value::RawValue;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use crate::channel::{Answer, Channel, Courier, Delivery, Verdict};
use crate::clock::DbTime;
use crate::directory;
use crate::keyring::Keyring;
use crate::statement::Statements;

/// A test, and what came of it; `None` where making it panicked.
pub type Tested = (Uuid, Option<Answer>);

/// Takes the tests that wait.
///
/// # Errors
///
/// Where the session breaks.
pub async fn take(
    client: &Client,
    statements: &Statements,
    keyring: &Keyring,
) -> Result<Vec<(Uuid, Channel)>, Error> {
    let rows = client.query(&statements.take_tests, &[]).await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, channel(row, keyring)?))).collect()
}

fn channel(row: &Row, keyring: &Keyring) -> Result<Channel, Error> {
    let (fields, sealed): (Vec<String>, Vec<String>) = (row.try_get("fields")?, row.try_get("sealed")?);
    let sealed: BTreeMap<String, String> = fields.into_iter().zip(sealed).collect();
    let (kind, config): (String, String) = (row.try_get("kind")?, row.try_get("config")?);
    let kind: Kind = kind.parse().unwrap_or(Kind::Webhook);
    let settings = keyring.open(|keys| directory::open(0, kind, &config, &sealed, keys));
    Ok(Channel { id: 0, name: "test".into(), settings })
}

/// Makes it.
pub async fn make(courier: Arc<Courier>, test: Uuid, channel: Channel, now: DbTime) -> Tested {
    let delivery = delivery(now.unix_micros());
    (test, AssertUnwindSafe(courier.deliver(&channel, &delivery)).catch_unwind().await.ok())
}

/// The canned message.
pub fn delivery(now: i64) -> Delivery {
    Delivery {
        id: Uuid::new_v4(),
        event_id: Some(Uuid::new_v4()),
        event_type: "test.dispatch".into(),
        severity: None,
        resolves: None,
        project: None,
        attempt: 1,
        occurred_at: now,
        made_at: now,
        payload: RawValue::from_string(r#"{"channel": "test"}"#.into()).expect("it is JSON"),
        held_back: 0,
        held_for: None,
        traceparent: None,
    }
}

/// Says what came of it.
///
/// # Errors
///
/// Where the session breaks.
pub async fn answer(client: &Client, statements: &Statements, (test, answer): Tested) -> Result<(), Error> {
    let answer = answer.unwrap_or_else(|| Answer {
        verdict: Verdict::Retry { after: None },
        code: None,
        error: Some("internal error".to_owned()),
        body: None,
    });
    let success = answer.verdict == Verdict::Sent;
    client
        .execute(&statements.answer_test, &[&test, &success, &answer.code, &answer.error, &answer.body])
        .await?;
    Ok(())
}
