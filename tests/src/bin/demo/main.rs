//! `make demo`: events of a real test run leave a Postgres transaction and arrive, signed, at real
//! receivers, with a verified log behind them. Exits 0 only if all of it was observed.
//! `KEEP=1` leaves everything running until Ctrl-C.

mod junit;
mod show;

use std::process::ExitCode;

use anyhow::Context as _;
use klaxon_tests::cluster::{Cluster, SUPERUSER};
use klaxon_tests::database::Database;
use klaxon_tests::receiver::{Answer, HOST, Hook, Request};
use klaxon_tests::scene::Scene;
use klaxon_tests::smtp::{self, MailServer, Message};
use klaxon_tests::until::until;
use serde_json::json;

use junit::{Report, Suite};
use show::{Stage, Tone};

const SCHEMA: &str = include_str!("schema.sql");
const PROJECT: &str = "klaxon-model";
const SECRET: &str = "whsec_a2xheG9uLWRlbW8tc2VjcmV0LTI0LWI=";

/// Requests the story comes to: three to `ci`, three to `flaky`, two to `gone`.
const REQUESTS: usize = 8;

#[tokio::main]
async fn main() -> ExitCode {
    let told = tokio::select! {
        // What is kept running waits for the same Ctrl-C, and has then ended well.
        biased;
        told = tell() => told,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn tell() -> anyhow::Result<bool> {
    let mut stage = Stage::new();
    // Meanwhile the tests build.
    let suites = tokio::spawn(suites());
    stage.chapter("Setting up");
    let cluster = Cluster::start(&[])?;
    let mut scene = Scene::set(Database::create(&cluster)).await;
    stage.line(
        Tone::Plain,
        "postgres",
        &format!("private cluster on port {}, CREATE EXTENSION pg_klaxon", cluster.port()),
    );
    stage.line(Tone::Plain, "klaxon init", "keys and configuration written, public key in the database");
    let mut mail = scene.mail().await;
    stage.line(
        Tone::Plain,
        "receiver",
        &format!("https://{HOST} is {}, verifies signatures", scene.receiver.address()),
    );
    stage.line(Tone::Plain, "mail server", &format!("{}:587, demands STARTTLS and a login", smtp::HOST));
    scene.client.batch_execute(SCHEMA).await?;
    subscribe(&scene, &mail).await;
    let worker = scene.worker(&[]).await;
    stage.line(Tone::Plain, "klaxon run", &format!("serving, process {}", worker.pid()));
    let psql = format!("psql -h 127.0.0.1 -p {} -U {SUPERUSER} {}", cluster.port(), scene.database.name);
    stage.line(Tone::Plain, "look around", &psql);

    stage.chapter("Two real test runs");
    stage.line(Tone::Plain, "cargo test", &format!("building the tests of {PROJECT}"));
    let (suite, variant) = suites.await??;
    let (green, red) = test_runs(&stage, &suite, &variant).await?;
    stage.check("the suite passes", green.failed.is_empty());
    stage.check("the variant fails in one test", red.failed.len() == 1);
    load(&mut scene, &mut stage, "main", &green, 1).await?;
    load(&mut scene, &mut stage, "demo", &red, 5).await?;

    stage.chapter("What arrives, as it arrives");
    arrivals(&scene, &mut stage, &mut mail).await;
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;

    stage.chapter("What was given up: klaxon.dead_letter");
    dead_letters(&scene, &mut stage).await?;
    stage.chapter("Every attempt, in the audit log: klaxon.delivery");
    attempts(&scene, &mut stage).await?;
    audit(&scene, &mut stage).await?;

    let complete = stage.finish();
    if std::env::var_os("KEEP").is_some_and(|keep| !keep.is_empty() && keep != "0") {
        println!("\n  {psql}\n\nRunning until Ctrl-C.");
        tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
    } else {
        println!("\nCleaning up. `make demo KEEP=1` leaves it running, to look around with\n  {psql}");
    }
    Ok(complete)
}

/// Four channels, and who hears of what.
async fn subscribe(scene: &Scene<'_>, mail: &MailServer) {
    scene.webhook("ci", Hook::default().secret(SECRET), json!({}), &["run.*"]).await;
    scene.channel("mail", "email", mail.channel("team@example.com"), &["run.failed"]).await;
    let flaky = Hook::default().secret(SECRET).answers([
        Answer::status(500).body("not now"),
        Answer::status(503).header("retry-after", "1"),
        Answer::status(200),
    ]);
    scene.webhook("flaky", flaky, json!({"retry_schedule": [1, 1]}), &["run.failed"]).await;
    let gone = Hook::default().secret(SECRET).answers([Answer::status(500).body("out of order")]);
    scene.webhook("gone", gone, json!({"retry_schedule": [1]}), &["run.failed"]).await;
    // One that does not match, to be seen not matching.
    let filtered = "SELECT klaxon.subscribe(ARRAY['mail'], ARRAY['run.failed'], owner => NULL, filters => '{\"branches\": [\"main\"]}')";
    scene.client.batch_execute(filtered).await.expect("the subscription is valid");
}

/// This repository's own tests of `klaxon-model`, and one that can be made to fail.
async fn suites() -> anyhow::Result<(Suite, Suite)> {
    tokio::try_join!(Suite::of_crate(PROJECT), Suite::of_file("tests/tests/demo_input.rs"))
}

async fn test_runs(stage: &Stage, suite: &Suite, variant: &Suite) -> anyhow::Result<(Report, Report)> {
    let green = suite.run(&[]).await?;
    stage.line(Tone::Good, "junit", &summary(&green));
    let red = suite.run(&[]).await?.and(variant.run(&[("KLAXON_DEMO_FAIL", "1")]).await?);
    stage.line(Tone::Warn, "junit", &format!("{}: {}", summary(&red), red.failed.join(", ")));
    Ok((green, red))
}

fn summary(report: &Report) -> String {
    format!("{} tests, {} failed, {} ms", report.total, report.failed.len(), report.duration.as_millis())
}

/// One transaction: the row, the events its trigger emits, the deliveries they match.
async fn load(
    scene: &mut Scene<'_>,
    stage: &mut Stage,
    branch: &str,
    report: &Report,
    deliveries: usize,
) -> anyhow::Result<()> {
    let transaction = scene.client.transaction().await?;
    let (failed, duration) =
        (i32::try_from(report.failed.len())?, i32::try_from(report.duration.as_millis())?);
    transaction
        .execute(
            "INSERT INTO test_run (project, branch, total_tests, failed_tests, duration_ms, failures) VALUES ($1, $2, $3, $4, $5, $6)",
            &[&PROJECT, &branch, &report.total, &failed, &duration, &report.failed],
        )
        .await?;
    stage.line(
        Tone::Plain,
        "BEGIN",
        &format!("INSERT INTO test_run … ('{PROJECT}', '{branch}', {}, {failed}, …)", report.total),
    );
    let emitted = transaction
        .query("SELECT id, type FROM klaxon.event WHERE created_at = now() ORDER BY id", &[])
        .await?;
    let (mut matched, mut unmatched) = (0, 0);
    for event in &emitted {
        let (id, kind): (uuid::Uuid, String) = (event.get(0), event.get(1));
        stage.line(Tone::Plain, "  event", &format!("{kind:<14}{id}"));
        let channels = transaction
            .query(
                "SELECT c.name, c.kind FROM klaxon.outbox AS o JOIN klaxon.channel AS c ON c.id = o.channel_id
                 WHERE o.event_id = $1 ORDER BY c.id",
                &[&id],
            )
            .await?;
        matched += channels.len();
        for channel in channels {
            stage.line(
                Tone::Plain,
                "    match",
                &format!("{:<14}{}", channel.get::<_, &str>(0), channel.get::<_, &str>(1)),
            );
        }
        let others = transaction
            .query(
                "SELECT x.channel, x.reason FROM klaxon.event AS e, klaxon.explain_event(e.type, e.payload, e.project) AS x
                 WHERE e.id = $1 AND x.verdict = 'no' AND x.reason NOT LIKE 'listens to %' ORDER BY 1",
                &[&id],
            )
            .await?;
        unmatched += others.len();
        for other in others {
            stage.line(
                Tone::Plain,
                "    no match",
                &format!("{:<14}{}", other.get::<_, &str>(0), other.get::<_, &str>(1)),
            );
        }
    }
    transaction.commit().await?;
    stage.line(Tone::Plain, "COMMIT", "");
    stage.check("a subscription that does not match says why", failed == 0 || unmatched == 1);
    stage.check(&format!("{deliveries} deliveries matched for branch {branch}"), matched == deliveries);
    Ok(())
}

/// Tells of requests and mails until all of the story's have come.
async fn arrivals(scene: &Scene<'_>, stage: &mut Stage, mail: &mut MailServer) {
    let (mut requests, mut message) = (Vec::new(), None);
    while requests.len() < REQUESTS || message.is_none() {
        tokio::select! {
            request = scene.receiver.nth(requests.len()), if requests.len() < REQUESTS => {
                stage.line(tone(&request), request.path.trim_start_matches('/'), &told(&request));
                requests.push(request);
            }
            arrived = mail.next_message(), if message.is_none() => {
                stage.line(Tone::Good, "mail", &told_mail(&arrived));
                message = Some(arrived);
            }
        }
    }
    let statuses =
        |path: &str| requests.iter().filter(|r| r.path == path).map(|r| r.status).collect::<Vec<_>>();
    stage.check("every signature verified", requests.iter().all(|request| request.verified == Some(Ok(()))));
    stage.check("three deliveries at ci", statuses("/ci") == [200, 200, 200]);
    stage.check("flaky failed twice, then took it", statuses("/flaky") == [500, 503, 200]);
    stage.check("gone failed to the end", statuses("/gone") == [500, 500]);
    let ids = |path: &str| {
        let ids = requests.iter().filter(|r| r.path == path).map(|r| r.header("webhook-id").to_owned());
        ids.collect::<std::collections::BTreeSet<_>>().len()
    };
    stage.check("retries keep their delivery id", (ids("/ci"), ids("/flaky"), ids("/gone")) == (3, 1, 1));
    stage.check(
        "the mail came over TLS from a login",
        message.is_some_and(|m| m.tls && m.user.as_deref() == Some(smtp::USER)),
    );
}

fn tone(request: &Request) -> Tone {
    match (&request.verified, request.status) {
        (Some(Ok(())), 200..=299) => Tone::Good,
        (Some(Ok(())), _) => Tone::Warn,
        _ => Tone::Bad,
    }
}

fn told(request: &Request) -> String {
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let signature = match &request.verified {
        Some(Ok(())) => "signature verified".to_owned(),
        Some(Err(error)) => format!("signature refused: {error}"),
        None => "unsigned".to_owned(),
    };
    format!(
        "{:<14}attempt {}  {signature}  answered {}",
        body["type"].as_str().unwrap_or("?"),
        body["attempt"],
        request.status
    )
}

fn told_mail(message: &Message) -> String {
    let subject = message.headers.get("subject").map(String::as_str).unwrap_or_default();
    let how = if message.tls { "TLS" } else { "clear" };
    let user = message.user.as_deref().unwrap_or("nobody");
    format!("“{subject}”  to {} over {how}, logged in as {user}", message.rcpt_tos.join(", "))
}

async fn dead_letters(scene: &Scene<'_>, stage: &mut Stage) -> anyhow::Result<()> {
    let rows = scene
        .client
        .query(
            "SELECT c.name, d.event_type, d.attempts, coalesce(d.last_error, ''), d.reason
             FROM klaxon.dead_letter AS d LEFT JOIN klaxon.channel AS c ON c.id = d.channel_id ORDER BY d.dead_at",
            &[],
        )
        .await?;
    for row in &rows {
        let (channel, kind, error, reason): (&str, &str, &str, &str) =
            (row.get(0), row.get(1), row.get(3), row.get(4));
        stage.line(
            Tone::Warn,
            channel,
            &format!("{kind:<14}{} attempts  {error} ({reason})", row.get::<_, i32>(2)),
        );
    }
    stage.check(
        "one delivery is listed as dead, at gone",
        rows.len() == 1 && rows[0].get::<_, &str>(0) == "gone",
    );
    Ok(())
}

async fn attempts(scene: &Scene<'_>, stage: &mut Stage) -> anyhow::Result<()> {
    let rows = scene
        .client
        .query(
            "SELECT seq, channel_name, event_type, attempt, status, response_code, encode(substr(mac, 1, 6), 'hex')
             FROM klaxon.delivery WHERE kind = 'attempt' ORDER BY seq",
            &[],
        )
        .await?;
    for row in &rows {
        let (channel, kind, status, mac): (&str, &str, &str, &str) =
            (row.get(1), row.get(2), row.get(4), row.get(6));
        let code = row.get::<_, Option<i32>>(5).map(|code| code.to_string()).unwrap_or_default();
        let tone = if status == "sent" { Tone::Good } else { Tone::Warn };
        let line = format!("{kind:<14}attempt {}  {status:<7}{code:<5}mac {mac}…", row.get::<_, i32>(3));
        stage.line(tone, &format!("{:>3} {channel}", row.get::<_, i64>(0)), &line);
    }
    // What the receivers were sent, and the mail.
    stage.check("one row an attempt", rows.len() == REQUESTS + 1);
    Ok(())
}

async fn audit(scene: &Scene<'_>, stage: &mut Stage) -> anyhow::Result<()> {
    // Kept outside the database, so that a cut tail shows too.
    let checkpoint = scene.installation.run(&["audit", "checkpoint", "--json"]).await;
    let file = scene.installation.folder().join("checkpoint.json");
    std::fs::write(&file, checkpoint.stdout)?;
    let file = file.to_str().context("a temporary folder has a plain name")?;
    let output = scene.installation.run(&["audit", "verify", "--json", "--checkpoint", file]).await;
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let clean = output.status.success() && verdict["verdict"] == "clean";
    let line = format!(
        "klaxon audit verify --checkpoint …: {} rows, {} findings, {}",
        verdict["rows"],
        verdict["findings"].as_array().map_or(0, Vec::len),
        verdict["verdict"].as_str().unwrap_or("?")
    );
    stage.line(if clean { Tone::Good } else { Tone::Bad }, "verdict", &line);
    stage.check("the audit log verifies", clean);
    Ok(())
}
