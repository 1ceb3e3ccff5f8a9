//! What shells and `man` make of what `klaxon` says of itself. A bare machine gets the shells from
//! `make setup`.

use std::process::{Command, Stdio};

use klaxon_tests::process;
use klaxon_tests::worker::binary;

/// What `klaxon` prints.
fn klaxon(arguments: &[&str]) -> String {
    process::run(Command::new(binary()).args(arguments)).unwrap_or_else(|error| panic!("{error:#}"))
}

/// What a program prints of a script; it must have nothing to object.
fn quietly(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; \"make setup\" installs it"));
    let objections = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && objections.is_empty(), "{program}: {objections}");
    String::from_utf8(output.stdout).unwrap()
}

/// A file with these contents.
fn file(contents: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), contents).unwrap();
    file
}

#[test]
fn bash_completes_commands_and_flags() {
    let script = file(&klaxon(&["completions", "bash"]));
    let complete = |words: &str| {
        let path = script.path().display();
        let ask = format!(
            "source {path}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _klaxon klaxon \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let told = quietly("bash", &["--norc", "-c", &ask]);
        told.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("klaxon re"), ["retry", "replay"]);
    assert_eq!(complete("klaxon retry --dr"), ["--dry-run"]);
    assert_eq!(complete("klaxon completions f"), ["fish"]);
    assert_eq!(complete("klaxon audit che"), ["checkpoint"]);
}

#[test]
fn zsh_takes_the_completions() {
    let script = file(&klaxon(&["completions", "zsh"]));
    let path = script.path().display();
    quietly("zsh", &["-f", "-n", &path.to_string()]);
    let told = quietly(
        "zsh",
        &["-f", "-c", &format!("autoload -Uz compinit; compinit -D; source {path}; print $_comps[klaxon]")],
    );
    assert_eq!(told, "_klaxon\n");
}

#[test]
fn fish_completes_commands_and_flags() {
    let script = file(&klaxon(&["completions", "fish"]));
    let path = script.path().display();
    let told = quietly(
        "fish",
        &[
            "--no-config",
            "-c",
            &format!("source {path}; complete -C 'klaxon re'; complete -C 'klaxon replay --dr'"),
        ],
    );
    let offered: Vec<_> = told.lines().map(|line| line.split('\t').next().unwrap_or_default()).collect();
    assert!(["retry", "replay", "--dry-run"].iter().all(|word| offered.contains(word)), "{told}");
    assert!(told.contains("Put dead letters back"), "fish shows what each does: {told}");
}

#[test]
fn every_command_has_a_manual_page_that_groff_accepts() {
    let folder = tempfile::tempdir().unwrap();
    klaxon(&["man", "--out", folder.path().to_str().unwrap()]);
    let pages: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let help = klaxon(&["--help"]);
    let commands = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let commands: Vec<_> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"doctor"), "{commands:?}");
    for command in commands {
        assert!(
            folder.path().join(format!("klaxon-{command}.1")).is_file(),
            "{command} has a page: {pages:?}"
        );
    }
    for page in &pages {
        let path = page.to_str().unwrap();
        quietly("groff", &["-man", "-ww", "-z", "-Tutf8", path]);
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains("\n.SH NAME\n") && page.contains("\n.SH SYNOPSIS\n"), "{path}: {page}");
    }
    let page = klaxon(&["man"]);
    assert_eq!(page, std::fs::read_to_string(folder.path().join("klaxon.1")).unwrap());
}
