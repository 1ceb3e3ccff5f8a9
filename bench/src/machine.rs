//! What the figures were measured on, and with.

use std::fs;
use std::process::Command;

use klaxon_tests::process;

use crate::SETTINGS;
use crate::contender::Who;
use crate::deliver::CONCURRENCY;
use crate::peer::Peer;
use crate::report::Report;

/// Writes the machine, the versions, the settings, and how the peers are tuned.
pub async fn describe(report: &mut Report) -> anyhow::Result<()> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": a processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism()?;
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let kilobytes = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or("0 kB");
    let gigabytes = kilobytes.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1e6;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let pg_config = std::env::var_os("PG_CONFIG").unwrap_or_else(|| "/usr/bin/pg_config".into());
    let postgres = process::run(Command::new(pg_config).arg("--version"))?;
    let mut text = format!(
        "{model}, {cores} cores, {gigabytes:.0} GB of memory, Linux {}, {}. Everything runs on this one machine: the cluster, what \
         delivers, and the receiver. Beside what is default: {}.\n\nThe peers come from their registries, in the versions that \
         `bench/peers` locks, each with a handler that posts, each in a database of its own on the same cluster:\n\n\
         | | version | tuned for {CONCURRENCY} requests in flight |\n|---|---|---|\n",
        kernel.trim(),
        postgres.trim(),
        SETTINGS.map(|(name, value)| format!("`{name} = {value}`")).join(", "),
    );
    text += &format!(
        "| {} | {} | `--concurrency {CONCURRENCY} --per-channel 16`, four channels with `hmac_secret`; `shared_preload_libraries = pg_klaxon` |\n",
        Who::Klaxon.name(),
        env!("CARGO_PKG_VERSION")
    );
    for peer in Peer::ALL {
        let about = peer.about(CONCURRENCY).await?;
        text += &format!("| {} | {} | `{}` |\n", peer.name(), about.version, about.tuning);
    }
    report.prose("The machine, and what runs on it", text.trim_end());
    Ok(())
}
