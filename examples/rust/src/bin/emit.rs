//! Emits with sqlx, in the transaction of the row that it is about.
//!
//! DATABASE_URL=postgres://app@localhost/app cargo run --bin emit run-1

use serde_json::json;
use sqlx::{Connection as _, PgConnection};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let run_id = std::env::args().nth(1).ok_or("which run?")?;
    let mut connection = PgConnection::connect(&std::env::var("DATABASE_URL")?).await?;

    let mut transaction = connection.begin().await?;
    sqlx::query("INSERT INTO run (id, status) VALUES ($1, 'failed')")
        .bind(&run_id)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("SELECT klaxon.notify_event('run.failed', $1)")
        .bind(json!({ "run_id": run_id }))
        .execute(&mut *transaction)
        .await?;
    if run_id.ends_with("broken") {
        // The transaction rolls back where it is dropped.
        return Err("something else went wrong: nobody is told anything".into());
    }
    transaction.commit().await?;
    Ok(())
}
