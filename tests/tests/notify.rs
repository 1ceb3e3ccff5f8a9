//! Wake-ups that transactions fire themselves: a server that has not preloaded the library.

use klaxon_tests::cluster::Cluster;
use klaxon_tests::database::Database;
use klaxon_tests::limit::within;
use klaxon_tests::notify_queue::{self, FullQueue, PAGES};
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use serde_json::json;
use tokio_postgres::error::SqlState;

const EMIT: &str = "SELECT klaxon.notify_event('run.failed')";

/// Postgres leaves the queue full when nobody keeps it any longer, and there is no relay.
#[tokio::test]
async fn a_full_queue_is_made_room_in_by_the_worker() {
    if !notify_queue::can_be_small() {
        return;
    }
    let cluster = Cluster::start(&[PAGES, ("fsync", "off")]).expect("the cluster starts");
    let scene = Scene::set(Database::create(&cluster)).await;
    scene.webhook("hook", Hook::default(), json!({}), &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    let full = FullQueue::fill(&scene.database).await;
    let error = scene.client.batch_execute(EMIT).await.expect_err("it is full");
    assert_eq!(error.code(), Some(&SqlState::PROGRAM_LIMIT_EXCEEDED), "{error}");
    full.let_go().await;
    within("an event to be emitted", async { while scene.client.batch_execute(EMIT).await.is_err() {} })
        .await;
    scene.receiver.wait_at("/hook", 1).await;
}
