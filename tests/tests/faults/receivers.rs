//! What befalls receivers, and what they do.

use std::time::Duration;

use klaxon_tests::history::manners::{self, Manner, Mannered};
use klaxon_tests::history::plan::{ILL, subscribe};
use klaxon_tests::until::{until, until_within};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::ground::{DRAINED, Ground};
use crate::times;

/// For how many seconds a receiver is ill, where that is asked.
fn asked() -> Option<usize> {
    let seconds = std::env::var("KLAXON_ILL_SECONDS").ok().filter(|seconds| !seconds.is_empty())?;
    Some(seconds.parse().expect("KLAXON_ILL_SECONDS is a number"))
}

/// One of the receivers answers like this for a while. The others do not notice, and what was for it arrives
/// once it is well again.
async fn ill(test: &str, what: &str, manner: Manner) {
    let seconds = asked().unwrap_or(times(30, 4));
    let test = asked().map_or(test.to_owned(), |seconds| format!("{test} ILL_SECONDS={seconds}"));
    let mut ground = Ground::set(&[]).await;
    let receiver = Mannered::start(&ground.scene.authority, ground.receiver.log()).await.unwrap();
    ground.scene.connect(receiver.connect_to());
    let url = format!("https://{}/ill", manners::HOST);
    // The attempts outlast the illness, by jitter's least: nothing is given up.
    let schedule = [vec![1; 8], vec![(seconds / 8).max(1); 12]].concat();
    let config = json!({"url": url, "retry_schedule": schedule});
    let sql = "UPDATE klaxon.channel SET config = config || $1 WHERE name = 'ill'";
    ground.scene.client.execute(sql, &[&config]).await.unwrap();
    ground.emit(4);
    let worker = ground.scene.worker(&["--http-timeout", "2s"]).await;
    receiver.behave(manner);
    // So few that the channel is left alone only in the long form.
    for _ in 0..times(20, 2) {
        let event = ground.scene.emit_in(ILL.name, ILL.project).await;
        ground.ledger.write(|entries| {
            entries.committed.insert(event, ILL);
        });
    }
    sleep(Duration::from_secs(seconds as u64)).await;
    // While it is ill, which is nobody else's affair.
    ground.recover().await;
    receiver.behave(Manner::Good);
    let pending = "NOT EXISTS (SELECT FROM klaxon.outbox AS o JOIN klaxon.channel AS c ON c.id = o.channel_id WHERE c.name = 'ill')";
    until_within(DRAINED * 2, &ground.scene.client, pending).await;
    ground.judge(&test, what, format!("{seconds} s"), vec![worker]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging() {
    ill("receivers::hanging", "receiver hangs", Manner::Hang).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dripping() {
    ill("receivers::dripping", "receiver answers byte by byte", Manner::Drip).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resetting() {
    ill("receivers::resetting", "receiver resets connections", Manner::Reset).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing() {
    ill("receivers::failing", "receiver answers 500", Manner::Fail).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn babbling() {
    ill("receivers::babbling", "receiver answers garbage", Manner::Garbage).await;
}

/// It takes connections and never says a word; what is for it waits where everybody can see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_in_ten_dead() {
    let seconds = times(60, 5);
    let mut ground = Ground::set(&[]).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    ground.scene.connect(format!("dead.test:443:127.0.0.1:{}", silent.local_addr().unwrap().port()));
    let client = &ground.scene.client;
    client.batch_execute("DELETE FROM klaxon.channel WHERE name = 'ill'").await.unwrap();
    subscribe(client, "dead", "dead.test", &["run.*"], None).await;
    let sql = "UPDATE klaxon.channel SET config = config - 'retry_schedule' WHERE name = 'dead'";
    client.batch_execute(sql).await.unwrap();
    let channels: i64 = client.query_one("SELECT count(*) FROM klaxon.channel", &[]).await.unwrap().get(0);
    assert_eq!(channels, 10);
    ground.emit(6);
    let worker = ground.scene.worker(&["--http-timeout", "2s"]).await;
    for _ in 0..seconds {
        ground.load(100).await;
        ground.recover().await;
        sleep(Duration::from_secs(1)).await;
    }
    ground.hush().await;
    let named = |kind: &klaxon_tests::history::plan::Kind| kind.name.starts_with("run.");
    let for_it = ground.ledger.read().committed.values().filter(|kind| named(kind)).count();
    let pending = format!(
        "(SELECT count(*) = {for_it} FROM klaxon.outbox AS o JOIN klaxon.channel AS c ON c.id = o.channel_id WHERE c.name = 'dead')"
    );
    until(&ground.scene.client, &pending).await;
    ground
        .judge(
            "receivers::one_in_ten_dead",
            "one in ten channels dead throughout",
            format!("{seconds} s"),
            vec![worker],
        )
        .await;
}
