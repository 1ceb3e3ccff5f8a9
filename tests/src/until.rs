//! Waiting for a condition that only SQL can answer. Postgres offers no signal for "a row was
//! written by somebody", so this asks again; everything else in the tests waits for a signal.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::Client;

use crate::limit::{PATIENCE, within_time};

/// How often the condition is asked.
const PERIOD: Duration = Duration::from_millis(50);

/// Returns once `condition`, an SQL expression, is true.
///
/// # Panics
/// After [`PATIENCE`], or when the expression fails.
pub async fn until(client: &Client, condition: &str) {
    until_within(PATIENCE, client, condition).await;
}

/// As [`until`], for what is known to take long.
///
/// # Panics
/// After `limit`, or when the expression fails.
pub async fn until_within(limit: Duration, client: &Client, condition: &str) {
    let query = client
        .prepare(&format!("SELECT coalesce(({condition}), false)"))
        .await
        .expect("the condition parses");
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    within_time(limit, condition, async {
        loop {
            ticks.tick().await;
            if client.query_one(&query, &[]).await.expect("the condition runs").get(0) {
                return;
            }
        }
    })
    .await;
}
