//! `klaxon man`: the manual pages, of the same definitions as the flags.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

mod markdown;

/// Print the manual page, or write those of all commands
#[derive(Args)]
pub struct Man {
    /// Write klaxon.1 and a page for each command into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write cli.md and metrics.md instead: what docs/reference/ has of them
    #[arg(long, requires = "out")]
    markdown: bool,
}

impl Man {
    /// Prints or writes them.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn run(self, klaxon: clap::Command) -> anyhow::Result<ExitCode> {
        match self.out {
            Some(folder) => {
                std::fs::create_dir_all(&folder)
                    .and_then(|()| match self.markdown {
                        true => markdown::write(klaxon, &folder),
                        false => clap_mangen::generate_to(klaxon, &folder),
                    })
                    .with_context(|| format!("cannot write into {}", folder.display()))?;
            }
            None => {
                let mut page = Vec::new();
                // As generate_to() has it: a page lists the commands that have pages.
                let mut klaxon = klaxon.disable_help_subcommand(true);
                klaxon.build();
                clap_mangen::Man::new(klaxon).render(&mut page)?;
                std::io::stdout().write_all(&page)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
