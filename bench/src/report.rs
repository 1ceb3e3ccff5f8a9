//! What is printed and kept: tables of medians with what they ranged between, plots, and how far the ratios are
//! from those that are wanted.

use std::fs;
use std::path::Path;

use crate::plot::Plot;

/// The least, or the most, that a ratio may be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("at least {}", figure(least)),
            Self::AtMost(most) => format!("at most {}", figure(most)),
        }
    }
}

/// A Markdown document, filled table by table.
#[derive(Debug)]
pub struct Report {
    head: String,
    text: String,
    goals: String,
    plots: Vec<(String, String)>,
}

impl Report {
    /// An empty one under a heading and an introduction.
    pub fn new(introduction: &str) -> Self {
        let head = format!("# Benchmarks\n\n{introduction}\n");
        print!("{head}");
        Self { head, text: String::new(), goals: String::new(), plots: Vec::new() }
    }

    /// What is known is shown at once: the rest may take long.
    fn add(&mut self, text: &str) {
        print!("{text}");
        self.text.push_str(text);
    }

    /// Begins a table.
    pub fn section(&mut self, title: &str) {
        self.add(&format!("\n## {title}\n\n| | median | minimum | maximum |\n|---|--:|--:|--:|\n"));
    }

    /// A heading and a text, before any table.
    pub fn prose(&mut self, title: &str, text: &str) {
        self.add(&format!("\n## {title}\n\n{text}\n"));
    }

    /// A row of values in one unit.
    pub fn row(&mut self, what: &str, values: &[f64]) {
        let (least, middle, most) = spread(values);
        self.add(&format!("| {what} | {} | {} | {} |\n", figure(middle), figure(least), figure(most)));
    }

    /// A row of what `count` things in each of these times come to a second.
    pub fn rate(&mut self, what: &str, count: f64, seconds: &[f64]) {
        self.row(what, &rates(count, seconds));
    }

    /// A row of ratios, round by round: whatever slows a whole round down slows both sides of it.
    pub fn ratio(&mut self, what: &str, values: &[f64], base: &[f64]) {
        self.row(what, &ratios(values, base));
    }

    /// The same for a ratio that is to be so large or so small.
    pub fn goal(&mut self, what: &str, values: &[f64], base: &[f64], goal: Goal) {
        self.reach(what, &ratios(values, base), goal);
    }

    /// A row of values that are to be so large or so small.
    pub fn reach(&mut self, what: &str, values: &[f64], goal: Goal) {
        self.row(what, values);
        let middle = median(values);
        let met = if goal.is_met(middle) { "yes" } else { "**no**" };
        self.goals.push_str(&format!("| {what} | {} | {} | {met} |\n", figure(middle), goal.text()));
    }

    /// A plot below the table.
    pub fn plot(&mut self, file: &str, plot: &Plot) {
        self.add(&format!("\n![{}](benchmarks/{file}.svg)\n", plot.title));
        self.plots.push((format!("{file}.svg"), plot.svg()));
    }

    /// Writes `benchmarks.md`, and the plots into `benchmarks` beside it.
    pub fn write(self, folder: &Path) -> anyhow::Result<()> {
        let goals = if self.goals.is_empty() {
            String::new()
        } else {
            format!("\n## Ratios\n\n| | median | wanted | met |\n|---|--:|--:|---|\n{}", self.goals)
        };
        let plots = folder.join("benchmarks");
        fs::create_dir_all(&plots)?;
        for (file, svg) in self.plots {
            fs::write(plots.join(file), svg)?;
        }
        Ok(fs::write(folder.join("benchmarks.md"), self.head + &goals + &self.text)?)
    }
}

/// Values round by round against others.
pub fn ratios(values: &[f64], base: &[f64]) -> Vec<f64> {
    values.iter().zip(base).map(|(value, base)| value / base).collect()
}

/// What `count` things in each of these times come to a second.
pub fn rates(count: f64, seconds: &[f64]) -> Vec<f64> {
    seconds.iter().map(|seconds| count / seconds).collect()
}

/// The least, the middle and the greatest of some values; nought of none.
pub fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let [least, .., most] = sorted[..] else {
        let only = sorted.first().copied().unwrap_or_default();
        return (only, only, only);
    };
    (least, quantile(&sorted, 0.5), most)
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    spread(values).1
}

/// The value below which this share of the ascending values lies.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted[at.min(sorted.len() - 1)]
}

/// A figure as tables and plots show it.
pub fn figure(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
