//! How long a test waits for a signal before it fails, so that a lost one is an error with a
//! message, not a hang.

use std::future::Future;
use std::time::Duration;

/// Far more than anything a test waits for takes.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The future's result.
///
/// # Panics
/// After [`PATIENCE`], with `what` was waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    within_time(PATIENCE, what, future).await
}

/// As [`within`], for what is known to take long.
///
/// # Panics
/// After `limit`, with `what` was waited for.
pub async fn within_time<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s in vain for {what}", limit.as_secs()),
    }
}
