//! A pattern that is more than a literal, and how it is matched.

use std::fmt::Write as _;
use std::sync::OnceLock;

use regex::Regex;

use super::Shape;

/// Longest text, in characters, that is matched by trying: a try costs at most the pattern's length a
/// character, which no task's name makes felt. A longer text goes through an automaton, whose time
/// does not depend on the pattern, and which is worth building only then: it takes as long to build
/// as a thousand names take to try.
const TRIED: usize = 256;

/// A text, decoded once for however many patterns are asked about it.
pub struct Text<'a> {
    whole: &'a str,
    chars: [char; TRIED],
    /// `None` where the text is longer than [`TRIED`].
    length: Option<usize>,
}

impl<'a> Text<'a> {
    pub fn new(whole: &'a str) -> Self {
        let mut text = Self { whole, chars: ['\0'; TRIED], length: Some(0) };
        for (at, c) in whole.chars().enumerate() {
            let Some(place) = text.chars.get_mut(at) else {
                text.length = None;
                break;
            };
            *place = c;
            text.length = Some(at + 1);
        }
        text
    }
}

/// What one step of a pattern takes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// Any characters, or none.
    Star,
    /// Any one character.
    Any,
    /// This character.
    Char(char),
    /// One character that is in a range, or with `negated` in none.
    Set { negated: bool, ranges: Box<[(char, char)]> },
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Star | Self::Any => true,
            Self::Char(this) => *this == c,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

/// Tokens, and what can be told of a text before they are walked.
#[derive(Clone, Debug)]
pub struct Pattern {
    tokens: Vec<Token>,
    prefix: String,
    suffix: String,
    /// Characters a text has at least.
    shortest: usize,
    automaton: OnceLock<Regex>,
}

impl Pattern {
    fn new(tokens: Vec<Token>) -> Self {
        let run = |tokens: &mut dyn Iterator<Item = &Token>| -> Vec<char> {
            tokens.map_while(|token| if let Token::Char(c) = token { Some(*c) } else { None }).collect()
        };
        let prefix = run(&mut tokens.iter()).into_iter().collect();
        let suffix = run(&mut tokens.iter().rev()).into_iter().rev().collect();
        let shortest = tokens.iter().filter(|token| **token != Token::Star).count();
        Self { tokens, prefix, suffix, shortest, automaton: OnceLock::new() }
    }

    /// Texts that stand somewhere in whatever matches.
    pub fn literals(&self) -> Vec<String> {
        let runs = self.tokens.split(|token| !matches!(token, Token::Char(_)));
        runs.filter(|run| !run.is_empty())
            .map(|run| {
                run.iter().filter_map(|t| if let Token::Char(c) = t { Some(*c) } else { None }).collect()
            })
            .collect()
    }

    pub fn is_match(&self, text: &Text<'_>) -> bool {
        if !text.whole.starts_with(&self.prefix) || !text.whole.ends_with(&self.suffix) {
            return false;
        }
        match text.length {
            Some(length) => length >= self.shortest && tried(&self.tokens, &text.chars[..length]),
            None => self.automaton.get_or_init(|| automaton(&self.tokens)).is_match(text.whole),
        }
    }
}

/// What stands before the first star and after the last is compared where it must be. Between them
/// both are walked, and where they part the walk goes back to the last star, which then takes one
/// character more.
fn tried(tokens: &[Token], text: &[char]) -> bool {
    let takes = |tokens: &[Token], text: &[char]| tokens.iter().zip(text).all(|(token, c)| token.takes(*c));
    let Some(first) = tokens.iter().position(|token| *token == Token::Star) else {
        return tokens.len() == text.len() && takes(tokens, text);
    };
    let last = tokens.iter().rposition(|token| *token == Token::Star).unwrap_or(first);
    let (head, middle, tail) = (&tokens[..first], &tokens[first..=last], &tokens[last + 1..]);
    let Some(end) = text.len().checked_sub(tail.len()).filter(|end| *end >= head.len()) else {
        return false;
    };
    takes(head, text) && takes(tail, &text[end..]) && walked(middle, &text[head.len()..end])
}

fn walked(tokens: &[Token], text: &[char]) -> bool {
    let (mut at, mut step) = (0, 0);
    let mut star = None;
    while at < text.len() {
        match tokens.get(step) {
            // Nothing after it is left to compare.
            Some(Token::Star) if step + 1 == tokens.len() => return true,
            Some(Token::Star) => {
                step += 1;
                star = Some((step, at));
            }
            Some(token) if token.takes(text[at]) => {
                step += 1;
                at += 1;
            }
            _ => {
                let Some((after, from)) = &mut star else { return false };
                *from += 1;
                (step, at) = (*after, *from);
            }
        }
    }
    tokens[step..].iter().all(|token| *token == Token::Star)
}

