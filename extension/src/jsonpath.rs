//! The filter `where`: a jsonpath predicate, parsed and evaluated by Postgres, under a bound.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::panic::AssertUnwindSafe;

use pgrx::memcxt::PgMemoryContexts;
use pgrx::prelude::*;

use crate::deadline::{Failure, within};

/// What parsing or evaluating a path may take, in milliseconds of the processor's: far more than an honest one needs.
const BOUND_MS: i32 = 100;
/// How often a path may take longer before this session does not try it again.
const STRIKES: u32 = 3;
/// Paths of which it is known how often they took longer; all are forgotten when there are more.
const STRUCK: usize = 1_000;

thread_local! {
    /// By the path, so that it is still known when a subscription was written again.
    static STRIKES_BY_PATH: RefCell<HashMap<String, u32>> = RefCell::default();
}

/// A parsed jsonpath that outlives the transaction.
pub struct Predicate {
    path: pg_sys::Datum,
    memory: PgMemoryContexts,
    /// As it was written.
    text: String,
    strikes: Cell<u32>,
}

/// What evaluating a predicate gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    /// The path raised an error, took too long, or is no predicate for this payload.
    Unknown,
}

impl Predicate {
    /// Parses a path.
    ///
    /// # Errors
    /// What Postgres says is wrong with it, or that it names a variable: there are none.
    pub fn parse(path: &str) -> Result<Self, String> {
        let text = path.to_owned();
        let path = CString::new(path).map_err(|_| "it contains a NUL".to_owned())?;
        // A child of the top context: the path outlives the statement that compiled it.
        let mut memory = top_context();
        let parsed = within(BOUND_MS, AssertUnwindSafe(|| parse_in(&mut memory, &path)));
        let parsed = parsed.map_err(|failure| match failure {
            Failure::Raised(message) => message,
            Failure::Expired => "it takes too long".to_owned(),
        })?;
        if let Some(name) = variable(&printed(parsed)) {
            return Err(format!("there is no variable ${name}"));
        }
        let strikes = STRIKES_BY_PATH.with_borrow(|strikes| strikes.get(text.as_str()).copied());
        Ok(Self { path: parsed, memory, text, strikes: Cell::new(strikes.unwrap_or_default()) })
    }

    /// Evaluates the path on a jsonb datum, as the operator `@@` does; what that still raises (for
    /// instance a comparison of times that would need the session's time zone) is unknown too.
    #[allow(unsafe_code)]
    pub fn holds(&self, payload: pg_sys::Datum) -> Truth {
        debug_assert!(!self.memory.value().is_null());
        if self.strikes.get() >= STRIKES {
            return Truth::Unknown;
        }
        let path = self.path;
        // SAFETY: the path lies in our own memory context. The function is pure: whatever it
        // raises leaves only memory behind, which the caller's context frees.
        let holds = within(BOUND_MS, move || unsafe {
            pgrx::direct_function_call::<bool>(pg_sys::jsonb_path_match_opr, &[Some(payload), Some(path)])
        });
        match holds {
            Ok(Some(true)) => Truth::True,
            Ok(Some(false)) => Truth::False,
            Ok(None) | Err(Failure::Raised(_)) => Truth::Unknown,
            Err(Failure::Expired) => {
                self.strike();
                Truth::Unknown
            }
        }
    }

    fn strike(&self) {
        self.strikes.set(self.strikes.get() + 1);
        STRIKES_BY_PATH.with_borrow_mut(|strikes| {
            if strikes.len() >= STRUCK {
                strikes.clear();
            }
            strikes.insert(self.text.clone(), self.strikes.get());
        });
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

/// The path as Postgres prints it: one spelling for whatever was written.
#[allow(unsafe_code)]
fn printed(path: pg_sys::Datum) -> String {
    // SAFETY: the datum is a jsonpath; jsonpath_out returns a palloc'd, NUL-terminated string.
    unsafe {
        let text = pgrx::direct_function_call_as_datum(pg_sys::jsonpath_out, &[Some(path)])
            .expect("jsonpath_out returns a string");
        CStr::from_ptr(text.cast_mut_ptr()).to_string_lossy().into_owned()
    }
}

/// The first variable of a printed path. It prints as `$"name"`, and `$` prints alone everywhere
/// else but within strings.
fn variable(printed: &str) -> Option<&str> {
    let (mut in_string, mut escaped) = (false, false);
    for (at, c) in printed.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '$' if !in_string => {
                if let Some(name) = printed[at + 1..].strip_prefix('"') {
                    return Some(name.split('"').next().unwrap_or(name));
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod variables {
    use super::variable;

    #[test]
    fn are_found_outside_strings_only() {
        for (printed, expected) in [
            (r#"($."amount" > 100)"#, None),
            (r#"($."a" > $"limit")"#, Some("limit")),
            (r#"($."a" == "costs $\"5\"")"#, None),
            (r#"($."a" == "\\" && $"x" == 1)"#, Some("x")),
            ("$", None),
        ] {
            assert_eq!(variable(printed), expected, "{printed}");
        }
    }
}
