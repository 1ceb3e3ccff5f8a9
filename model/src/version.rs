//! Which schema, library and worker go together.
//!
//! They are upgraded one after the other, never all at once, and workers one by one. So each does with the schema
//! of its own minor version and of the ones before and after it, and with no other.

use std::fmt;

/// A version, as far as it says what goes together: two of the same minor always do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// Reads `major.minor` and whatever follows; `None` where there are not two numbers.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.splitn(3, '.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some(Self { major, minor }),
            _ => None,
        }
    }

    /// Whether a library or a worker of this version does with a schema of that one.
    #[must_use]
    pub fn goes_with(self, schema: Self) -> bool {
        self.major == schema.major && self.minor.abs_diff(schema.minor) <= 1
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What one of version `ours` has against a schema of version `schema`: which of the two is behind. `None` where they
/// go together.
#[must_use]
pub fn behind(ours: &str, schema: &str) -> Option<Behind> {
    match (Version::parse(ours), Version::parse(schema)) {
        (Some(ours), Some(schema)) if ours.goes_with(schema) => None,
        (Some(ours), Some(schema)) if ours < schema => Some(Behind::Ours),
        _ => Some(Behind::Schema),
    }
}

/// Which of two is too old for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// The library or the worker.
    Ours,
    /// The schema.
    Schema,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_of_skew_goes_both_ways_and_no_wider() {
        for (ours, schema, expected) in [
            ("0.1.0", "0.1.0", None),
            ("0.1.0", "0.1.7", None),
            ("0.1.0", "0.0.9", None),
            ("0.1.0", "0.2.3", None),
            ("0.1.0", "0.3.0", Some(Behind::Ours)),
            ("0.1.0", "1.0.0", Some(Behind::Ours)),
            ("0.1.0", "1.1.0", Some(Behind::Ours)),
            ("1.2.0", "1.0.4", Some(Behind::Schema)),
            ("1.0.0", "0.9.0", Some(Behind::Schema)),
            ("2.9.1", "2.10.0", None),
            ("2.9.1", "2.11", Some(Behind::Ours)),
            ("0.1.0", "unknown", Some(Behind::Schema)),
            ("0.1.0", "", Some(Behind::Schema)),
        ] {
            assert_eq!(behind(ours, schema), expected, "{ours} and a schema of {schema}");
        }
    }
}
