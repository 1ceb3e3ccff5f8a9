//! An installation of Postgres: the one under test, or another version's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::process;

/// Where an installation's programs and the files of its extensions are.
#[derive(Clone, Debug)]
pub struct Postgres {
    bin: PathBuf,
    share: PathBuf,
}

impl Postgres {
    /// The one under test, which `PG_CONFIG` names.
    ///
    /// # Errors
    /// It does not run.
    pub fn under_test() -> anyhow::Result<Self> {
        Self::named_by("PG_CONFIG")
    }

    /// The one that people come from who have what is under test: Debian's own, unless `KLAXON_UPGRADE_FROM`
    /// names another's `pg_config`.
    ///
    /// # Errors
    /// It does not run.
    pub fn before() -> anyhow::Result<Self> {
        Self::named_by("KLAXON_UPGRADE_FROM")
    }

    fn named_by(variable: &str) -> anyhow::Result<Self> {
        let pg_config = std::env::var_os(variable).unwrap_or_else(|| "/usr/bin/pg_config".into());
        let ask = |what: &str| {
            process::run(Command::new(&pg_config).arg(what)).map(|answer| PathBuf::from(answer.trim()))
        };
        Ok(Self { bin: ask("--bindir")?, share: ask("--sharedir")? })
    }

    /// One of its programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The folder of its programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Whether the extension is installed there.
    #[must_use]
    pub fn has_klaxon(&self) -> bool {
        self.share.join("extension/pg_klaxon.control").is_file()
    }

    /// Its major version.
    ///
    /// # Errors
    /// It does not say.
    pub fn major(&self) -> anyhow::Result<u32> {
        let said = process::run(Command::new(self.program("postgres")).arg("--version"))?;
        let digits: String =
            said.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse().with_context(|| format!("no version in {said:?}"))
    }
}
