//! Runs a chapter as it stands, from its first block to its last, in a database of its own.
//!
//! A block that begins with ```` ```sql ```` is typed into psql, in a session of its own; one with ```` ```sh ```` into a shell
//! whose `psql` and `klaxon` are those under test. A comment before a block says what else is true of it:
//!
//! - `<!-- test: shows -->`: it is what the block before it printed. Each line of it must appear, in this order; `…`
//!   stands for anything, and the rule under psql's heading for any rule.
//! - `<!-- test: shows in the end -->`: the same, of a block that is repeated until it does. For what a worker does meanwhile.
//! - `<!-- test: fails -->`: the SQL is refused, and what is shown after it is with which words.
//! - `<!-- not run: REASON -->`: it cannot be run here.
//!
//! `<!-- test: installed -->` at a chapter's top says that it begins where the README has created the extension and made a
//! deployment.

use std::ffi::OsString;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use klaxon_tests::process;
use klaxon_tests::worker::{Installation, binary};

use crate::root;

/// What is done with a block.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Sql,
    Fails,
    Sh,
    Shows,
    ShowsInTheEnd,
    /// Nothing: it is no command, or says why it cannot be run.
    Read,
}

#[derive(Debug, PartialEq)]
struct Block {
    kind: Kind,
    line: usize,
    text: String,
}

/// Languages of what is nobody's command.
const READ: [&str; 9] = ["text", "json", "toml", "ini", "yaml", "http", "python", "js", "rust"];

/// What a chapter asks to have done.
#[derive(Debug, Default, PartialEq)]
struct Script {
    installed: bool,
    blocks: Vec<Block>,
}

/// Reads a chapter.
fn script(markdown: &str) -> Result<Script, String> {
    let mut lines = markdown.lines().enumerate();
    let mut script = Script::default();
    let mut mark = None;
    while let Some((number, line)) = lines.next() {
        let place = number + 1;
        let comment = line.trim().strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        match comment.and_then(|comment| comment.split_once(": ")) {
            Some(("test", "installed")) => script.installed = true,
            Some(("test", kind @ ("shows" | "shows in the end" | "fails"))) => mark = Some((place, kind)),
            Some(("not run", reason)) if reason.split_whitespace().count() >= 3 => {
                mark = Some((place, "not run"))
            }
            Some(("test" | "not run", other)) => {
                return Err(format!("line {place}: unknown mark \"{other}\""));
            }
            _ => {}
        }
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        let text: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| !line.trim_start().starts_with("```"))
            .collect();
        let kind = match (language, mark.take().map(|(_, mark)| mark)) {
            ("sql", None) => Kind::Sql,
            ("sql", Some("fails")) => Kind::Fails,
            ("sh", None) => Kind::Sh,
            (_, Some("shows")) => Kind::Shows,
            (_, Some("shows in the end")) => Kind::ShowsInTheEnd,
            (_, Some("not run")) => Kind::Read,
            (language, None) if READ.contains(&language) => Kind::Read,
            (language, mark) => {
                return Err(format!("line {place}: a block of \"{language}\", marked {mark:?}"));
            }
        };
        script.blocks.push(Block { kind, line: place, text: text.join("\n") });
    }
    match mark {
        Some((place, mark)) => Err(format!("line {place}: no block follows the mark \"{mark}\"")),
        None => Ok(script),
    }
}

