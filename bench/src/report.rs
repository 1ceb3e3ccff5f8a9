//! The table that is printed and kept: medians, with what they ranged between.

/// A Markdown table, filled row by row.
#[derive(Debug)]
pub struct Report(String);

impl Report {
    /// An empty table under a heading and an introduction.
    pub fn new(introduction: &str) -> Self {
        let mut report = Self(String::new());
        report.add(&format!("# Benchmarks\n\n{introduction}\n"));
        report
    }

    /// What is known is shown at once: the rest may take long.
    fn add(&mut self, text: &str) {
        print!("{text}");
        self.0.push_str(text);
    }

    /// Begins a table.
    pub fn section(&mut self, title: &str) {
        self.add(&format!("\n## {title}\n\n| | median | minimum | maximum |\n|---|---|---|---|\n"));
    }

    /// A row of values in one unit.
    pub fn row(&mut self, what: &str, values: &[f64]) {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
        let middle = quantile(&sorted, 0.5);
        self.add(&format!("| {what} | {} | {} | {} |\n", figure(middle), figure(least), figure(most)));
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

/// The value below which this share of the ascending values lies.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted[at.min(sorted.len() - 1)]
}

fn figure(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
