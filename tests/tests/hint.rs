//! Every error says what would be right: wherever one is raised, in SQL or in Rust, it has a hint.

use std::path::{Path, PathBuf};

/// Files of a folder, and of those in it, that end so.
fn sources(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// What begins with `start`, up to where `ends` says that it does.
fn each<'t>(text: &'t str, start: &str, ends: impl Fn(&str) -> Option<usize>) -> Vec<&'t str> {
    let starts = text.match_indices(start).map(|(at, _)| &text[at..]);
    starts.map(|rest| &rest[..ends(rest).unwrap_or(rest.len())]).collect()
}

/// Where the statement ends: at a semicolon that is in no string.
fn statement_end(sql: &str) -> Option<usize> {
    let mut quoted = false;
    sql.char_indices().find_map(|(at, c)| {
        quoted ^= c == '\'';
        (c == ';' && !quoted).then_some(at)
    })
}

/// Where the call ends: at the bracket that closes its first, but for those in strings.
fn call_end(rust: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    rust.char_indices().find_map(|(at, c)| {
        match c {
            '"' if !escaped => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        (c == ')' && !quoted && depth == 0).then_some(at)
    })
}

#[test]
fn every_exception_of_sql_has_a_hint() {
    let mut seen = 0;
    for (path, text) in sources("sql", "sql") {
        for raised in each(&text, "RAISE EXCEPTION", statement_end) {
            assert!(
                raised.contains("HINT = ") && !raised.contains("HINT = ''"),
                "{}: {raised}",
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn every_error_of_the_library_has_a_hint() {
    let mut seen = 0;
    for (path, text) in sources("extension/src", "rs") {
        for call in ["failure::raise(", "failure::invalid("] {
            for raised in each(&text, call, call_end) {
                // The hint is the last argument.
                let bare = raised.trim_end().trim_end_matches(',');
                assert!(!bare.ends_with("\"\""), "{}: {raised}", path.display());
                seen += 1;
            }
        }
        if !path.ends_with("failure.rs") && !path.ends_with("tests.rs") {
            for other in ["ereport!", "pgrx::error!", " error!(", "panic!("] {
                assert!(!text.contains(other), "{other} has no hint: {}", path.display());
            }
        }
    }
    assert!(seen > 20, "{seen}");
}
