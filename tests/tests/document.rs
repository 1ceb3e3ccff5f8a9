//! The README's tour, the cookbook and what PostgREST does are run as they stand: every fenced block after a comment
//! `<!-- test: … -->`.
//!
//! `<!-- test: sql -->` runs the block's statements in psql, in one session after the other and one
//! database for all. `<!-- test: sh -->` runs its lines in a shell whose `psql` and `klaxon` are
//! those under test. `<!-- test: shows -->` marks what the block before it prints: each line of it must
//! appear, in this order; `…` stands for anything, and the rule under psql's heading for any rule.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use klaxon_tests::process;
use klaxon_tests::worker::{Installation, binary};

#[derive(Debug, PartialEq)]
enum Kind {
    Sql,
    Sh,
    Shows,
}

#[derive(Debug, PartialEq)]
struct Block {
    kind: Kind,
    line: usize,
    text: String,
}

/// The marked blocks, in order.
fn blocks(markdown: &str) -> Vec<Block> {
    let mut lines = markdown.lines().enumerate();
    let mut found = Vec::new();
    while let Some((_, line)) = lines.next() {
        let Some(mark) = line.trim().strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->"))
        else {
            continue;
        };
        let kind = match mark {
            "sql" => Kind::Sql,
            "sh" => Kind::Sh,
            "shows" => Kind::Shows,
            other => panic!("unknown mark \"{other}\""),
        };
        let (line, fence) =
            lines.find(|(_, line)| !line.trim().is_empty()).expect("a block follows the mark");
        assert!(fence.starts_with("```"), "line {}: a fenced block follows the mark", line + 1);
        let text: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| !line.starts_with("```")).collect();
        found.push(Block { kind, line: line + 1, text: text.join("\n") });
    }
    found
}

/// Whether what was promised appears, line by line and in order.
fn shows(printed: &str, promised: &str) -> Result<(), String> {
    let mut rest = printed.lines();
    // psql's rule is as long as what `…` hides.
    let is_rule = |line: &str| line.chars().all(|c| matches!(c, '-' | '+'));
    for line in promised.lines().map(str::trim).filter(|line| !is_rule(line)) {
        if !rest.any(|printed| fits(printed.trim(), line)) {
            return Err(format!("\"{line}\" is not in\n{printed}"));
        }
    }
    Ok(())
}

/// Whether a line fits a pattern in which `…` stands for anything.
fn fits(line: &str, pattern: &str) -> bool {
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = squeezed(line);
    let mut parts = pattern.split('…').map(squeezed);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first.as_str()) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part.as_str()) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    rest.is_empty() || last.is_some_and(|part| part.is_empty() || line.ends_with(part.as_str()))
}

#[test]
fn marked_blocks_are_found() {
    let markdown = "# x\n```sql\nSELECT 1;\n```\n<!-- test: sql -->\n\n```sql\nSELECT 2;\nSELECT 3;\n```\n<!-- test: shows -->\n```\n2\n```\n";
    assert_eq!(
        blocks(markdown),
        [
            Block { kind: Kind::Sql, line: 7, text: "SELECT 2;\nSELECT 3;".into() },
            Block { kind: Kind::Shows, line: 12, text: "2".into() },
        ]
    );
    assert!(shows("a\n x  | 17 |\nb", "x | … |\nb").is_ok());
    assert!(shows("a\nb", "b\na").is_err());
    assert!(fits("run.failed | 3f2a", "run.failed | …") && !fits("run.failed", "run.finished"));
}

#[test]
fn the_tour_runs_as_it_stands() {
    follow("README.md");
}

#[test]
fn the_cookbook_runs_as_it_stands() {
    follow("docs/cookbook.md");
}

#[test]
fn the_requests_of_postgrest_do_what_is_said_of_them() {
    follow("docs/postgrest.md");
}

/// Does what a document says, in a database of its own.
fn follow(document: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let markdown = std::fs::read_to_string(root.join(document)).expect("the document reads");
    let blocks = blocks(&markdown);
    assert!(blocks.iter().any(|block| block.kind == Kind::Sql), "{document} is marked");
    let database = Database::bare(Cluster::shared());
    let psql = database.cluster.client("psql", &database.name).get_program().to_owned();
    let workshop = Workshop::new(Path::new(&psql));
    let mut printed = String::new();
    for block in blocks {
        let place = format!("{document} line {}", block.line);
        let command = match block.kind {
            Kind::Shows => {
                shows(&printed, &block.text).unwrap_or_else(|error| panic!("{place}: {error}"));
                continue;
            }
            Kind::Sql => {
                let mut command = database.cluster.client("psql", &database.name);
                command.args(["-X", "-v", "ON_ERROR_STOP=1", "-c", &block.text]);
                command
            }
            Kind::Sh => workshop.shell(&database, &block.text),
        };
        printed = run(command, &place);
    }
}

/// Where the shell blocks run. What they leave running is in `*.pid` files, as the tour writes them,
/// and is ended when this is dropped, should the tour break off before it does so itself.
struct Workshop {
    installation: Installation,
    path: OsString,
}

impl Workshop {
    fn new(psql: &Path) -> Self {
        let installation = Installation::empty();
        // Under its own name, whatever `KLAXON_BIN` calls it.
        let programs = installation.folder().join("bin");
        std::fs::create_dir(&programs).expect("a folder can be made");
        std::os::unix::fs::symlink(binary().canonicalize().expect("it exists"), programs.join("klaxon"))
            .expect("a link can be made");
        let folders =
            [programs, psql.parent().expect("a path").to_path_buf(), "/usr/bin".into(), "/bin".into()];
        Self { installation, path: std::env::join_paths(folders).expect("no colon in them") }
    }

    /// A shell whose `psql` and `klaxon` are those under test, and lead to the database.
    fn shell(&self, database: &Database<'_>, script: &str) -> Command {
        let surroundings = database.cluster.client("psql", &database.name);
        let mut command = Command::new("sh");
        command.args(["-euc", script]).current_dir(self.installation.folder()).env("PATH", &self.path);
        for (name, value) in surroundings.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let Ok(files) = std::fs::read_dir(self.installation.folder()) else { return };
        for path in files.flatten().map(|entry| entry.path()) {
            let pid = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            if let (Some("pid"), Some(pid)) = (path.extension().and_then(|name| name.to_str()), pid) {
                // Gone already where the tour reached its end.
                let _ = process::signal(pid, "KILL");
            }
        }
    }
}

fn run(mut command: Command, place: &str) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(output.status.success(), "{place}: {printed}");
    printed
}
