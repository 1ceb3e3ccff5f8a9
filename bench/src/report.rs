//! The table that is printed and kept: medians, with what they ranged between.

use std::fmt::Write as _;

/// A Markdown table, filled row by row.
#[derive(Debug)]
pub struct Report(String);

impl Report {
    /// An empty table under a heading and an introduction.
    pub fn new(introduction: &str) -> Self {
        Self(format!("# Benchmarks\n\n{introduction}\n"))
    }

    /// Begins a table.
    pub fn section(&mut self, title: &str) {
        let _ = write!(self.0, "\n## {title}\n\n| | median | minimum | maximum |\n|---|---|---|---|\n");
    }

    /// A row of values in one unit.
    pub fn row(&mut self, what: &str, values: &[f64]) {
        let mut sorted = values.to_vec();
        let middle = median(&mut sorted);
        let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
        let _ = writeln!(self.0, "| {what} | {} | {} | {} |", figure(middle), figure(least), figure(most));
    }

    /// A row of what `count` things in each of these times come to a second.
    pub fn rate(&mut self, what: &str, count: f64, seconds: &[f64]) {
        let rates: Vec<f64> = seconds.iter().map(|seconds| count / seconds).collect();
        self.row(what, &rates);
    }

    /// A row of ratios, round by round: whatever slows a whole round down slows both sides of it.
    pub fn ratio(&mut self, what: &str, seconds: &[f64], base: &[f64]) {
        let ratios: Vec<f64> = seconds.iter().zip(base).map(|(seconds, base)| seconds / base).collect();
        self.row(what, &ratios);
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn figure(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
