//! `klaxon completions`: what the shell offers at a tab.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

/// Print a shell's completions
///
/// bash: klaxon completions bash > /usr/share/bash-completion/completions/klaxon.
/// zsh: klaxon completions zsh > /usr/local/share/zsh/site-functions/_klaxon.
/// fish: klaxon completions fish > ~/.config/fish/completions/klaxon.fish.
#[derive(Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints them.
    ///
    /// # Errors
    /// Nobody reads them.
    pub fn run(self, mut klaxon: clap::Command) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut klaxon, "klaxon", &mut script);
        std::io::stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
