//! A real test run: this repository's own suite, run now, reported as JUnit XML.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::Event;
use tempfile::TempDir;
use tokio::process::Command;

/// What a run's report says.
#[derive(Debug, Default)]
pub struct Report {
    /// Test cases.
    pub total: i32,
    /// Those with a failure or an error.
    pub failed: Vec<String>,
    /// From start to end.
    pub duration: Duration,
}

impl Report {
    /// Reads JUnit XML.
    ///
    /// # Errors
    /// It is no XML, or holds no test case.
    pub fn parse(xml: &str) -> anyhow::Result<Self> {
        let mut reader = Reader::from_str(xml);
        let (mut report, mut case) = (Self::default(), String::new());
        loop {
            match reader.read_event()? {
                Event::Start(tag) | Event::Empty(tag) => match tag.name().as_ref() {
                    "testcase" => {
                        report.total += 1;
                        let attribute = |name: &str| {
                            let raw =
                                tag.try_get_attribute(name)?.map(|found| found.value).unwrap_or_default();
                            anyhow::Ok(unescape(&raw)?.into_owned())
                        };
                        case = format!("{}::{}", attribute("classname")?, attribute("name")?);
                    }
                    "failure" | "error" => report.failed.push(case.clone()),
                    _ => {}
                },
                Event::Eof => break,
                _ => {}
            }
        }
        if report.total == 0 {
            bail!("the report holds no test case");
        }
        Ok(report)
    }

    /// Both reports as one run's.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.total += other.total;
        self.failed.extend(other.failed);
        self.duration += other.duration;
        self
    }
}

/// A built test program.
pub struct Suite {
    program: PathBuf,
    _folder: Option<TempDir>,
}

impl Suite {
    /// Builds a crate's own tests, as `cargo test` does.
    ///
    /// # Errors
    /// They do not build.
    pub async fn of_crate(name: &str) -> anyhow::Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["test", "--no-run", "--message-format=json", "--lib", "-p", name]);
        let messages = built(&mut command).await?;
        let program = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["profile"]["test"] == true)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .context("cargo named no test program")?;
        Ok(Self { program, _folder: None })
    }

    /// Builds one file's tests, which need nothing but the standard library.
    ///
    /// # Errors
    /// They do not build.
    pub async fn of_file(source: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("suite");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        built(Command::new(rustc).args(["--edition", "2024", "--test", source, "-o"]).arg(&program)).await?;
        Ok(Self { program, _folder: Some(folder) })
    }

    /// Runs it. The JUnit format is unstable in libtest, hence the switch that lets a stable build use it.
    ///
    /// # Errors
    /// It does not start, or prints no report; failing tests are none.
    pub async fn run(&self, variables: &[(&str, &str)]) -> anyhow::Result<Report> {
        let began = Instant::now();
        let output = Command::new(&self.program)
            .args(["-Z", "unstable-options", "--format", "junit"])
            .env("RUSTC_BOOTSTRAP", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .await
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut report = Report::parse(&String::from_utf8_lossy(&output.stdout))
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        report.duration = began.elapsed();
        Ok(report)
    }
}

/// Runs a compiler in the repository and returns what it printed.
async fn built(command: &mut Command) -> anyhow::Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output =
        command.current_dir(root).stdin(Stdio::null()).output().await.context("cannot start the compiler")?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_cases_and_names_failures() {
        let xml = r#"<?xml version="1.0"?><testsuites><testsuite tests="3" failures="1">
            <testcase classname="a" name="passes" time="0"/>
            <testcase classname="a" name="fails" time="0"><failure type="assert"/><system-out><![CDATA[<failure/>]]></system-out></testcase>
            <testcase classname="b" name="passes" time="0"/></testsuite></testsuites>"#;
        let report = Report::parse(xml).unwrap();
        assert_eq!((report.total, report.failed), (3, vec!["a::fails".to_owned()]));
        assert!(Report::parse("<testsuites/>").is_err());
        assert!(Report::parse("<testsuites><testcase").is_err());
    }
}
