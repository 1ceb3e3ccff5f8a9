//! What each operation may cost.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

const HEAD: &str = "\
# Instructions of the hot paths, each once, as callgrind counts them in the release build. `make budget` fails where one
# has grown by more than `percent`. A change that means it says so by a new figure here: make budget KLAXON_BLESS=1.
";

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// How much more than the figure is let pass.
    percent: f64,
    /// By operation.
    pub instructions: BTreeMap<String, u64>,
}

impl Budget {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = format!("{HEAD}percent = {}\n\n[instructions]\n", self.percent);
        for (name, count) in &self.instructions {
            writeln!(text, "{name} = {count}")?;
        }
        Ok(fs::write(path, text)?)
    }

    /// A line of the table, or what is wrong.
    pub fn judge(&self, name: &str, count: u64) -> Result<String, String> {
        let Some(&budget) = self.instructions.get(name) else {
            return Err(format!("{name:<18} {:>10} {count:>10}  not in the budget", "-"));
        };
        let growth = (count as f64 - budget as f64) / budget.max(1) as f64 * 100.0;
        let line = format!("{name:<18} {budget:>10} {count:>10} {growth:>+7.1}%");
        if growth > self.percent { Err(format!("{line}  over the budget")) } else { Ok(line) }
    }

    /// Operations of the file that there are no more.
    pub fn strangers<'b>(&'b self, operations: &[&str]) -> impl Iterator<Item = &'b str> {
        let gone: Vec<&str> =
            self.instructions.keys().map(String::as_str).filter(|name| !operations.contains(name)).collect();
        gone.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_pass_and_six_do_not() {
        let budget: Budget = toml::from_str("percent = 5\n[instructions]\na = 1000\nb = 1").unwrap();
        for (name, count, passes) in [
            ("a", 1000, true),
            ("a", 1050, true),
            ("a", 1060, false),
            ("a", 10, true),
            ("unknown", 10, false),
        ] {
            assert_eq!(budget.judge(name, count).is_ok(), passes, "{name} {count}");
        }
        assert_eq!(budget.strangers(&["a"]).collect::<Vec<_>>(), ["b"]);
    }
}