/// The same as a regular expression: `.` matches a newline, and the anchors are the text's ends.
fn automaton(tokens: &[Token]) -> Regex {
    let mut regex = String::from(r"(?s)\A");
    for token in tokens {
        // Writing to a String cannot fail.
        let _ = match token {
            Token::Star => write!(regex, ".*"),
            Token::Any => write!(regex, "."),
            Token::Char(c) => write!(regex, r"\x{{{:x}}}", u32::from(*c)),
            Token::Set { negated: false, ranges } if ranges.is_empty() => write!(regex, r"[^\s\S]"),
            Token::Set { negated: true, ranges } if ranges.is_empty() => write!(regex, "."),
            Token::Set { negated, ranges } => {
                let ranges = ranges.iter().fold(String::new(), |mut all, (low, high)| {
                    let _ = write!(all, r"\x{{{:x}}}-\x{{{:x}}}", u32::from(*low), u32::from(*high));
                    all
                });
                write!(regex, "[{}{ranges}]", if *negated { "^" } else { "" })
            }
        };
    }
    regex.push_str(r"\z");
    Regex::new(&regex).expect("a translated glob is a regular expression of bounded size")
}

/// Reads a pattern and says what it is.
pub fn shape(pattern: &str) -> Shape {
    let tokens = tokens(pattern);
    let plain = |tokens: &[Token]| {
        tokens.iter().map(|token| if let Token::Char(c) = token { Some(*c) } else { None }).collect()
    };
    if let Some(literal) = plain(&tokens) {
        return Shape::Literal(literal);
    }
    match &tokens[..] {
        [rest @ .., Token::Star] if let Some(prefix) = plain(rest) => Shape::Prefix(prefix),
        [Token::Star, rest @ ..] if let Some(suffix) = plain(rest) => Shape::Suffix(suffix),
        _ => Shape::Pattern(Pattern::new(tokens)),
    }
}

fn tokens(pattern: &str) -> Vec<Token> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut tokens = Vec::with_capacity(chars.len());
    let mut at = 0;
    while let Some(c) = chars.get(at) {
        at += 1;
        match c {
            '*' if tokens.last() == Some(&Token::Star) => {}
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::Any),
            '[' if let Some(end) = set_end(&chars, at) => {
                tokens.push(set(&chars[at..end]));
                at = end + 1;
            }
            other => tokens.push(Token::Char(*other)),
        }
    }
    tokens
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

/// A set as Python reads it: a hyphen between two members is a range, and a hyphen anywhere else is
/// itself. A range that is the wrong way round vanishes, and what then comes first decides whether
/// the set is negated: `[z-a!x]` is `[!x]`.
fn set(members: &[char]) -> Token {
    let mut chunks = chunks(members);
    let negated = chunks[0].first() == Some(&'!');
    if negated {
        chunks[0].remove(0);
        if chunks[0].is_empty() && chunks.len() > 1 {
            // The hyphen has lost what stood before it, and is itself.
            let rest = chunks.remove(1);
            chunks[0] = [vec!['-'], rest].concat();
        }
    }
    match (negated, &ranges(&chunks)[..]) {
        // How a special character is written to mean itself.
        (false, [(low, high)]) if low == high => Token::Char(*low),
        (negated, ranges) => Token::Set { negated, ranges: ranges.into() },
    }
}

/// The members between the hyphens that make ranges; there is at least one chunk, and only a single
/// one can be empty. A hyphen makes a range when at least one member stands before it since the last
/// range, and one after it.
fn chunks(members: &[char]) -> Vec<Vec<char>> {
    let mut chunks: Vec<Vec<char>> = Vec::new();
    let mut start = 0;
    let mut from = if members.first() == Some(&'!') { 2 } else { 1 };
    while let Some(hyphen) = (from..members.len()).find(|at| members[*at] == '-') {
        chunks.push(members[start..hyphen].to_vec());
        start = hyphen + 1;
        from = hyphen + 3;
    }
    match (&members[start..], chunks.last_mut()) {
        ([], Some(before)) => before.push('-'),
        (last, _) => chunks.push(last.to_vec()),
    }
    for at in (1..chunks.len()).rev() {
        if chunks[at - 1].last() > chunks[at].first() {
            let tail = chunks.remove(at);
            chunks[at - 1].pop();
            chunks[at - 1].extend_from_slice(&tail[1..]);
        }
    }
    chunks
}

/// The last of each chunk and the first of the next are the ends of a range; the others stand alone.
fn ranges(chunks: &[Vec<char>]) -> Vec<(char, char)> {
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
