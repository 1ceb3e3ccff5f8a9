//! What a long audit log costs those who deliver: beside a database with millions of deliveries behind it, one
//! that has none, in turns.

use crate::backlog::{BURST, drain, stage};
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
    let (mut at_young, mut at_old) = (Vec::new(), Vec::new());
    // The first round opens connections and is not counted.
    for round in 0..=plan.pick(2, 5) {
        let times = (drain(&young, BURST).await?, drain(&old, BURST).await?);
        if round > 0 {
            at_young.push(times.0);
            at_old.push(times.1);
        }
    }
    let logged = bursts * BURST;
    report.section(&format!("After {logged} deliveries, all of them in the audit log"));
    report.rate("deliveries a second where the log is short", BURST as f64, &at_young);
    let what = format!("deliveries a second after {logged} deliveries, against those");
    report.goal(&what, &at_young, &at_old, Goal::AtLeast(0.9));
    Ok(())
}
