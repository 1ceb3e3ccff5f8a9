//! The book as a whole: every page is in it, every link leads somewhere, every field of a kind is told of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use klaxon_tests::counterpart;
use klaxon_tests::database::Database;

use crate::{RUN, blocks, root};

/// Where a link into the repository leads that is no page of the book.
const REPOSITORY: &str = "https://github.com/pg-klaxon/pg_klaxon/blob/main/";

/// The pages, by their path in the repository.
fn pages() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder reads") {
            let path = entry.expect("the folder reads").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let name =
                    path.strip_prefix(root()).expect("it is within").to_str().expect("UTF-8").to_owned();
                found.insert(name, std::fs::read_to_string(path).expect("the page reads"));
            }
        }
    }
    for name in ["README.md", "CONTRIBUTING.md", "SECURITY.md"] {
        found.insert(name.to_owned(), std::fs::read_to_string(root().join(name)).expect("the page reads"));
    }
    found
}

/// A page without its blocks and its code, in which brackets are something else.
fn prose(markdown: &str) -> String {
    let mut within = false;
    let lines = markdown.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        within ^= fence;
        !within && !fence
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    text.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// Where a page's links lead.
fn links(markdown: &str) -> Vec<String> {
    let prose = prose(markdown);
    prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split_whitespace().next().unwrap_or_default().to_owned())
        .collect()
}

/// The anchors of a page's headings, as GitHub and mdBook both make them.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let mut within = false;
    let mut found = BTreeSet::new();
    for line in markdown.lines() {
        within ^= line.trim_start().starts_with("```");
        let Some(heading) = line.strip_prefix('#').filter(|_| !within) else { continue };
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        assert!(found.insert(anchor.clone()), "two headings make the anchor #{anchor}");
    }
    found
}

/// The path that a relative link means.
fn resolved(page: &str, target: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in Path::new(page).parent().expect("a page is a file").join(target).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{page}: {target} leads out of the repository"),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    for (page, markdown) in &pages {
        for link in links(markdown) {
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let path = match target.strip_prefix(REPOSITORY) {
                Some(path) => PathBuf::from(path),
                None if target.contains("://") => continue,
                None if target.is_empty() => PathBuf::from(page),
                None => resolved(page, target),
            };
            let name = path.to_string_lossy().into_owned();
            // A page of the book has no way to what the book has not.
            let within = target.contains("://") || !page.starts_with("docs/") || name.starts_with("docs/");
            let there = match pages.get(&name) {
                Some(markdown) => anchor.is_empty() || anchors(markdown).contains(anchor),
                None => anchor.is_empty() && root().join(&path).exists(),
            };
            if !(within && there) {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_page_is_in_the_book_once() {
    let pages = pages();
    let listed = links(&pages["docs/SUMMARY.md"]);
    let mut listed: Vec<String> = listed.iter().map(|link| format!("docs/{link}")).collect();
    listed.sort();
    let written: Vec<String> =
        pages.into_keys().filter(|page| page.starts_with("docs/") && page != "docs/SUMMARY.md").collect();
    assert_eq!(listed, written);
}

#[test]
fn every_block_is_run_or_says_why_not() {
    for (page, markdown) in pages() {
        let runs = blocks::runs(&markdown).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert_eq!(
            runs > 0,
            RUN.contains(&page.as_str()),
            "{page} has {runs} blocks to run: is it in the list?"
        );
    }
}

/// The fields that the database says there are are those of the chapter's tables, one a row.
#[test]
fn every_field_and_filter_is_told_of() {
    let database = Database::new();
    let hint = |sql: &str| {
        let refused = database
            .cluster
            .client("psql", &database.name)
            .args(["-X", "-c", sql])
            .output()
            .expect("psql starts");
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    let list = |said: &str, after: &str| {
        let (_, rest) = said.split_once(after).unwrap_or_else(|| panic!("{after} is not in {said}"));
        let line = rest.lines().next().unwrap_or_default().trim_end_matches('.');
        line.split(", ").map(|word| word.trim_matches('"').to_owned()).collect::<Vec<_>>()
    };
    let rows = |page: &str| {
        let markdown = std::fs::read_to_string(root().join("docs").join(page)).expect("the page reads");
        let cells = markdown
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(name, _)| name.to_owned());
        cells.collect::<BTreeSet<String>>()
    };
    let common = rows("channels.md");
    let kinds =
        list(&hint("INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'x', '{}')"), "there are ");
    assert!(kinds.len() >= 8, "{kinds:?}");
    for kind in kinds {
        let said = hint(&format!(
            "INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', '{kind}', '{{\"x\": 1}}')"
        ));
        let fields: BTreeSet<String> = list(&said, "The fields are: ").into_iter().collect();
        let own = rows(&format!("channels/{kind}.md"));
        let told: BTreeSet<String> = own.union(&common).cloned().collect();
        let untold: Vec<_> = fields.difference(&told).collect();
        assert!(untold.is_empty(), "docs/channels/{kind}.md says nothing of {untold:?}");
        let unknown: Vec<_> = own.difference(&fields).collect();
        assert!(unknown.is_empty(), "docs/channels/{kind}.md has {unknown:?}, which {kind} has not");
    }
    let said =
        hint("INSERT INTO klaxon.subscription (events, filters) VALUES ('{run.failed}', '{\"x\": 1}')");
    let filters: BTreeSet<String> = list(&said, "the filters are ").into_iter().collect();
    assert_eq!(rows("filters.md").intersection(&filters).count(), filters.len(), "of {filters:?}");
}

#[test]
fn the_book_builds() {
    let to = tempfile::tempdir().expect("a temporary folder");
    let mdbook = counterpart::folder().join("bin/mdbook");
    assert!(mdbook.is_file(), "{} is not there: \"make setup\" installs it", mdbook.display());
    let said =
        Command::new(mdbook).arg("build").arg(root().join("docs")).arg("--dest-dir").arg(to.path()).output();
    let said = said.expect("mdbook starts");
    let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && !words.contains("WARN") && !words.contains("ERROR"), "{words}");
    for page in links(&pages()["docs/SUMMARY.md"]) {
        let page = page.replace("README.md", "index.md").replace(".md", ".html");
        assert!(to.path().join(&page).is_file(), "{page} was not built");
    }
    // A link to a page of the book is one to what was built of it.
    let broken = Command::new("python3").args(["-c", LEADS]).arg(to.path()).output().expect("python3 starts");
    assert!(broken.status.success(), "{}", String::from_utf8_lossy(&broken.stderr));
}

/// Fails with the links of a folder of HTML that lead to no file, or to no part of one.
const LEADS: &str = include_str!("leads.py");
