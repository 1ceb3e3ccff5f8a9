//! Agents: silence is an event, and so is coming back.

use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use serde_json::json;

#[tokio::test]
async fn an_agent_that_falls_silent_goes_offline_once_and_comes_back_once() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("agents", Hook::default(), json!({}), &["agent.*"]).await;
    let _worker = scene.worker(&[]).await;
    scene
        .client
        .batch_execute("SELECT klaxon.heartbeat('a1', 'fleet', 'builder', '10 ms'); SELECT klaxon.heartbeat('a2', timeout => '1 day')")
        .await
        .unwrap();

    let offline = scene.receiver.wait_at("/agents", 1).await.remove(0).json();
    assert_eq!((&offline["type"], &offline["project"]), (&json!("agent.offline"), &json!("fleet")));
    assert_eq!(
        (&offline["data"]["agent_id"], &offline["data"]["agent_name"]),
        (&json!("a1"), &json!("builder"))
    );

    scene.client.batch_execute("SELECT klaxon.heartbeat('a1', 'fleet', timeout => '1 day')").await.unwrap();
    let online = scene.receiver.wait_at("/agents", 2).await.remove(1).json();
    assert_eq!((&online["type"], &online["data"]["agent_id"]), (&json!("agent.online"), &json!("a1")));

    let events: Vec<String> = scene
        .client
        .query("SELECT type FROM klaxon.event ORDER BY id", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(events, ["agent.offline", "agent.online"]);
}
