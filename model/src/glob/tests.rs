//! What Python 3.11's `fnmatch.fnmatchcase` answers, as a table, and a reference of its rules.

use proptest::prelude::*;

use super::*;

/// Every pattern is asked about every one of these.
const TEXTS: &[&str] = &[
    "",
    "a",
    "b",
    "c",
    "ab",
    "a.b",
    "a/b",
    "aXXb",
    "report.",
    "report.daily",
    "rep",
    "]",
    "[",
    "!",
    "-",
    "a]",
    "[a",
    "z",
    "A",
    "0",
    "é",
    "éa",
    "aé",
    "ü",
    "\n",
    "a\nb",
    "a\n",
    "\\",
    "\\*",
    "*",
    "a\\b",
    "{a,b}",
    "^",
    "^a$",
    "d",
    "e",
    "abc",
    "a-c",
    "x12",
    "x1",
    "&",
    "|",
    "~",
    ":",
    "(a)",
    "+",
    "#",
    "[]",
    "^a",
    "d]",
    "m",
    "bc",
    ".",
    ",",
    "/",
];

/// Pattern, and which of [`TEXTS`] Python says it matches.
#[rustfmt::skip]
const PYTHON: &[(&str, &[&str])] = &[
    ("*", &["", "a", "b", "c", "ab", "a.b", "a/b", "aXXb", "report.", "report.daily", "rep", "]", "[", "!", "-", "a]", "[a", "z", "A", "0", "é", "éa", "aé", "ü", "\n", "a\nb", "a\n", "\\", "\\*", "*", "a\\b", "{a,b}", "^", "^a$", "d", "e", "abc", "a-c", "x12", "x1", "&", "|", "~", ":", "(a)", "+", "#", "[]", "^a", "d]", "m", "bc", ".", ",", "/"]),
    ("?", &["a", "b", "c", "]", "[", "!", "-", "z", "A", "0", "é", "ü", "\n", "\\", "*", "^", "d", "e", "&", "|", "~", ":", "+", "#", "m", ".", ",", "/"]),
    ("a*b", &["ab", "a.b", "a/b", "aXXb", "a\nb", "a\\b"]),
    ("*.py", &[]),
    ("report.*", &["report.", "report.daily"]),
    ("[!a-z]", &["]", "[", "!", "-", "A", "0", "é", "ü", "\n", "\\", "*", "^", "&", "|", "~", ":", "+", "#", ".", ",", "/"]),
    ("[]]", &["]"]),
    ("[!]]", &["a", "b", "c", "[", "!", "-", "z", "A", "0", "é", "ü", "\n", "\\", "*", "^", "d", "e", "&", "|", "~", ":", "+", "#", "m", ".", ",", "/"]),
    ("[]", &["[]"]),
    ("[", &["["]),
    ("[a", &["[a"]),
    ("a[", &[]),
    ("[!", &[]),
    ("[!]", &[]),
    ("[a-]", &["a", "-"]),
    ("[-a]", &["a", "-"]),
    ("[z-a]", &[]),
    ("[!z-a]", &["a", "b", "c", "]", "[", "!", "-", "z", "A", "0", "é", "ü", "\n", "\\", "*", "^", "d", "e", "&", "|", "~", ":", "+", "#", "m", ".", ",", "/"]),
    ("[a-c-e]", &["a", "b", "c", "-", "e"]),
    ("[--0]", &["-", "0", ".", "/"]),
    ("[a--]", &[]),
    ("[&&a]", &["a", "&"]),
    ("[a||b]", &["a", "b", "|"]),
    ("[~~]", &["~"]),
    ("[[]", &["["]),
    ("[[:alpha:]]", &["a]", "[]"]),
    ("{a,b}", &["{a,b}"]),
    ("a{1}", &[]),
    ("\\*", &["\\", "\\*"]),
    ("\\", &["\\"]),
    ("a\\b", &["a\\b"]),
    ("a.b", &["a.b"]),
    ("^a$", &["^a$"]),
    ("é?", &["éa"]),
    ("?é", &["aé"]),
    ("[é-ü]", &["é", "ü"]),
    ("*\n*", &["\n", "a\nb", "a\n"]),
    ("a?c", &["abc", "a-c"]),
    ("**", &["", "a", "b", "c", "ab", "a.b", "a/b", "aXXb", "report.", "report.daily", "rep", "]", "[", "!", "-", "a]", "[a", "z", "A", "0", "é", "éa", "aé", "ü", "\n", "a\nb", "a\n", "\\", "\\*", "*", "a\\b", "{a,b}", "^", "^a$", "d", "e", "abc", "a-c", "x12", "x1", "&", "|", "~", ":", "(a)", "+", "#", "[]", "^a", "d]", "m", "bc", ".", ",", "/"]),
    ("*a*b*", &["ab", "a.b", "a/b", "aXXb", "a\nb", "a\\b", "{a,b}", "abc"]),
    ("[a-b-c-d]", &["a", "b", "c", "-", "d"]),
    ("[]-a]", &["a", "]", "^"]),
    ("[a-a]", &["a"]),
    ("[!!]", &["a", "b", "c", "]", "[", "-", "z", "A", "0", "é", "ü", "\n", "\\", "*", "^", "d", "e", "&", "|", "~", ":", "+", "#", "m", ".", ",", "/"]),
    ("[^a]", &["a", "^"]),
    ("(a)", &["(a)"]),
    ("+", &["+"]),
    ("|", &["|"]),
    ("#", &["#"]),
    ("[\\]]", &[]),
    ("[\\d]", &["\\", "d"]),
    ("[a\\-z]", &["a", "b", "c", "]", "z", "\\", "^", "d", "e", "m"]),
    ("x[0-9][0-9]", &["x12"]),
    ("[b-ac]", &["c"]),
    ("[c-a-z]", &["-", "z"]),
    ("[ac-]", &["a", "c", "-"]),
    ("[-]", &["-"]),
    ("[!-]", &["a", "b", "c", "]", "[", "!", "z", "A", "0", "é", "ü", "\n", "\\", "*", "^", "d", "e", "&", "|", "~", ":", "+", "#", "m", ".", ",", "/"]),
    ("[---]", &["-"]),
    ("[a-c]*[!x]", &["ab", "a.b", "a/b", "aXXb", "a]", "aé", "a\nb", "a\n", "a\\b", "abc", "a-c", "bc"]),
    ("[z-a!x]", &["a", "b", "c", "]", "[", "!", "-", "z", "A", "0", "é", "ü", "\n", "\\", "*", "^", "d", "e", "&", "|", "~", ":", "+", "#", "m", ".", ",", "/"]),
    ("[z-a!]", &["a", "b", "c", "]", "[", "!", "-", "z", "A", "0", "é", "ü", "\n", "\\", "*", "^", "d", "e", "&", "|", "~", ":", "+", "#", "m", ".", ",", "/"]),
    ("[!z-a!x]", &["a", "b", "c", "]", "[", "-", "z", "A", "0", "é", "ü", "\n", "\\", "*", "^", "d", "e", "&", "|", "~", ":", "+", "#", "m", ".", ",", "/"]),
    ("[b-a!-z]", &["a", "b", "c", "]", "[", "!", "A", "0", "é", "ü", "\n", "\\", "*", "^", "d", "e", "&", "|", "~", ":", "+", "#", "m", ".", ",", "/"]),
    ("[b-a!-z]*", &["a", "b", "c", "ab", "a.b", "a/b", "aXXb", "report.", "report.daily", "rep", "]", "[", "!", "a]", "[a", "A", "0", "é", "éa", "aé", "ü", "\n", "a\nb", "a\n", "\\", "\\*", "*", "a\\b", "{a,b}", "^", "^a$", "d", "e", "abc", "a-c", "x12", "x1", "&", "|", "~", ":", "(a)", "+", "#", "[]", "^a", "d]", "m", "bc", ".", ",", "/"]),
    ("[z-a^b]", &["b", "^"]),
    ("[z-a]a", &[]),
    ("[!--]", &["a", "b", "c", "]", "[", "!", "z", "A", "0", "é", "ü", "\n", "\\", "*", "^", "d", "e", "&", "|", "~", ":", "+", "#", "m", ".", ",", "/"]),
    ("[a-c!]", &["a", "b", "c", "!"]),
    ("[z-am-o]", &["m"]),
    ("[*]", &["*"]),
    ("[?]", &[]),
    ("[[]*", &["[", "[a", "[]"]),
    ("a[*]b", &[]),
    ("[a]*[b]", &["ab", "a.b", "a/b", "aXXb", "a\nb", "a\\b"]),
    ("a*[!b]", &["a]", "aé", "a\n", "abc", "a-c"]),
    ("*[0-9]", &["0", "x12", "x1"]),
    ("?[!a]", &["ab", "a]", "aé", "a\n", "\\*", "x1", "[]", "d]", "bc"]),
    ("[!a-z]*", &["]", "[", "!", "-", "[a", "A", "0", "é", "éa", "ü", "\n", "\\", "\\*", "*", "{a,b}", "^", "^a$", "&", "|", "~", ":", "(a)", "+", "#", "[]", "^a", ".", ",", "/"]),
    ("*-*", &["-", "a-c"]),
    ("a]", &["a]"]),
    ("[a]]", &["a]"]),
    ("[!a", &[]),
    ("[]-]", &["]", "-"]),
    ("[]!]", &["]", "!"]),
    ("[!]!]", &["a", "b", "c", "[", "-", "z", "A", "0", "é", "ü", "\n", "\\", "*", "^", "d", "e", "&", "|", "~", ":", "+", "#", "m", ".", ",", "/"]),
    ("***a", &["a", "[a", "éa", "^a"]),
    ("a**b", &["ab", "a.b", "a/b", "aXXb", "a\nb", "a\\b"]),
    ("*?*", &["a", "b", "c", "ab", "a.b", "a/b", "aXXb", "report.", "report.daily", "rep", "]", "[", "!", "-", "a]", "[a", "z", "A", "0", "é", "éa", "aé", "ü", "\n", "a\nb", "a\n", "\\", "\\*", "*", "a\\b", "{a,b}", "^", "^a$", "d", "e", "abc", "a-c", "x12", "x1", "&", "|", "~", ":", "(a)", "+", "#", "[]", "^a", "d]", "m", "bc", ".", ",", "/"]),
    ("??", &["ab", "a]", "[a", "éa", "aé", "a\n", "\\*", "x1", "[]", "^a", "d]", "bc"]),
    ("???", &["a.b", "a/b", "rep", "a\nb", "a\\b", "^a$", "abc", "a-c", "x12", "(a)"]),
    ("*[]]", &["]", "a]", "[]", "d]"]),
    ("[é]", &["é"]),
    ("[!é]*", &["a", "b", "c", "ab", "a.b", "a/b", "aXXb", "report.", "report.daily", "rep", "]", "[", "!", "-", "a]", "[a", "z", "A", "0", "aé", "ü", "\n", "a\nb", "a\n", "\\", "\\*", "*", "a\\b", "{a,b}", "^", "^a$", "d", "e", "abc", "a-c", "x12", "x1", "&", "|", "~", ":", "(a)", "+", "#", "[]", "^a", "d]", "m", "bc", ".", ",", "/"]),
    ("é*", &["é", "éa"]),
    ("*é", &["é", "aé"]),
    ("\n*", &["\n"]),
    ("[\n]", &["\n"]),
    ("{*}", &["{a,b}"]),
    ("(*)", &["(a)"]),
    ("^*$", &["^a$"]),
    ("[!!-~]", &["é", "ü", "\n"]),
    ("[ -~]", &["a", "b", "c", "]", "[", "!", "-", "z", "A", "0", "\\", "*", "^", "d", "e", "&", "|", "~", ":", "+", "#", "m", ".", ",", "/"]),
];

