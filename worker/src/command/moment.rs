//! Points in time as people give them: as Postgres reads them, or an age.

use anyhow::Context as _;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::database::describe;

/// What `text` names, as the database writes it, to the microsecond: `2026-03-01 09:00+01`, `yesterday`, or
/// an age such as `2 hours`.
///
/// # Errors
/// Postgres reads it as neither.
pub async fn read(client: &Client, flag: &str, text: &str) -> anyhow::Result<String> {
    match ask(client, "SELECT ($1::text::timestamptz)::text", text).await {
        Ok(moment) => return Ok(moment),
        Err(error) if is_unreadable(&error) => {}
        Err(error) => return Err(describe(error)),
    }
    // Seconds are what Postgres takes a mere number for; who writes a year means something else.
    let age = if text.chars().any(char::is_alphabetic) {
        match ask(client, "SELECT (now() - $1::text::interval)::text", text).await {
            Ok(moment) => Some(moment),
            Err(error) if is_unreadable(&error) => None,
            Err(error) => return Err(describe(error)),
        }
    } else {
        None
    };
    age.with_context(|| {
        format!("{flag} \"{text}\" is no time such as \"2026-03-01 09:00\", yesterday or \"2 hours\"")
    })
}

async fn ask(client: &Client, query: &str, text: &str) -> Result<String, tokio_postgres::Error> {
    client.query_one(query, &[&text]).await?.try_get(0)
}

/// Class 22 of SQLSTATE: the text is none, or out of range.
fn is_unreadable(error: &tokio_postgres::Error) -> bool {
    error.code().map(SqlState::code).is_some_and(|code| code.starts_with("22"))
}