/// How many blocks of a chapter are run, and how many not for a reason that it gives.
pub fn runs(markdown: &str) -> Result<usize, String> {
    let script = script(markdown)?;
    Ok(script.blocks.iter().filter(|block| block.kind != Kind::Read).count())
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
fn blocks_are_found_with_what_is_done_with_them() {
    let markdown = "<!-- test: installed -->\n# x\n```sql\nSELECT 2;\nSELECT 3;\n```\n<!-- test: shows -->\n\n```text\n2\n```\n\
        <!-- not run: it needs a network -->\n```sh\nping\n```\n<!-- test: fails -->\n```sql\nx\n```\n";
    let block = |kind, line, text: &str| Block { kind, line, text: text.into() };
    assert_eq!(
        script(markdown),
        Ok(Script {
            installed: true,
            blocks: vec![
                block(Kind::Sql, 3, "SELECT 2;\nSELECT 3;"),
                block(Kind::Shows, 9, "2"),
                block(Kind::Read, 13, "ping"),
                block(Kind::Fails, 17, "x"),
            ]
        })
    );
    for (wrong, says) in [
        ("```\nx\n```", "a block of \"\""),
        ("```console\nx\n```", "a block of \"console\""),
        ("<!-- test: maybe -->", "unknown mark"),
        ("<!-- not run: no -->", "unknown mark"),
        ("<!-- test: shows -->", "no block follows"),
        ("<!-- test: fails -->\n```sh\nx\n```", "marked Some(\"fails\")"),
    ] {
        assert!(script(wrong).unwrap_err().contains(says), "{wrong}");
    }
    assert!(shows("a\n x  | 17 |\nb", "x | … |\nb").is_ok());
    assert!(shows("a\nb", "b\na").is_err());
    assert!(fits("run.failed | 3f2a", "run.failed | …") && !fits("run.failed", "run.finished"));
}

/// Does what a chapter says.
pub fn follow(chapter: &str) {
    let markdown = std::fs::read_to_string(root().join(chapter)).expect("the chapter reads");
    let script = script(&markdown).unwrap_or_else(|error| panic!("{chapter}: {error}"));
    let database = Database::bare(Cluster::shared());
    let psql = database.cluster.client("psql", &database.name).get_program().to_owned();
    let workshop = Workshop::new(Path::new(&psql));
    let sh = |text: &str| run(workshop.shell(&database, text), "", true);
    let sql = |text: &str, good: bool| {
        let mut command = database.cluster.client("psql", &database.name);
        command.args(["-X", "-v", "ON_ERROR_STOP=1"]).current_dir(workshop.installation.folder());
        run(command, text, good)
    };
    let perform = |block: &Block| match block.kind {
        Kind::Sh => sh(&block.text),
        kind => sql(&block.text, kind == Kind::Sql),
    };
    if script.installed {
        let begun =
            sql("CREATE EXTENSION pg_klaxon;", true).and_then(|_| sh("klaxon init --config klaxon.toml"));
        begun.unwrap_or_else(|error| panic!("{chapter}: {error}"));
    }
    let wrong = |block: &Block, error: String| -> ! { panic!("{chapter} line {}: {error}", block.line) };
    let mut printed = String::new();
    let mut blocks = script.blocks.iter().peekable();
    while let Some(block) = blocks.next() {
        match block.kind {
            Kind::Read => {}
            Kind::Shows | Kind::ShowsInTheEnd => {
                shows(&printed, &block.text).unwrap_or_else(|error| wrong(block, error));
            }
            _ => {
                let begun = Instant::now();
                let awaited = blocks.peek().filter(|next| next.kind == Kind::ShowsInTheEnd);
                printed = loop {
                    let done = perform(block);
                    let Some(awaited) = awaited else {
                        break done.unwrap_or_else(|error| wrong(block, error));
                    };
                    // What is waited for may not be there yet at all: a log, a row.
                    match done.and_then(|printed| shows(&printed, &awaited.text).map(|()| printed)) {
                        Ok(printed) => break printed,
                        Err(error) if begun.elapsed() > PATIENCE => wrong(awaited, error),
                        Err(_) => sleep(PAUSE),
                    }
                };
            }
        }
    }
}

/// How long something may take to show in the end, and the pause between two looks.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

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

/// What a program prints that is given this to read; an error where it ends otherwise than it should.
fn run(mut command: Command, text: &str, good: bool) -> Result<String, String> {
    // A file, not a pipe: what a script leaves running would hold a pipe open.
    let mut printed = tempfile::tempfile().expect("a temporary file");
    let mut typed = tempfile::tempfile().expect("a temporary file");
    typed.write_all(text.as_bytes()).and_then(|()| typed.rewind()).expect("a temporary file");
    let again = || Stdio::from(printed.try_clone().expect("a file can be opened twice"));
    let status = command.stdin(typed).stdout(again()).stderr(again()).status().expect("it starts");
    let mut said = String::new();
    printed.rewind().and_then(|()| printed.read_to_string(&mut said)).expect("it prints UTF-8");
    if status.success() == good { Ok(said) } else { Err(format!("ended with {status}: {said}")) }
}
