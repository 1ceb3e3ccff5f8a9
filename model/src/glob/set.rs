//! Many globs, asked at once.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::pattern::{Pattern, Text};
use super::{Glob, Shape};

/// Many globs, asked at once: which of them does a text match?
///
/// Literals, prefixes and suffixes are looked up. Of every other glob one literal part is searched,
/// all of them in one pass over the text, and only the globs whose part occurs are tried.
#[derive(Clone, Debug, Default)]
pub struct GlobSet {
    literals: HashMap<String, Vec<usize>>,
    /// By length, so that each length costs one look-up.
    prefixes: Vec<(usize, HashMap<String, Vec<usize>>)>,
    suffixes: Vec<(usize, HashMap<String, Vec<usize>>)>,
    parts: Option<AhoCorasick>,
    /// By the number of their part.
    patterns: Vec<Vec<(usize, Pattern)>>,
    /// Those without a literal part.
    rest: Vec<(usize, Pattern)>,
}

impl GlobSet {
    /// Gathers globs; the set answers with their positions.
    pub fn new(globs: impl IntoIterator<Item = Glob>) -> Self {
        let mut set = Self::default();
        let mut patterns = Vec::new();
        for (index, glob) in globs.into_iter().enumerate() {
            match glob.shape {
                Shape::Literal(text) => set.literals.entry(text).or_default().push(index),
                Shape::Prefix(text) => insert(&mut set.prefixes, text, index),
                Shape::Suffix(text) => insert(&mut set.suffixes, text, index),
                Shape::Pattern(pattern) => patterns.push((index, pattern)),
            }
        }
        set.divide(patterns);
        set
    }

    /// Gives each pattern the one of its literal parts that says most: the one that the fewest
    /// patterns have, and of those the longest.
    fn divide(&mut self, patterns: Vec<(usize, Pattern)>) {
        let parts: Vec<Vec<String>> = patterns.iter().map(|(_, pattern)| pattern.literals()).collect();
        let mut shared: HashMap<&str, usize> = HashMap::new();
        for part in parts.iter().flatten() {
            *shared.entry(part).or_default() += 1;
        }
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut needles = Vec::new();
        for (pattern, parts) in patterns.into_iter().zip(&parts) {
            let telling = parts.iter().min_by_key(|part| (shared[part.as_str()], usize::MAX - part.len()));
            let Some(part) = telling else {
                self.rest.push(pattern);
                continue;
            };
            let number = *numbers.entry(part).or_insert_with(|| {
                needles.push(part);
                self.patterns.push(Vec::new());
                needles.len() - 1
            });
            self.patterns[number].push(pattern);
        }
        if needles.is_empty() {
            return;
        }
        // An automaton that cannot be built costs speed, never a match.
        match AhoCorasick::builder().kind(Some(AhoCorasickKind::ContiguousNFA)).build(&needles) {
            Ok(parts) => self.parts = Some(parts),
            Err(_) => self.rest.extend(std::mem::take(&mut self.patterns).into_iter().flatten()),
        }
    }

    /// Adds the positions of all globs that `text` matches, each once, in no order.
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
        if self.parts.is_none() && self.rest.is_empty() {
            return;
        }
        let decoded = Text::new(text);
        let mut try_all = |patterns: &[(usize, Pattern)]| {
            let hits = patterns.iter().filter(|(_, pattern)| pattern.is_match(&decoded));
            matched.extend(hits.map(|(index, _)| *index));
        };
        if let Some(parts) = &self.parts {
            let mut seen = vec![false; self.patterns.len()];
            for found in parts.find_overlapping_iter(text) {
                let number = found.pattern().as_usize();
                if !std::mem::replace(&mut seen[number], true) {
                    try_all(&self.patterns[number]);
                }
            }
        }
        try_all(&self.rest);
    }
}

fn insert(lengths: &mut Vec<(usize, HashMap<String, Vec<usize>>)>, text: String, index: usize) {
    let at = lengths.iter().position(|(length, _)| *length == text.len()).unwrap_or_else(|| {
        lengths.push((text.len(), HashMap::new()));
        lengths.len() - 1
    });
    lengths[at].1.entry(text).or_default().push(index);
}
