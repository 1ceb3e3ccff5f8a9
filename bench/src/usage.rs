//! CPU time and memory as Linux counts them: what a delivery costs whatever else the machine does meanwhile.

use std::fs;

use anyhow::Context as _;
use klaxon_tests::cluster::Cluster;

/// Ticks a second of proc(5), which no Linux has otherwise.
const TICKS: f64 = 100.0;

/// Seconds a process has used.
pub fn of_process(pid: u32) -> anyhow::Result<f64> {
    let stat = Stat::read(pid).context("the process runs")?;
    Ok(stat.own / TICKS)
}

/// Seconds that those of our processes used which have ended and were waited for.
pub fn of_ended() -> anyhow::Result<f64> {
    Ok(Stat::read(std::process::id()).context("we run")?.reaped / TICKS)
}

/// Seconds a cluster has used, with the sessions that have ended.
pub fn of_cluster(cluster: &Cluster) -> anyhow::Result<f64> {
    let file = fs::read_to_string(cluster.socket_folder().join("data/postmaster.pid"))?;
    let postmaster: u32 = file.lines().next().context("a process id")?.trim().parse()?;
    let stat = Stat::read(postmaster).context("the postmaster runs")?;
    let mut ticks = stat.own + stat.reaped;
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        // A process that ended in the meantime is among the reaped the next time.
        let Some(stat) = Stat::read(pid) else { continue };
        if stat.parent == postmaster {
            ticks += stat.own;
        }
    }
    Ok(ticks / TICKS)
}

/// Bytes a process had resident at most; nought where there is none such.
pub fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// What matters of `/proc/PID/stat`.
struct Stat {
    parent: u32,
    own: f64,
    reaped: f64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in brackets, which may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: number(11)? + number(12)?,
            reaped: number(13)? + number(14)?,
        })
    }
}
