//! What a call and a delivery cost as subscriptions, and rows that wait, grow by powers of ten. Flat is the goal.

use std::time::Instant;

use crate::backlog::{dead_channel, drain, pile_up, stage};
use crate::plan::Plan;
use crate::plot::Plot;
use crate::report::{Report, median};
use crate::stage::{Stage, preloaded};

const CALLS: i64 = 2_000;
const BURST: i64 = 20_000;

/// A cost, and a rate, by size.
#[derive(Default)]
struct Curve {
    call: Vec<(f64, f64)>,
    rate: Vec<(f64, f64)>,
}

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let subscriptions = subscriptions(plan, report).await?;
    let waiting = waiting(plan, report).await?;
    for (file, title, x, curve) in [
        ("growth-subscriptions", "More subscriptions", "subscriptions", &subscriptions),
        ("growth-waiting", "More rows that wait", "rows that wait for a dead channel", &waiting),
    ] {
        let call = [("a call of notify_event".to_owned(), curve.call.clone())];
        let rate = [("deliveries".to_owned(), curve.rate.clone())];
        report.plot(
            &format!("{file}-call"),
            &Plot::growth(&format!("{title}: emitting"), x, "µs a call", &call),
        );
        report.plot(
            &format!("{file}-rate"),
            &Plot::growth(&format!("{title}: delivering"), x, "a second", &rate),
        );
    }
    Ok(())
}

/// Subscriptions of other types and projects, beside four that match.
async fn subscriptions(plan: Plan, report: &mut Report) -> anyhow::Result<Curve> {
    let cluster = preloaded("pg_klaxon")?;
    let stage = stage(&cluster).await?;
    stage
        .client
        .batch_execute("INSERT INTO klaxon.project (slug) SELECT 'p' || n FROM generate_series(0, 999) AS n")
        .await?;
    let _worker = stage.worker(&[]).await;
    let (mut curve, mut there) = (Curve::default(), 0);
    report.section("Growth: subscriptions of other types and projects");
    for size in [100, 1_000, 10_000, plan.pick(20_000, 100_000)] {
        stage
            .client
            .execute(
                "WITH others AS (
                     INSERT INTO klaxon.subscription (project, events)
                     SELECT 'p' || n % 1000, ARRAY[CASE n % 3 WHEN 0 THEN 'task.failed' WHEN 1 THEN 'run.finished' ELSE 'task.*' END]
                     FROM generate_series($1::bigint, $2::bigint) AS n
                     RETURNING id
                 )
                 INSERT INTO klaxon.subscription_channel (subscription_id, channel_id)
                 SELECT others.id, (SELECT min(id) FROM klaxon.channel) FROM others",
                &[&(there + 1), &size],
            )
            .await?;
        there = size;
        stage.client.batch_execute("VACUUM ANALYZE").await?;
        look(&stage, plan, size, "subscriptions", &mut curve, report).await?;
    }
    Ok(curve)
}

/// Rows that wait for a channel that is dead.
async fn waiting(plan: Plan, report: &mut Report) -> anyhow::Result<Curve> {
    let cluster = preloaded("pg_klaxon")?;
    let stage = stage(&cluster).await?;
    let dead = dead_channel(&stage).await?;
    let (mut curve, mut there) = (Curve::default(), 0);
    report.section("Growth: rows that wait for a dead channel");
    for size in [10_000, 100_000, plan.pick(200_000, 1_000_000), plan.pick(400_000, 10_000_000)] {
        pile_up(&stage, dead, there + 1, size).await?;
        there = size;
        // Anew: what it had in memory is not to be what it would have found.
        let mut worker = stage.worker(&[]).await;
        look(&stage, plan, size, "rows", &mut curve, report).await?;
        // It settles what it sent last: what is not settled the next one would send again.
        worker.signal("TERM");
        worker.wait().await;
    }
    Ok(curve)
}

async fn look(
    stage: &Stage<'_>,
    plan: Plan,
    size: i64,
    of: &str,
    curve: &mut Curve,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut calls, mut rates) = (Vec::new(), Vec::new());
    // The first round fills caches and opens connections, and is not counted.
    for round in 0..=plan.pick(1, 3) {
        let (call, rate) = (call(stage).await?, BURST as f64 / drain(stage, BURST).await?);
        if round > 0 {
            calls.push(call);
            rates.push(rate);
        }
    }
    report.row(&format!("µs a call of notify_event that matches four, {size} {of}"), &calls);
    report.row(&format!("deliveries a second, {size} {of}"), &rates);
    curve.call.push((size as f64, median(&calls)));
    curve.rate.push((size as f64, median(&rates)));
    Ok(())
}

/// Microseconds of one of many calls in a transaction, which is rolled back: nothing of it is to be delivered.
async fn call(stage: &Stage<'_>) -> anyhow::Result<f64> {
    stage.client.batch_execute("BEGIN").await?;
    let begin = Instant::now();
    stage
        .client
        .batch_execute(&format!(
            "DO $$ BEGIN FOR n IN 1..{CALLS} LOOP PERFORM klaxon.notify_event('run.failed', '{{\"run_id\": 1}}'); END LOOP; END $$"
        ))
        .await?;
    let seconds = begin.elapsed().as_secs_f64();
    stage.client.batch_execute("ROLLBACK").await?;
    Ok(seconds / CALLS as f64 * 1e6)
}
