//! A row of the table: printed, and kept in `target/faults` for the table of the whole run.

use std::path::Path;

use klaxon_tests::history::verdict::Verdict;

/// What a case came to.
#[derive(Debug)]
pub struct Row {
    /// What befell.
    pub fault: String,
    /// How often, or for how long.
    pub times: String,
    /// Deliveries of committed events.
    pub committed: usize,
    /// Those of them that never arrived.
    pub lost: usize,
    /// Requests beyond the one that was answered.
    pub duplicated: usize,
    /// Of these, those of what was not in flight at a fault.
    pub unexplained: usize,
    /// Requests of what was not committed.
    pub phantom: usize,
    /// The longest time from a fault's end until what was then emitted had arrived, in seconds.
    pub recovery: Option<f64>,
}

/// The table's head.
const HEAD: &str = "| fault | times | deliveries | lost | twice | of these not in flight | phantom | recovery | command |\n\
                    |---|--:|--:|--:|--:|--:|--:|--:|---|";

impl Row {
    /// The row of a verdict.
    pub fn new(fault: &str, times: String, verdict: &Verdict, recovery: Option<f64>) -> Self {
        Self {
            fault: fault.to_owned(),
            times,
            committed: verdict.expected,
            lost: verdict.lost,
            duplicated: verdict.repeated.values().sum::<usize>() + verdict.unexplained,
            unexplained: verdict.unexplained,
            phantom: verdict.phantom,
            recovery,
        }
    }

    /// Prints it, and keeps it by the test's name.
    pub fn print(&self, test: &str) {
        let Self { fault, times, committed, lost, duplicated, unexplained, phantom, .. } = self;
        let recovery = self.recovery.map_or_else(|| "none needed".to_owned(), |time| format!("{time:.1} s"));
        let row = format!(
            "| {fault} | {times} | {committed} | {lost} | {duplicated} | {unexplained} | {phantom} | {recovery} | `make test-faults CASE={test}` |"
        );
        println!("\n{HEAD}\n{row}");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/faults");
        let kept = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join(test.replace("::", "-")), format!("{row}\n")));
        kept.expect("target can be written");
    }
}
