//! `docs/reference/` is what the schema and the program say of themselves. `KLAXON_BLESS=1`, which is what `make reference`
//! does, writes it anew.

use std::path::Path;
use std::process::{Command, Stdio};

use klaxon_tests::database::Database;
use klaxon_tests::process;
use klaxon_tests::worker::binary;

use crate::root;

/// Holds a page against what was generated.
fn same(page: &str, generated: &str) {
    let path = root().join("docs/reference").join(page);
    // A comment in the first line would be the first thing that a reader of the source reads.
    let generated = format!("{}\n", generated.trim_end());
    if std::env::var_os("KLAXON_BLESS").is_some() {
        std::fs::write(&path, generated).expect("the page can be written");
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some((line, (written, generated))) = written
        .lines()
        .zip(generated.lines())
        .enumerate()
        .find(|(_, (written, generated))| written != generated)
    {
        panic!(
            "docs/reference/{page}, line {}:\n{written}\nis\n{generated}\nnow: \"make reference\"",
            line + 1
        );
    }
    assert_eq!(
        written.len(),
        generated.len(),
        "docs/reference/{page} ends elsewhere now: \"make reference\""
    );
}

#[test]
fn the_schema_is_described_as_it_is() {
    let database = Database::new();
    for page in ["functions", "tables", "vocabulary"] {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference").join(format!("{page}.sql"));
        let printed = process::run(
            database
                .cluster
                .client("psql", &database.name)
                .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f"])
                .arg(script)
                .stdin(Stdio::null()),
        )
        .unwrap_or_else(|error| panic!("{error:#}"));
        same(&format!("{page}.md"), &printed);
    }
}

#[test]
fn the_program_is_described_as_it_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    process::run(Command::new(binary()).args(["man", "--markdown", "--out"]).arg(folder.path()))
        .unwrap_or_else(|error| panic!("{error:#}"));
    for page in ["cli.md", "metrics.md"] {
        same(page, &std::fs::read_to_string(folder.path().join(page)).expect("it was written"));
    }
}
