//! Names of event types, and how bad each is.

use std::fmt;
use std::str::FromStr;

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something worth knowing.
    Info,
    /// Something to look at.
    Warning,
    /// Something is broken.
    Error,
    /// Somebody should be woken.
    Critical,
}

impl Severity {
    /// As it is written everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no severity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown severity \"{0}\": there are critical, error, warning and info")]
pub struct UnknownSeverity(pub String);

impl FromStr for Severity {
    type Err = UnknownSeverity;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "info" => Ok(Self::Info),
            "warning" => Ok(Self::Warning),
            "error" => Ok(Self::Error),
            "critical" => Ok(Self::Critical),
            other => Err(UnknownSeverity(other.chars().take(40).collect())),
        }
    }
}

/// Whether a subscription's pattern is a glob rather than a type's name.
#[must_use]
pub fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// Whether a text may name a type: 1 to 100 printable characters without spaces, quotes or glob signs.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=100).contains(&name.chars().count())
        && name.chars().all(|c| {
            !c.is_control() && !c.is_whitespace() && !matches!(c, '"' | '\'' | '`' | '*' | '?' | '[' | ']')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printable_and_unquoted() {
        for name in ["run.failed", "a", "größe.überschritten", &"x".repeat(100), "a/b:c-d"] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["", " ", "a b", "a\tb", "a\"b", "a'b", "a*", "a?", "[a]", "a`", "a\u{7f}", &"x".repeat(101)]
        {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn severities_are_ordered_and_read_back() {
        let all = [Severity::Info, Severity::Warning, Severity::Error, Severity::Critical];
        assert!(all.is_sorted());
        for severity in all {
            assert_eq!(severity.as_str().parse(), Ok(severity));
        }
        assert!("fatal".parse::<Severity>().is_err());
    }
}
