//! The filter `where`: a jsonpath predicate, parsed and evaluated by Postgres, under a bound.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use pgrx::memcxt::PgMemoryContexts;
use pgrx::prelude::*;

use crate::deadline::{Failure, within};

/// What parsing or evaluating a path may take, in milliseconds of the processor's: far more than an honest one needs.
const BOUND_MS: i32 = 100;
/// How often a path may take longer before this session does not try it again.
const STRIKES: u32 = 3;
/// How often all paths of a principal may, together, within [`LAPSE`]: however many there are, they cost a session no more
/// than a few seconds a minute.
const STRIKES_OF_OWNER: u32 = 12;
const LAPSE: Duration = Duration::from_secs(60);
/// Paths of which it is known how often they took longer; one is forgotten for each that comes after these.
const STRUCK: usize = 1_000;

thread_local! {
    /// By the path, so that it is still known when a subscription was written again.
    static STRIKES_BY_PATH: RefCell<HashMap<String, u32>> = RefCell::default();
    /// And since when they are counted.
    static STRIKES_BY_OWNER: RefCell<HashMap<String, (u32, Instant)>> = RefCell::default();
}

/// A parsed jsonpath that outlives the transaction.
pub struct Predicate {
    /// As Postgres lays it out, aligned as Postgres would have it.
    path: Box<[u64]>,
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
        // What parsing leaves behind goes with it.
        let mut scratch = PgMemoryContexts::new("klaxon jsonpath");
        let parsed = within(BOUND_MS, AssertUnwindSafe(|| parse_in(&mut scratch, &path)));
        let parsed = parsed.map_err(|failure| match failure {
            Failure::Raised(message) => message,
            Failure::Expired => "it takes too long".to_owned(),
        })?;
        if let Some(name) = variable(&printed(parsed)) {
            return Err(format!("there is no variable ${name}"));
        }
        let strikes = STRIKES_BY_PATH.with_borrow(|strikes| strikes.get(text.as_str()).copied());
        Ok(Self { path: copied(parsed), text, strikes: Cell::new(strikes.unwrap_or_default()) })
    }

    /// Evaluates the path on a jsonb datum, as the operator `@@` does; what that still raises (for
    /// instance a comparison of times that would need the session's time zone) is unknown too. `owner` is whose
    /// subscription it is.
    #[allow(unsafe_code)]
    pub fn holds(&self, payload: pg_sys::Datum, owner: Option<&str>) -> Truth {
        if self.strikes.get() >= STRIKES || owner.is_some_and(has_struck_out) {
            return Truth::Unknown;
        }
        let path = pg_sys::Datum::from(self.path.as_ptr());
        // SAFETY: the path is ours for as long as this. The function is pure: whatever it
        // raises leaves only memory behind, which the caller's context frees.
        let holds = within(BOUND_MS, move || unsafe {
            pgrx::direct_function_call::<bool>(pg_sys::jsonb_path_match_opr, &[Some(payload), Some(path)])
        });
        match holds {
            Ok(Some(true)) => Truth::True,
            Ok(Some(false)) => Truth::False,
            Ok(None) | Err(Failure::Raised(_)) => Truth::Unknown,
            Err(Failure::Expired) => {
                self.strike(owner);
                Truth::Unknown
            }
        }
    }

    fn strike(&self, owner: Option<&str>) {
        self.strikes.set(self.strikes.get() + 1);
        STRIKES_BY_PATH.with_borrow_mut(|strikes| {
            if strikes.len() >= STRUCK
                && let Some(other) = strikes.keys().next().cloned()
            {
                strikes.remove(&other);
            }
            strikes.insert(self.text.clone(), self.strikes.get());
        });
        if let Some(owner) = owner {
            STRIKES_BY_OWNER.with_borrow_mut(|strikes| {
                strikes.retain(|_, (_, since)| since.elapsed() < LAPSE);
                strikes.entry(owner.to_owned()).or_insert((0, Instant::now())).0 += 1;
            });
        }
    }
}

fn has_struck_out(owner: &str) -> bool {
    STRIKES_BY_OWNER.with_borrow(|strikes| {
        strikes.get(owner).is_some_and(|(n, since)| *n >= STRIKES_OF_OWNER && since.elapsed() < LAPSE)
    })
}

#[allow(unsafe_code)]
fn parse_in(scratch: &mut PgMemoryContexts, text: &CString) -> pg_sys::Datum {
    // SAFETY: jsonpath_in takes a C string and pallocs its result in the current context, ours.
    unsafe {
        scratch.switch_to(|_| {
            pgrx::direct_function_call_as_datum(
                pg_sys::jsonpath_in,
                &[Some(pg_sys::Datum::from(text.as_ptr()))],
            )
            .expect("jsonpath_in returns a path")
        })
    }
}

/// The path, outside Postgres' memory.
#[allow(unsafe_code)]
fn copied(path: pg_sys::Datum) -> Box<[u64]> {
    let path = path.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: jsonpath_in returns a value as it is evaluated: neither compressed nor with a short header. The words
    // are at least as many bytes as it says it has, and do not overlap it.
    unsafe {
        let bytes = pgrx::varsize(path);
        let mut words = vec![0_u64; bytes.div_ceil(size_of::<u64>())];
        std::ptr::copy_nonoverlapping(path.cast::<u8>(), words.as_mut_ptr().cast::<u8>(), bytes);
        words.into_boxed_slice()
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
