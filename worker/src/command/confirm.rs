//! Asking before what cannot be taken back.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// Whether to go on: asks where there is somebody to ask, and otherwise takes the command for meant.
///
/// # Errors
/// The terminal is gone.
pub fn confirm(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}
