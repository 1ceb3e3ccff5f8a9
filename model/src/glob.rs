//! Globs of task names and event types, as Python's `fnmatch.fnmatchcase` reads them.
//!
//! `*` is any characters, dots and slashes included, `?` one character, `[seq]` and `[!seq]` one
//! of a set or none of it; nothing else is special. Matching takes time linear in the text.

use std::collections::HashMap;
use std::fmt::Write as _;

use regex::Regex;

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

/// What a pattern is, so that the common shapes need no automaton.
#[derive(Clone, Debug)]
enum Shape {
    Literal(String),
    Prefix(String),
    Suffix(String),
    Pattern(Regex),
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
        Ok(Self { pattern: pattern.to_owned(), shape: shape(pattern) })
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
            Shape::Pattern(regex) => regex.is_match(text),
        }
    }
}

fn shape(pattern: &str) -> Shape {
    let plain = |text: &str| !text.contains(['*', '?', '[']);
    if plain(pattern) {
        return Shape::Literal(pattern.to_owned());
    }
    if let Some(prefix) = pattern.strip_suffix('*')
        && plain(prefix)
    {
        return Shape::Prefix(prefix.to_owned());
    }
    if let Some(suffix) = pattern.strip_prefix('*')
        && plain(suffix)
    {
        return Shape::Suffix(suffix.to_owned());
    }
    Shape::Pattern(
        Regex::new(&translate(pattern)).expect("a translated glob is a regular expression of bounded size"),
    )
}

/// The regular expression of a pattern: `.` matches a newline, and the anchors are the text's ends.
fn translate(pattern: &str) -> String {
    let chars: Vec<char> = pattern.chars().collect();
    let mut regex = String::from(r"(?s)\A");
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        at += 1;
        match c {
            '*' => {
                if !regex.ends_with(".*") {
                    regex.push_str(".*");
                }
            }
            '?' => regex.push('.'),
            '[' => match set_end(&chars, at) {
                None => regex.push_str(r"\["),
                Some(end) => {
                    set(&chars[at..end], &mut regex);
                    at = end + 1;
                }
            },
            other => literal(other, &mut regex),
        }
    }
    regex.push_str(r"\z");
    regex
}

/// Where a set ends: at the first `]` that is not its first member.
fn set_end(chars: &[char], start: usize) -> Option<usize> {
    let mut at = start;
    if chars.get(at) == Some(&'!') {
        at += 1;
    }
    if chars.get(at) == Some(&']') {
        at += 1;
    }
    chars.get(at..)?.iter().position(|c| *c == ']').map(|offset| at + offset)
}

/// A set as Python reads it: a hyphen between two members is a range, a range whose ends are the
/// wrong way round is empty, and a hyphen anywhere else is itself.
fn set(members: &[char], regex: &mut String) {
    let (negated, members) = match members {
        ['!', rest @ ..] => (true, rest),
        all => (false, all),
    };
    let ranges = ranges(members);
    if ranges.is_empty() {
        // Nothing is in it: it matches no character, and negated any one.
        regex.push_str(if negated { "." } else { r"[^\s\S]" });
        return;
    }
    regex.push_str(if negated { "[^" } else { "[" });
    for (low, high) in ranges {
        let _ = write!(regex, r"\x{{{:x}}}-\x{{{:x}}}", u32::from(low), u32::from(high));
    }
    regex.push(']');
}

/// Python splits the set at hyphens that can be ranges, from the left: a hyphen counts when at
/// least one member stands before it since the last range and one after it.
fn ranges(members: &[char]) -> Vec<(char, char)> {
    let mut chunks: Vec<Vec<char>> = Vec::new();
    let mut start = 0;
    let mut from = 1;
    while let Some(hyphen) = (from..members.len()).find(|at| members[*at] == '-') {
        chunks.push(members[start..hyphen].to_vec());
        start = hyphen + 1;
        from = hyphen + 3;
    }
    let last = &members[start.min(members.len())..];
    if last.is_empty() {
        match chunks.last_mut() {
            Some(chunk) => chunk.push('-'),
            None => return Vec::new(),
        }
    } else {
        chunks.push(last.to_vec());
    }
    // A range that is the wrong way round vanishes with both its ends.
    for at in (1..chunks.len()).rev() {
        if chunks[at - 1].last() > chunks[at].first() {
            let tail = chunks.remove(at);
            chunks[at - 1].pop();
            chunks[at - 1].extend_from_slice(&tail[1..]);
        }
    }
    let mut ranges = Vec::new();
    for (at, chunk) in chunks.iter().enumerate() {
        let first = usize::from(at > 0);
        let last = chunk.len() - usize::from(at + 1 < chunks.len()).min(chunk.len());
        if let Some(alone) = chunk.get(first..last.max(first)) {
            ranges.extend(alone.iter().map(|c| (*c, *c)));
        }
        if let (Some(low), Some(high)) = (chunk.last(), chunks.get(at + 1).and_then(|next| next.first())) {
            ranges.push((*low, *high));
        }
    }
    ranges
}

fn literal(c: char, regex: &mut String) {
    let mut buffer = [0; 4];
    regex.push_str(&regex::escape(c.encode_utf8(&mut buffer)));
}

/// Many globs, asked at once: which of them does a text match?
#[derive(Clone, Debug, Default)]
pub struct GlobSet {
    literals: HashMap<String, Vec<usize>>,
    /// By length, so that each length costs one look-up.
    prefixes: Vec<(usize, HashMap<String, Vec<usize>>)>,
    suffixes: Vec<(usize, HashMap<String, Vec<usize>>)>,
    patterns: Vec<(usize, Glob)>,
}

impl GlobSet {
    /// Gathers globs; the set answers with their positions.
    pub fn new(globs: impl IntoIterator<Item = Glob>) -> Self {
        let mut set = Self::default();
        for (index, glob) in globs.into_iter().enumerate() {
            match &glob.shape {
                Shape::Literal(text) => set.literals.entry(text.clone()).or_default().push(index),
                Shape::Prefix(text) => insert(&mut set.prefixes, text, index),
                Shape::Suffix(text) => insert(&mut set.suffixes, text, index),
                Shape::Pattern(_) => set.patterns.push((index, glob)),
            }
        }
        set
    }

    /// Adds the positions of all globs that `text` matches, in no order.
    pub fn matches(&self, text: &str, matched: &mut Vec<usize>) {
        let mut add = |found: Option<&Vec<usize>>| matched.extend(found.into_iter().flatten());
        add(self.literals.get(text));
        for (length, prefixes) in &self.prefixes {
            add(text.get(..*length).and_then(|prefix| prefixes.get(prefix)));
        }
        for (length, suffixes) in &self.suffixes {
            let start = text.len().checked_sub(*length);
            add(start.and_then(|start| text.get(start..)).and_then(|suffix| suffixes.get(suffix)));
        }
        matched.extend(self.patterns.iter().filter(|(_, glob)| glob.is_match(text)).map(|(index, _)| *index));
    }
}

fn insert(lengths: &mut Vec<(usize, HashMap<String, Vec<usize>>)>, text: &str, index: usize) {
    let at = lengths.iter().position(|(length, _)| *length == text.len()).unwrap_or_else(|| {
        lengths.push((text.len(), HashMap::new()));
        lengths.len() - 1
    });
    lengths[at].1.entry(text.to_owned()).or_default().push(index);
}

#[cfg(test)]
mod tests;
