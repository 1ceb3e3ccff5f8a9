//! Instructions as callgrind counts them, which is one valgrind's.

use std::process::Command;

use anyhow::Context as _;

/// How often an operation is done, in the one run and in the other.
const FEW: u64 = 20;
const MANY: u64 = 120;

/// Instructions of an operation, once: what more of them cost more, so that nothing of starting is counted.
pub fn instructions(operation: &str) -> anyhow::Result<u64> {
    let (few, many) = (total(operation, FEW)?, total(operation, MANY)?);
    Ok(many.saturating_sub(few) / (MANY - FEW))
}

fn total(operation: &str, times: u64) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args([operation, &times.to_string()])
        .output()
        .context("cannot start valgrind: make setup installs it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{operation}: {}\n{said}", output.status);
    // ==PID== Collected : 12345
    let count = said.lines().find_map(|line| line.split_once("Collected : "));
    let (_, count) = count.with_context(|| format!("no count in what valgrind says:\n{said}"))?;
    Ok(count.trim().parse()?)
}
