//! An installation of Postgres: the one under test, another version's, or a copy to change.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::process;

/// Where an installation's programs and the files of its extensions are.
#[derive(Clone, Debug)]
pub struct Postgres {
    bin: PathBuf,
    library: PathBuf,
    share: PathBuf,
    /// Of a copy: gone with the last that uses it.
    _folder: Option<Arc<TempDir>>,
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
        Ok(Self {
            bin: ask("--bindir")?,
            library: ask("--pkglibdir")?,
            share: ask("--sharedir")?,
            _folder: None,
        })
    }

    /// A copy of it, whose extensions can be changed without anybody else noticing: Postgres finds its files from
    /// where its programs are.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn copy(&self) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("klaxon-postgres-").tempdir()?;
        process::run(Command::new("chmod").arg("755").arg(folder.path()))?;
        let copied = |from: &Path| -> anyhow::Result<PathBuf> {
            let to = folder.path().join(from.strip_prefix("/").context("pg_config answers absolute paths")?);
            std::fs::create_dir_all(to.parent().context("it has a parent")?)?;
            process::run(Command::new("cp").arg("-a").arg(from).arg(&to))?;
            Ok(to)
        };
        let (bin, library, share) = (copied(&self.bin)?, copied(&self.library)?, copied(&self.share)?);
        Ok(Self { bin, library, share, _folder: Some(Arc::new(folder)) })
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

    /// The folder of control files and scripts.
    #[must_use]
    pub fn extension(&self) -> PathBuf {
        self.share.join("extension")
    }

    /// The folder of libraries.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Whether the extension is installed there.
    #[must_use]
    pub fn has_klaxon(&self) -> bool {
        self.extension().join("pg_klaxon.control").is_file()
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
