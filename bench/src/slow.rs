//! A receiver that takes its time: who keeps it busy.

use std::time::Duration;

use crate::board::{Better, Board};
use crate::contender::{Contender, PATH, Who};
use crate::plan::Plan;
use crate::plot::Plot;
use crate::report::{Goal, Report};
use crate::sink::Sink;
use crate::stage::preloaded;

const TIME: Duration = Duration::from_millis(50);
const IN_FLIGHT: usize = 512;

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let count = plan.pick(5_000, 40_000);
    let cluster = preloaded("pg_klaxon")?;
    let (mut rate, mut memory) = (Board::default(), Board::default());
    for round in 0..plan.rounds() {
        for who in Who::in_turn(round) {
            let contender = Contender::set(&cluster, who, Sink::taking(TIME)?).await?;
            contender.fill(count).await?;
            let process = contender.work(IN_FLIGHT).await?;
            contender.finish(count).await?;
            rate.push(who, (count - 1) as f64 / contender.sink().span(PATH));
            memory.push(who, process.megabytes());
            drop(process);
            contender.end()?;
        }
    }
    report.section(&format!("{count} deliveries to a receiver that takes 50 ms, {IN_FLIGHT} in flight"));
    report.row("deliveries a second that so many in flight allow", &[IN_FLIGHT as f64 / TIME.as_secs_f64()]);
    rate.rows(report, "deliveries a second");
    rate.against_best(
        report,
        "deliveries a second where the receiver takes 50 ms",
        Better::More,
        Goal::AtLeast(1.2),
    );
    memory.rows(report, "MB of the worker's memory");
    report.reach("MB of the worker's memory with 512 in flight", memory.of(Who::Klaxon), Goal::AtMost(64.0));
    report.plot(
        "slow",
        &Plot::bars("Deliveries a second to a receiver that takes 50 ms", "a second", rate.named()),
    );
    Ok(())
}
