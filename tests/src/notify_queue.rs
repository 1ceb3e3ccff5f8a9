//! Postgres' queue of notifications, full.

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_postgres::{Client, Notification};

use crate::database::Database;
use crate::postgres::Postgres;

/// Pages of the queue of a cluster that [`FullQueue`] is for.
pub const PAGES: (&str, &str) = ("max_notify_queue_pages", "64");

/// Whether the Postgres under test lets its queue be small; before 17 it is of 8 GB.
///
/// # Panics
/// When there is no Postgres to be tested.
pub fn can_be_small() -> bool {
    Postgres::under_test().and_then(|postgres| postgres.major()).expect("Postgres says its version") >= 17
}

/// A session that listens and stays in a transaction: whoever notifies is refused.
pub struct FullQueue {
    session: Client,
    _notifications: UnboundedReceiver<Notification>,
}

impl FullQueue {
    /// Fills it.
    ///
    /// # Panics
    /// When a session ends.
    pub async fn fill(database: &Database<'_>) -> Self {
        let (session, notifications) = database.listen("anything").await;
        session.batch_execute("BEGIN; SELECT 1").await.expect("a transaction begins");
        let flood = database.connect().await;
        for bytes in [7_000, 0] {
            let notify = format!(
                "SELECT pg_notify('anything', n || repeat('x', {bytes})) FROM generate_series(1, 10) AS n"
            );
            while flood.batch_execute(&notify).await.is_ok() {}
        }
        Self { session, _notifications: notifications }
    }

    /// The session ends its transaction and reads on. Nobody has to make room for that.
    ///
    /// # Panics
    /// When it has ended.
    pub async fn let_go(&self) {
        self.session.batch_execute("COMMIT").await.expect("the transaction ends");
    }
}
