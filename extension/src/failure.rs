//! Errors as users see them: an SQLSTATE, what is wrong, and a hint at what is right.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Raises an error in the statement that is running.
pub fn raise(code: PgSqlErrorCode, message: String, detail: Option<String>, hint: &str) -> ! {
    let mut report = ErrorReport::new(code, message, "");
    if let Some(detail) = detail {
        report = report.set_detail(detail);
    }
    if !hint.is_empty() {
        report = report.set_hint(hint);
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("an error does not return")
}

/// A value that cannot be: `22023`.
pub fn invalid(message: String, hint: &str) -> ! {
    raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, None, hint)
}

/// What Postgres refused of this library's own statements: `XX000`. Nobody who only uses it can have caused it.
pub fn internal(error: impl std::fmt::Display) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!("pg_klaxon: {error}"),
        None,
        "The schema may have been changed by hand: \"klaxon doctor\" compares versions. Otherwise it is a bug; please report it.",
    )
}
