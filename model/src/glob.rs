//! Globs of task names and event types, as Python's `fnmatch.fnmatchcase` reads them.
//!
//! `*` is any characters, dots and slashes included, `?` one character, `[seq]` and `[!seq]` one
//! of a set or none of it; nothing else is special. Matching takes time linear in the text.
//!
//! ```
//! use klaxon_model::glob::{Glob, GlobSet};
//!
//! let globs = ["report.*", "*.nightly", "report.?aily[0-9]"].map(|glob| Glob::new(glob).unwrap());
//! assert!(globs[0].is_match("report.eu/daily"));
//!
//! let mut matched = Vec::new();
//! GlobSet::new(globs).matches("report.daily7", &mut matched);
//! matched.sort_unstable();
//! assert_eq!(matched, [0, 2]);
//! ```

mod pattern;
mod set;

use pattern::Pattern;
pub use set::GlobSet;

/// Longest pattern, in characters.
pub const MAX_LENGTH: usize = 200;

/// Why a pattern is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// The pattern is empty.
    #[error("a glob is empty")]
    Empty,
    /// The pattern is longer than [`MAX_LENGTH`] characters.
    #[error("glob \"{0}…\" has {1} characters, more than {MAX_LENGTH}")]
    TooLong(String, usize),
}

/// What a pattern is, so that the common shapes need no search.
#[derive(Clone, Debug)]
enum Shape {
    Literal(String),
    Prefix(String),
    Suffix(String),
    Pattern(Pattern),
}

/// One compiled pattern.
#[derive(Clone, Debug)]
pub struct Glob {
    pattern: String,
    shape: Shape,
}

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Where it is empty or longer than [`MAX_LENGTH`] characters; every other text is a pattern.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        let length = pattern.chars().count();
        if length > MAX_LENGTH {
            return Err(GlobError::TooLong(pattern.chars().take(40).collect(), length));
        }
        Ok(Self { pattern: pattern.to_owned(), shape: pattern::shape(pattern) })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        match &self.shape {
            Shape::Literal(literal) => text == literal,
            Shape::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Shape::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Shape::Pattern(pattern) => pattern.is_match(&pattern::Text::new(text)),
        }
    }
}

#[cfg(test)]
mod tests;
