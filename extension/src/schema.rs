//! Whether this library goes with the database's schema.
//!
//! The files are replaced first and the schema is updated then, and a backend keeps the library that it has loaded: for
//! a while the two are of different versions. One minor apart they go together; further apart every entry is refused
//! with what to do, before anything is read that may not be there.

use std::cell::Cell;

use klaxon_model::version::{Behind, behind};
use pgrx::prelude::*;

use crate::failure;
use crate::relcache;

thread_local! {
    /// The generation in which the two were last found to go together.
    static CHECKED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Raises where they do not. Looks once a generation: every script that updates the schema counts one up.
pub fn check() {
    let generation = relcache::generation();
    if CHECKED.get() == Some(generation) {
        return;
    }
    relcache::remember_subscription();
    let schema = version().unwrap_or_default();
    if let Some(which) = behind(env!("CARGO_PKG_VERSION"), &schema) {
        refuse(&schema, which);
    }
    CHECKED.set(Some(generation));
}

/// Raises where something of the schema is not there: by the versions, if they say why.
pub fn missing(what: &str) -> ! {
    CHECKED.set(None);
    check();
    failure::internal(format!("there is no {what}"))
}

fn version() -> Option<String> {
    Spi::get_one::<String>(
        "SELECT extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_klaxon'",
    )
    .ok()
    .flatten()
}

fn refuse(schema: &str, which: Behind) -> ! {
    failure::raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "the library of pg_klaxon is {} and the schema {schema}, which do not go together",
            env!("CARGO_PKG_VERSION")
        ),
        Some("They may be one minor version apart.".into()),
        match which {
            Behind::Schema => "Run \"ALTER EXTENSION pg_klaxon UPDATE\".",
            Behind::Ours => {
                "Install the library of that version, then connect anew: a session keeps the one it has loaded. \
                 Where it is in shared_preload_libraries, restart Postgres."
            }
        },
    )
}
