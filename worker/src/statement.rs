//! The owner session's statements, prepared once.

use futures_util::future::try_join_all;
use tokio_postgres::{Client, Error, Statement};

/// What the session is told first. Its statements are fixed, each has its index, and each is written so
/// that there is no second way: the planner's other ideas only ever come from statistics that are
/// behind. A transaction of ours waits for no more than a computation; one that is idle for seconds is
/// of a worker that was stopped in it, and must not keep the others from the end of the log.
pub const SETTINGS: &str = "SET search_path = pg_catalog; SET TimeZone = 'UTC'; SET jit = off; SET enable_seqscan = off; \
     SET enable_hashjoin = off; SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan; \
     SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off; \
     SET synchronous_commit = on; SET statement_timeout = '7s'; SET lock_timeout = '5s'; \
     SET idle_in_transaction_session_timeout = '2s'";

/// What Postgres said, without the detail, which may quote a row: its error displays as "db error".
pub fn reason(error: &Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => std::error::Error::source(error)
            .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
    }
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Each is the file `sql/<name>.sql`, which says why it is so.
        #[derive(Debug)]
        pub struct Statements {
            $($(#[$doc])* pub $name: Statement,)*
        }

        impl Statements {
            /// Prepares all of them, in one round trip.
            ///
            /// # Errors
            ///
            /// Where the session breaks, or the schema is not this version's.
            pub async fn prepare(client: &Client) -> Result<Self, Error> {
                let texts = [$(include_str!(concat!("sql/", stringify!($name), ".sql"))),*];
                let mut prepared = try_join_all(texts.map(|text| client.prepare(text))).await?.into_iter();
                Ok(Self {
                    $($name: prepared.next().expect("as many as there are texts"),)*
                })
            }
        }
    };
}

statements! {
    answer_test, append, channels, cooldown, count, disable, discover, event_types, fence, first_due, give_up, heartbeat, holders, leave, lock, overflow,
    passed, projects, refill, register, sent, start, take_tests, trust, unlock, unsent,
}
