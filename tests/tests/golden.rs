//! Golden tests: every `golden/*.sql` is run through psql in a fresh database, and what psql prints
//! must be the file beside it. `KLAXON_BLESS=1` writes those files anew.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use klaxon_tests::database::Database;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// As `pg_regress` does it: one file for results and errors, so that they stand in order.
fn run(script: &Path) -> String {
    let database = Database::new();
    let printed = tempfile::NamedTempFile::new().expect("a temporary file");
    let again = || printed.as_file().try_clone().expect("a file can be opened twice");
    let status = database
        .cluster
        .client("psql", &database.name)
        .args([
            "-X",
            "-q",
            "-a",
            "-v",
            "ON_ERROR_STOP=0",
            "-v",
            "VERBOSITY=verbose",
            "-v",
            "SHOW_CONTEXT=never",
            "-P",
            "pager=off",
        ])
        .stdin(File::open(script).expect("the script reads"))
        .stdout(Stdio::from(again()))
        .stderr(Stdio::from(again()))
        .status()
        .expect("psql starts");
    let printed = std::fs::read_to_string(printed.path()).expect("psql prints UTF-8");
    assert!(status.success(), "psql on {}: {printed}", script.display());
    printed.lines().filter(|line| !is_volatile(line)).flat_map(|line| [line, "\n"]).collect()
}

/// Verbose is for the SQLSTATE. The line of C or Rust that raised an error is nobody's contract,
/// and rows that failed a constraint are shown with their ids and times.
fn is_volatile(line: &str) -> bool {
    line.starts_with("LOCATION:") || line.starts_with("DETAIL:  Failing row contains")
}

#[test]
fn psql_prints_what_is_written() {
    let bless = std::env::var_os("KLAXON_BLESS").is_some();
    let mut scripts: Vec<_> = std::fs::read_dir(folder())
        .expect("the folder exists")
        .map(|entry| entry.expect("the folder reads").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    let mut different = Vec::new();
    for script in scripts {
        let (printed, written) = (run(&script), script.with_extension("out"));
        if bless {
            std::fs::write(&written, printed).expect("the output can be written");
        } else if std::fs::read_to_string(&written).unwrap_or_default() != printed {
            different.push((written, printed));
        }
    }
    for (written, printed) in &different {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let new = folder.path().join("printed");
        std::fs::write(&new, printed).expect("a temporary file");
        let diff =
            std::process::Command::new("diff").arg("-u").args([written, &new]).output().expect("diff starts");
        eprintln!("{}", String::from_utf8_lossy(&diff.stdout));
    }
    assert!(different.is_empty(), "{} outputs differ; KLAXON_BLESS=1 writes them anew", different.len());
}
