//! What `make bench` measures: medians of alternating rounds on one machine, and ratios wherever there
//! is something to compare to, because absolute figures are that machine's.
//!
//! Writes `docs/benchmarks.md` and its plots. Arguments choose among the modules below; then the files are written
//! to `target/bench` instead. `QUICK=1` in the environment measures less of each.

mod append;
mod backlog;
mod board;
mod commits;
mod contender;
mod deliver;
mod emit;
mod fleet;
mod growth;
mod history;
mod kinds;
mod latency;
mod machine;
mod mail_sink;
mod model;
mod peer;
mod plan;
mod plot;
mod report;
mod sink;
mod slow;
mod snapshot;
mod stage;
mod usage;
mod verify;
mod wakeup;
mod work;

use std::path::Path;

use klaxon_tests::cluster::Cluster;
use plan::Plan;
use report::Report;

/// The settings of the cluster: durable, and with room for the working set.
pub const SETTINGS: [(&str, &str); 5] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("max_connections", "400"),
];

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
    if wanted("machine") {
        machine::describe(&mut report).await?;
    }
    if wanted("deliver") {
        deliver::measure(plan, &mut report).await?;
    }
    if wanted("commits") {
        commits::measure(plan, &mut report).await?;
    }
    if wanted("latency") {
        latency::measure(plan, &mut report).await?;
    }
    if wanted("slow") {
        slow::measure(plan, &mut report).await?;
    }
    if wanted("fleet") {
        fleet::measure(plan, &mut report).await?;
    }
    if wanted("kinds") {
        kinds::measure(plan, &mut report).await?;
    }
    if wanted("growth") {
        growth::measure(plan, &mut report).await?;
    }
    if wanted("emit") {
        emit::measure(&Cluster::start(&SETTINGS)?, plan, &mut report).await?;
    }
    if wanted("wakeup") {
        wakeup::measure(plan, &mut report).await?;
    }
    if wanted("work") {
        work::measure(plan, &mut report).await?;
    }
    if wanted("backlog") {
        backlog::measure(plan, &mut report).await?;
    }
    if wanted("history") {
        history::measure(plan, &mut report).await?;
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
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    report.write(&home.join(if chosen.is_empty() { "docs" } else { "target/bench" }))
}
