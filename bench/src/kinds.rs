//! Every kind of channel against a receiver of its own, so that none is slow by accident.

use std::time::{Duration, Instant};

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until_within;
use klaxon_tests::vendor::ALL;
use serde_json::{Value, json};

use crate::emit::insert;
use crate::mail_sink::{HOST, MailSink};
use crate::plan::Plan;
use crate::plot::Plot;
use crate::report::{Goal, Report};
use crate::stage::preloaded;

const LIMIT: Duration = Duration::from_secs(300);

pub async fn measure(plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let cluster = preloaded("pg_klaxon")?;
    let count = plan.pick(1_000, 10_000);
    let mut bars = Vec::new();
    let mail = mail(&cluster, plan, count).await?;
    report.section(&format!("{count} deliveries by one channel of each kind"));
    report.reach("mails a second over kept sessions", &mail.0, Goal::AtLeast(2_000.0));
    report.row("sessions that took", &mail.1);
    bars.push(("email".to_owned(), mail.0));
    for vendor in ALL {
        let mut rates = Vec::new();
        for _ in 0..plan.rounds() {
            rates.push(vendors(&cluster, vendor.kind, (vendor.config)(), count).await?);
        }
        report.row(
            &format!(
                "deliveries a second, {}, over TLS to a server that reads what it gets as the vendor does",
                vendor.kind
            ),
            &rates,
        );
        bars.push((vendor.kind.to_owned(), rates));
    }
    report.plot("kinds", &Plot::bars("Deliveries a second by one channel", "a second", bars));
    Ok(())
}

/// Mails a second, and sessions that they took.
async fn mail(cluster: &Cluster, plan: Plan, count: i64) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (mut rates, mut sessions) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds() {
        let sink = MailSink::start().await?;
        let mut scene = Scene::set(Database::create(cluster)).await;
        scene.connect(sink.connect_to());
        let config = json!({
            "smtp_host": HOST, "smtp_port": 25, "smtp_tls": false, "from_addr": "klaxon@mail.test", "to_addrs": ["ann@mail.test"]
        });
        scene.channel("mail", "email", config, &["run.failed"]).await;
        rates.push(rate(&scene, count).await?);
        sessions.push(sink.sessions() as f64);
        let taken = sink.taken();
        anyhow::ensure!(taken as i64 == count, "{taken} of {count} mails");
    }
    Ok((rates, sessions))
}

/// Deliveries a second to a vendor.
async fn vendors(cluster: &Cluster, kind: &str, config: Value, count: i64) -> anyhow::Result<f64> {
    let mut scene = Scene::set(Database::create(cluster)).await;
    let vendors = scene.vendors().await;
    scene.channel(kind, kind, config, &["run.failed"]).await;
    let rate = rate(&scene, count).await?;
    let (calls, refused) = (vendors.calls().len(), vendors.refused().len());
    anyhow::ensure!(calls as i64 == count && refused == 0, "{kind}: {calls} of {count}, {refused} refused");
    Ok(rate)
}

/// Deliveries a second, from the commit to the last that is settled.
async fn rate(scene: &Scene<'_>, count: i64) -> anyhow::Result<f64> {
    let mut worker = scene.worker(&[]).await;
    // One by which connections are opened.
    insert(&scene.client, "klaxon.event", "run.failed", 1).await?;
    until_within(LIMIT, &scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    insert(&scene.client, "klaxon.event", "run.failed", count - 1).await?;
    let begin = Instant::now();
    until_within(LIMIT, &scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let seconds = begin.elapsed().as_secs_f64();
    worker.signal("TERM");
    worker.wait().await;
    Ok((count - 1) as f64 / seconds)
}
