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

/// Whoever may write a watched table may have it say anything.
#[tokio::test]
async fn an_agent_that_says_it_was_seen_at_the_end_of_time_is_silent_from_now_on_and_holds_up_nobody() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("hook", Hook::default(), json!({}), &["task.failed", "agent.*"]).await;
    scene
        .client
        .batch_execute(
            "CREATE TABLE agents (agent_id text PRIMARY KEY, last_seen_at timestamptz, timeout interval);
             SELECT klaxon.watch_agents('agents');
             INSERT INTO agents VALUES ('late', '294276-12-31 23:59:59+00', '10 ms'), ('later', 'infinity', '10 ms');
             INSERT INTO klaxon.agent (agent_id, last_seen_at, timeout) VALUES ('latest', '294276-12-31 23:59:59+00', '1 day')",
        )
        .await
        .unwrap();
    let _worker = scene.worker(&[]).await;
    scene.emit("task.failed", json!({})).await;
    let told = scene.receiver.wait_at("/hook", 3).await;
    let mut told: Vec<_> = told.iter().map(|request| request.json()["data"]["agent_id"].clone()).collect();
    told.sort_by_key(ToString::to_string);
    assert_eq!(told, [json!("late"), json!("later"), json!(null)]);
    let back = "UPDATE agents SET last_seen_at = '294276-12-31 23:59:59+00', timeout = '1 day' WHERE agent_id = 'late'";
    scene.client.batch_execute(back).await.unwrap();
    let online = scene.receiver.wait_at("/hook", 4).await.remove(3).json();
    assert_eq!((&online["type"], &online["data"]["agent_id"]), (&json!("agent.online"), &json!("late")));
}
