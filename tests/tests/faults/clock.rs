//! Clocks that are off, and moments at which calendars are odd.

use std::time::Duration;

use klaxon_tests::cluster::{Cluster, Surroundings};
use klaxon_tests::database::Database;
use klaxon_tests::faketime::Clock;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;
use tokio::time::sleep;

use crate::ground::{Ground, SETTINGS};
use crate::times;

const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;

/// The clock of the worker's host is off by that. Nothing comes earlier or later for it, and what is signed is
/// signed for now.
async fn off(test: &str, what: &str, seconds: i64) {
    let length = times(20, 3);
    let mut ground = Ground::set(&[]).await;
    let clock = Clock::off_by(seconds);
    for (name, value) in clock.environment() {
        ground.scene.environment(&name, &value);
    }
    ground.scene.webhook("signed", Hook::default().secret("sundial"), json!({}), &["cluster.new"]).await;
    ground.emit(6);
    let mut worker = ground.scene.worker(&[]).await;
    let served = worker.wait_for_log("that it serves", |line| line.message() == "serving").await;
    let says = served.0["timestamp"].as_str().unwrap_or_default().to_owned();
    let sql = "SELECT abs(extract(epoch FROM $1::text::timestamptz - clock_timestamp()) - $2::bigint)::double precision < 60";
    let row = ground.scene.client.query_one(sql, &[&says, &seconds]).await.unwrap();
    assert!(row.get::<_, bool>(0), "its clock is not off as it should be: {says}");
    ground.scene.emit("cluster.new", json!({})).await;
    let request = ground.scene.receiver.wait_at("/signed", 1).await.remove(0);
    assert_eq!(request.verified, Some(Ok(())), "signed for {}", request.header("webhook-timestamp"));
    sleep(Duration::from_secs(length as u64)).await;
    ground.recover().await;
    ground.judge(test, what, format!("{length} s"), vec![worker]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_fast() {
    off("clock::an_hour_fast", "clock of the worker's host an hour fast", HOUR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_slow() {
    off("clock::an_hour_slow", "clock of the worker's host an hour slow", -HOUR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_year_fast() {
    off("clock::a_year_fast", "clock of the worker's host a year fast", YEAR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_year_slow() {
    off("clock::a_year_slow", "clock of the worker's host a year slow", -YEAR).await;
}

/// A day on which a calendar is odd: what it is, the time zone and the time of day of a digest, when an event is
/// collected, and when it is to be sent.
type Day = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// In the order of time.
const DAYS: [Day; 7] = [
    (
        "clocks set forward, a skipped time",
        "Europe/Berlin",
        "02:30",
        "2027-03-28 00:10Z",
        "2027-03-28 01:00Z",
    ),
    (
        "clocks set back, a time shown twice",
        "Europe/Berlin",
        "02:30",
        "2027-10-31 00:10Z",
        "2027-10-31 01:30Z",
    ),
    ("clocks set back, between the two", "Europe/Berlin", "02:30", "2027-10-31 02:10Z", "2027-11-01 01:30Z"),
    ("the last evening of a year", "America/New_York", "00:00", "2027-12-31 22:00Z", "2028-01-01 05:00Z"),
    ("the day before a leap day", "UTC", "08:00", "2028-02-28 09:00Z", "2028-02-29 08:00Z"),
    ("a leap day", "Pacific/Kiritimati", "00:30", "2028-02-29 09:00Z", "2028-02-29 10:30Z"),
    ("the end of a month", "Asia/Kathmandu", "23:59", "2028-04-30 12:00Z", "2028-04-30 18:14Z"),
];

/// The clock of Postgres and of nothing else is moved, so that no other decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_days() {
    let start = 1_798_761_600; // 2027-01-01
    let clock = Clock::showing(start);
    let surroundings = Surroundings { environment: clock.environment(), ..Surroundings::default() };
    let cluster = Cluster::start_in(surroundings, &SETTINGS).expect("the cluster starts");
    let scene = Scene::set(Database::create(&cluster)).await;
    let _worker = scene.worker(&[]).await;
    for (number, (what, timezone, time, from, due)) in DAYS.into_iter().enumerate() {
        show(&scene, &clock, from, 0).await;
        let name = format!("day-{number}");
        let channel = scene.webhook(&name, Hook::default(), json!({}), &["cluster.new"]).await;
        let sql = "UPDATE klaxon.subscription AS s SET mode = 'digest', digest_at = $2::text::time, digest_timezone = $3
                   FROM klaxon.subscription_channel AS u WHERE u.subscription_id = s.id AND u.channel_id = $1";
        scene.client.execute(sql, &[&channel, &time, &timezone]).await.unwrap();
        scene.emit("cluster.new", json!({"day": number})).await;
        let item = "SELECT due_at = $2::text::timestamptz, due_at::text FROM klaxon.digest_item WHERE channel_id = $1";
        let row = scene.client.query_one(item, &[&channel, &due]).await.unwrap();
        assert!(row.get::<_, bool>(0), "{what}: due at {} rather than {due}", row.get::<_, String>(1));
        // Not before.
        show(&scene, &clock, due, -60).await;
        scene.client.batch_execute("SELECT klaxon.tick()").await.unwrap();
        assert!(scene.receiver.requests_at(&format!("/{name}")).is_empty(), "{what}: too early");
        show(&scene, &clock, due, 0).await;
        let request = scene.receiver.wait_at(&format!("/{name}"), 1).await.remove(0);
        assert_eq!(request.json()["data"]["count"], json!(1), "{what}");
        until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
        scene.client.batch_execute("UPDATE klaxon.subscription SET enabled = false").await.unwrap();
    }

    // What is due in a year waits for a year.
    scene.webhook("later", Hook::default(), json!({}), &["run.failed"]).await;
    show(&scene, &clock, "2029-04-30 12:00Z", 0).await;
    let sql = "BEGIN; SELECT klaxon.notify_event('run.failed');
               UPDATE klaxon.outbox SET due_at = timestamptz '2030-04-30 12:00Z'; COMMIT";
    scene.client.batch_execute(sql).await.unwrap();
    show(&scene, &clock, "2030-04-30 12:00Z", -60).await;
    scene.client.batch_execute("SELECT klaxon.tick()").await.unwrap();
    assert!(scene.receiver.requests_at("/later").is_empty(), "too early");
    show(&scene, &clock, "2030-04-30 12:00Z", 1).await;
    scene.receiver.wait_at("/later", 1).await;
    // Each of the others came once, though all hours have been shown since, some of them twice.
    for (number, (what, ..)) in DAYS.iter().enumerate() {
        assert_eq!(scene.receiver.requests_at(&format!("/day-{number}")).len(), 1, "{what}");
    }
}

/// Sets the clock to that many seconds after a moment, and waits until Postgres goes by it.
async fn show(scene: &Scene<'_>, clock: &Clock, moment: &str, seconds: i64) {
    let sql = "SELECT extract(epoch FROM $1::text::timestamptz)::bigint + $2::bigint";
    let at: i64 = scene.client.query_one(sql, &[&moment, &seconds]).await.unwrap().get(0);
    clock.show(at);
    until(&scene.client, &format!("abs(extract(epoch FROM clock_timestamp()) - {at}) < 50")).await;
    // The worker has heard what time it is, too.
    let beaten =
        format!("(SELECT bool_and(abs(extract(epoch FROM heartbeat_at) - {at}) < 50) FROM klaxon.worker)");
    until(&scene.client, &beaten).await;
}