#[test]
fn patterns_match_what_python_says() {
    for (pattern, expected) in PYTHON {
        let glob = Glob::new(pattern).unwrap();
        let set = GlobSet::new([glob.clone()]);
        for text in TEXTS {
            assert_eq!(glob.is_match(text), expected.contains(text), "{pattern:?} on {text:?}");
            let mut matched = Vec::new();
            set.matches(text, &mut matched);
            assert_eq!(!matched.is_empty(), expected.contains(text), "{pattern:?} in a set on {text:?}");
        }
    }
}

#[test]
fn a_pattern_has_a_length() {
    assert_eq!(Glob::new("").unwrap_err(), GlobError::Empty);
    assert!(Glob::new(&"é".repeat(MAX_LENGTH)).is_ok());
    assert!(matches!(Glob::new(&"é".repeat(MAX_LENGTH + 1)), Err(GlobError::TooLong(_, 201))));
}

#[test]
fn a_thousand_globs_are_asked_in_one_pass() {
    for glob_of in [
        |i: usize| format!("report.*.{i}"),
        |i: usize| format!("*daily{i}*"),
        |i: usize| format!("*daily*?{i}*"),
        |i: usize| format!("[a-z]*.weekly{i}.[0-9]"),
        |i: usize| format!("?*{i}?*"),
        |i: usize| format!("[{}-z]*{}", char::from(b'a' + (i % 20) as u8), "?".repeat(1 + i / 20)),
    ] {
        let globs: Vec<Glob> = (0..1000).map(|i| Glob::new(&glob_of(i)).unwrap()).collect();
        let set = GlobSet::new(globs.clone());
        for text in
            ["report.daily21.weekly.7", "report.eu.weekly900.4", "größe.daily999.123", "", &"7".repeat(200)]
        {
            let mut matched = Vec::new();
            set.matches(text, &mut matched);
            matched.sort_unstable();
            let expected: Vec<usize> = (0..1000).filter(|i| globs[*i].is_match(text)).collect();
            assert_eq!(matched, expected, "{text:?}");
        }
    }
}

