//! The filter `where`: a jsonpath predicate, parsed and evaluated by Postgres.

use std::ffi::CString;

use pgrx::memcxt::PgMemoryContexts;
use pgrx::prelude::*;

/// A parsed jsonpath that outlives the transaction.
pub struct Predicate {
    path: pg_sys::Datum,
    memory: PgMemoryContexts,
}

/// What evaluating a predicate gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    /// The path raised an error, or is no predicate for this payload.
    Unknown,
}

impl Predicate {
    /// Parses a path.
    ///
    /// # Errors
    /// What Postgres says is wrong with it.
    pub fn parse(path: &str) -> Result<Self, String> {
        let text = CString::new(path).map_err(|_| "it contains a NUL".to_owned())?;
        // A child of the top context: the path outlives the statement that compiled it.
        let mut memory = top_context();
        let parsed = PgTryBuilder::new(std::panic::AssertUnwindSafe(|| Ok(parse_in(&mut memory, &text))))
            .catch_others(|error| match error {
                pg_sys::panic::CaughtError::PostgresError(report)
                | pg_sys::panic::CaughtError::ErrorReport(report) => Err(report.message().to_owned()),
                panic @ pg_sys::panic::CaughtError::RustPanic { .. } => panic.rethrow(),
            })
            .execute()?;
        Ok(Self { path: parsed, memory })
    }

    /// Evaluates the path on a jsonb datum, errors suppressed as by the operator `@@`.
    #[allow(unsafe_code)]
    pub fn holds(&self, payload: pg_sys::Datum) -> Truth {
        debug_assert!(!self.memory.value().is_null());
        // SAFETY: the path lies in our own memory context; with `silent` an error of evaluation is
        // a null result, so nothing unwinds out of the middle of it.
        let holds = unsafe {
            pgrx::direct_function_call::<bool>(
                pg_sys::jsonb_path_match_opr,
                &[Some(payload), Some(self.path)],
            )
        };
        match holds {
            Some(true) => Truth::True,
            Some(false) => Truth::False,
            None => Truth::Unknown,
        }
    }
}

#[allow(unsafe_code)]
fn top_context() -> PgMemoryContexts {
    // SAFETY: a new context becomes a child of the current one, which is put back afterwards.
    unsafe { PgMemoryContexts::TopMemoryContext.switch_to(|_| PgMemoryContexts::new("klaxon jsonpath")) }
}

#[allow(unsafe_code)]
fn parse_in(memory: &mut PgMemoryContexts, text: &CString) -> pg_sys::Datum {
    // SAFETY: jsonpath_in takes a C string and pallocs its result in the current context, ours.
    unsafe {
        memory.switch_to(|_| {
            pgrx::direct_function_call_as_datum(
                pg_sys::jsonpath_in,
                &[Some(pg_sys::Datum::from(text.as_ptr()))],
            )
            .expect("jsonpath_in returns a path")
        })
    }
}
