//! What `make bench` measures: medians of alternating rounds on one machine, and ratios wherever there
//! is something to compare to, because absolute figures are that machine's.
//!
//! Writes `docs/benchmarks.md`. Arguments choose among `emit`, `wakeup` and `deliver`; without any, both run and
//! the file is written.

mod deliver;
mod emit;
mod report;
mod wakeup;

use klaxon_tests::cluster::Cluster;
use report::Report;

/// Rounds of what takes seconds; shorter things take a multiple of it.
pub const ROUNDS: usize = 3;

/// The settings of the cluster: durable, and with room for the working set.
pub const SETTINGS: [(&str, &str); 4] =
    [("fsync", "on"), ("synchronous_commit", "on"), ("shared_buffers", "1GB"), ("max_wal_size", "8GB")];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    let cluster = Cluster::start(&SETTINGS)?;
    let mut report = Report::new(
        "Written by `make bench`: medians of alternating rounds, with minimum and maximum, on the machine it ran on. \
         The cluster is durable (`fsync`, `synchronous_commit` on), the receiver verifies every signature.",
    );
    if wanted("emit") {
        emit::measure(&cluster, &mut report).await?;
    }
    if wanted("wakeup") {
        wakeup::measure(&mut report).await?;
    }
    if wanted("deliver") {
        deliver::measure(&cluster, &mut report).await?;
    }
    let text = report.into_text();
    print!("{text}");
    if chosen.is_empty() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md"), text)?;
    }
    Ok(())
}
