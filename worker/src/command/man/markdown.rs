//! The commands, settings and metrics as pages of the book, of the definitions that the program itself has.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Command};

use crate::metrics::{DATABASE, Metric, OWN};

/// The heading under which every command has the settings.
const SETTINGS: &str = "Settings";
/// How a help text says what is taken where nothing is given.
const DEFAULT: &str = " [default: ";

/// Writes `cli.md` and `metrics.md` into a folder.
///
/// # Errors
/// It cannot be written to.
pub fn write(klaxon: Command, folder: &Path) -> std::io::Result<()> {
    std::fs::write(folder.join("cli.md"), commands(klaxon))?;
    std::fs::write(folder.join("metrics.md"), metrics())
}

fn commands(klaxon: Command) -> String {
    let mut klaxon = klaxon.disable_help_subcommand(true);
    klaxon.build();
    let mut page = String::from(
        "# Commands and settings\n\nWritten by `make reference` from the definitions that `klaxon --help` prints.\n",
    );
    page.push_str("\n## Settings\n\nEach is a flag of every command, here without its two hyphens; a key of the configuration file; and, in capitals and \
         with underscores, `KLAXON_…` in the environment. Flags win over the environment, which wins over the file. A list is a repeated \
         flag, commas in the environment, an array in the file. `TIME` is a number with `ms`, `s`, `min` or `h`.\n\n\
         | setting | value | default | |\n|---|---|---|---|\n");
    for setting in klaxon.get_arguments().filter(|argument| argument.get_help_heading() == Some(SETTINGS)) {
        let (says, default) = help(setting);
        let name = setting.get_long().unwrap_or_default();
        page.push_str(&format!("| `{name}` | {} | {default} | {says} |\n", value(setting)));
    }
    let config = klaxon.get_arguments().filter(|argument| argument.get_id() == "config");
    for argument in config {
        let (says, default) = help(argument);
        let _ = write!(
            page,
            "\nBeside them every command takes `--config {}` (`KLAXON_CONFIG`): {}. Where it is not given: {default}.\n",
            value(argument).trim_matches('`'),
            lowered(&says)
        );
    }
    page.push_str("\n## Commands\n");
    for command in klaxon.get_subcommands_mut() {
        describe(command, "klaxon", &mut page);
    }
    page
}

/// One command, and those below it.
fn describe(command: &mut Command, above: &str, page: &mut String) {
    let name = format!("{above} {}", command.get_name());
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    // The first line is a heading, and has no full stop.
    let (head, rest) = about.split_once("\n\n").unwrap_or((&about, ""));
    let rest = if rest.is_empty() { String::new() } else { format!(" {}", escaped(rest)) };
    let _ = write!(page, "\n### {name}\n\n{}.{rest}\n", escaped(head));
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| {
            !argument.is_global_set() && !["help", "version"].contains(&argument.get_id().as_str())
        })
        .collect();
    if !own.is_empty() {
        page.push_str("\n| | |\n|---|---|\n");
        for argument in own {
            let (says, default) = help(argument);
            let default = if default.is_empty() { default } else { format!("; else {default}") };
            let _ = writeln!(page, "| {} | {says}{default} |", shown(argument));
        }
    }
    for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
        describe(below, &name, page);
    }
}

/// An argument as it is typed.
fn shown(argument: &Arg) -> String {
    let value = value(argument);
    match argument.get_long() {
        None => value,
        Some(long) if value.is_empty() => format!("`--{long}`"),
        Some(long) => format!("`--{long} {}`", value.trim_matches('`')),
    }
}

/// The name of its value; nothing for a switch.
fn value(argument: &Arg) -> String {
    if !argument.get_action().takes_values() {
        return String::new();
    }
    let names = argument.get_value_names().unwrap_or_default();
    let name = match names {
        [] => argument.get_id().as_str().to_uppercase(),
        names => names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    };
    format!("`{name}`")
}

/// What it says of itself, and what is taken where it is not given.
fn help(argument: &Arg) -> (String, String) {
    let text = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let possible: Vec<String> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let (says, default) = match text.split_once(DEFAULT) {
        Some((says, default)) => (says, default.trim_end_matches(']').to_owned()),
        None => {
            let hidden = argument.is_hide_default_value_set() || !argument.get_action().takes_values();
            let defaults: Vec<_> =
                argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            (text.as_str(), if hidden { String::new() } else { defaults.join(", ") })
        }
    };
    let says = if possible.is_empty() {
        escaped(says)
    } else {
        format!("{}: {}", escaped(says), possible.join(", "))
    };
    (says, escaped(&default))
}

fn lowered(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_lowercase().collect::<String>() + rest.as_str()).unwrap_or_default()
}

/// On one line, and nothing of it a table's or a tag's.
fn escaped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").replace('<', "&lt;")
}

fn metrics() -> String {
    let mut page = String::from(
        "# Metrics\n\nWritten by `make reference` from the definitions that `/metrics` is answered by. [Running it](../operations.md#metrics) says where that is.\n",
    );
    for (heading, metrics) in
        [("Of this worker", &OWN[..]), ("Of the whole database, whichever worker is asked", &DATABASE[..])]
    {
        let _ = write!(page, "\n## {heading}\n\n| metric | is a | labels | |\n|---|---|---|---|\n");
        for Metric { name, kind, labels, says } in metrics {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(page, "| `{name}` | {} | {} | {says} |", kind.as_str(), labels.join(", "));
        }
    }
    page
}
