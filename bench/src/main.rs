//! What `make bench` measures: medians of alternating rounds on one machine, and ratios wherever there
//! is something to compare to, because absolute figures are that machine's.
//!
//! Writes `docs/benchmarks.md`. Arguments choose among the modules below; without any, all of them run and the
//! file is written. `QUICK=1` in the environment measures less of each.

mod append;
mod backlog;
mod cpu;
mod deliver;
mod emit;
mod latency;
mod plan;
mod report;
mod sink;
mod snapshot;
mod stage;
mod verify;
mod wakeup;
mod work;

use klaxon_tests::cluster::Cluster;
use plan::Plan;
use report::Report;

/// The settings of the cluster: durable, and with room for the working set.
pub const SETTINGS: [(&str, &str); 4] =
    [("fsync", "on"), ("synchronous_commit", "on"), ("shared_buffers", "1GB"), ("max_wal_size", "8GB")];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    let plan = Plan::of_environment();
    let mut report = Report::new(&format!(
        "Written by `make bench{}`: medians of alternating rounds, with minimum and maximum, on the machine it ran on. \
         The cluster is durable (`fsync`, `synchronous_commit` on); the receiver costs as little as one can, and checks \
         that everything arrives.",
        if plan.is_quick() { " QUICK=1" } else { "" }
    ));
    if wanted("emit") {
        emit::measure(&Cluster::start(&SETTINGS)?, plan, &mut report).await?;
    }
    if wanted("wakeup") {
        wakeup::measure(plan, &mut report).await?;
    }
    if wanted("latency") {
        latency::measure(plan, &mut report).await?;
    }
    if wanted("deliver") {
        deliver::measure(plan, &mut report).await?;
    }
    if wanted("work") {
        work::measure(plan, &mut report).await?;
    }
    if wanted("backlog") {
        backlog::measure(plan, &mut report).await?;
    }
    if wanted("snapshot") {
        snapshot::measure(plan, &mut report).await?;
    }
    if wanted("append") {
        append::measure(plan, &mut report).await?;
    }
    if wanted("verify") {
        verify::measure(plan, &mut report).await?;
    }
    let text = report.into_text();
    if chosen.is_empty() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md"), text)?;
    }
    Ok(())
}
