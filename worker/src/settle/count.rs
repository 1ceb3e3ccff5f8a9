//! Counting attempts before they are made.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::{Client, Error};
use uuid::Uuid;

use super::batch::microseconds;
use crate::clock::DbTime;
use crate::schedule::INTERRUPTED;
use crate::statement::Statements;

/// An attempt that is about to be made, at a row as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Intent {
    /// The delivery.
    pub id: Uuid,
    /// Where it goes.
    pub channel_id: i64,
    /// When it was due.
    pub due_at: DbTime,
    /// Attempts before this one.
    pub attempts: i32,
    /// When it is to be tried again if the worker ends; zero for the last attempt, since the next owner need
    /// not wait to give it up.
    pub delay: Duration,
}

/// Counts these attempts, committed. Returns when those are due again whose row was as it was read.
///
/// # Errors
///
/// Where Postgres refuses, or the session breaks: the attempts may have been counted all the same.
pub async fn count(
    client: &Client,
    statements: &Statements,
    intents: &[Intent],
) -> Result<HashMap<Uuid, DbTime>, Error> {
    let ids: Vec<Uuid> = intents.iter().map(|intent| intent.id).collect();
    let channels: Vec<i64> = intents.iter().map(|intent| intent.channel_id).collect();
    let due: Vec<DbTime> = intents.iter().map(|intent| intent.due_at).collect();
    let attempts: Vec<i32> = intents.iter().map(|intent| intent.attempts).collect();
    let delays: Vec<i64> = intents.iter().map(|intent| microseconds(intent.delay)).collect();
    let counted =
        client.query(&statements.count, &[&ids, &channels, &due, &attempts, &delays, &INTERRUPTED]).await?;
    counted.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