#[test]
fn many_stars_take_linear_time() {
    let glob = Glob::new(&"*a".repeat(100)).unwrap();
    assert!(!glob.is_match(&"a".repeat(99)));
    assert!(glob.is_match(&"a".repeat(100_000)));
    assert!(!glob.is_match(&("a".repeat(100_000) + "b")));
}

/// fnmatch by trying everything: `*` is any split of the rest.
fn naive(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|split| naive(rest, &text[split..])),
        ['?', rest @ ..] => !text.is_empty() && naive(rest, &text[1..]),
        [c, rest @ ..] => text.first() == Some(c) && naive(rest, &text[1..]),
    }
}

proptest! {
    #[test]
    fn stars_and_marks_agree_with_trying_everything(pattern in "[ab*?.]{1,7}", text in "[ab.\n]{0,7}") {
        let glob = Glob::new(&pattern).unwrap();
        let pattern: Vec<char> = pattern.chars().collect();
        let chars: Vec<char> = text.chars().collect();
        prop_assert_eq!(glob.is_match(&text), naive(&pattern, &chars));
    }

    #[test]
    fn a_set_answers_as_its_globs_do(patterns in prop::collection::vec("[ab*?\\[\\]!-]{1,6}", 1..8), text in "[ab!\\[\\]-]{0,6}") {
        let globs: Vec<Glob> = patterns.iter().map(|p| Glob::new(p).unwrap()).collect();
        let mut matched = Vec::new();
        GlobSet::new(globs.clone()).matches(&text, &mut matched);
        matched.sort_unstable();
        let expected: Vec<usize> =
            globs.iter().enumerate().filter(|(_, glob)| glob.is_match(&text)).map(|(index, _)| index).collect();
        prop_assert_eq!(matched, expected);
    }

    #[test]
    fn trying_and_the_automaton_agree(pattern in "[abc*?\\[\\]!^-]{1,10}", text in "[abc!\\[\\]^-]{0,8}") {
        let pattern = format!("*{pattern}");
        let glob = Glob::new(&pattern).unwrap();
        // A star in front takes what makes the text long, of a character that nothing else takes
        // but what takes any: then there are more of them than the pattern is long.
        let long = format!("{}{text}", "\n".repeat(300));
        let short = format!("{}{text}", "\n".repeat(20));
        prop_assert_eq!(glob.is_match(&long), glob.is_match(&short), "{:?}", pattern);
    }

    #[test]
    fn every_text_is_a_pattern(pattern in "\\PC{1,60}", text in "\\PC{0,20}") {
        let _ = Glob::new(&pattern).unwrap().is_match(&text);
    }
}
