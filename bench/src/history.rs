//! What a long audit log costs those who deliver: beside a database with millions of deliveries behind it, one
//! that has none, in turns.

use crate::backlog::{BURST, drain, in_turns, stage};
use crate::plan::Plan;
use crate::report::{Goal, Report};
use crate::stage::preloaded;

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let bursts = plan.pick(5, 50);
    let cluster = preloaded("pg_klaxon")?;
    let (young, old) = (stage(&cluster).await?, stage(&cluster).await?);
    let _workers = (young.worker(&[]).await, old.worker(&[]).await);
    for _ in 0..bursts {
        drain(&old, BURST).await?;
    }
    let (at_young, at_old) = in_turns(plan, &young, &old).await?;
    let logged = bursts * BURST;
    report.section(&format!("After {logged} deliveries, all of them in the audit log"));
    report.rate("deliveries a second where the log is short", BURST as f64, &at_young);
    let what = format!("deliveries a second after {logged} deliveries, against those");
    report.goal(&what, &at_young, &at_old, Goal::AtLeast(0.9));
    Ok(())
}
