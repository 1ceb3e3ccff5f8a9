//! The filter `where`, of which a path can take as long as somebody likes: what it may cost whoever emits.

use klaxon_tests::database::Database;

/// It looks at each of some hundred values for each of them, for each of them, for each of them.
const ENDLESS: &str = "$.** ? (exists($.** ? (exists($.** ? (exists($.** ? (@ == -1))))))) == 2";
const PATHS: usize = 12;

#[tokio::test]
async fn paths_that_do_not_end_cost_little_and_not_for_long() {
    let database = Database::new();
    let client = database.connect().await;
    client
        .batch_execute(
            "INSERT INTO klaxon.channel (name, kind, config) VALUES ('hook', 'webhook', '{\"url\": \"https://receiver.test/\"}')",
        )
        .await
        .unwrap();
    for number in 0..PATHS {
        let filters = serde_json::json!({"where": format!("{ENDLESS} || {number} == 100")});
        client
            .execute(
                "SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.failed'], filters => $1, owner => NULL)",
                &[&filters],
            )
            .await
            .unwrap();
    }
    client
        .batch_execute("SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.failed'], owner => NULL)")
        .await
        .unwrap();
    // Less than a second for each of them.
    client.batch_execute(&format!("SET statement_timeout = '{PATHS} s'")).await.unwrap();
    let emit =
        "SELECT klaxon.notify_event('run.failed', (SELECT jsonb_agg(n) FROM generate_series(0, 300) AS n))";
    for _ in 0..3 {
        client.batch_execute(emit).await.unwrap();
    }
    // Now they are known, and stay known when somebody writes them again.
    client
        .batch_execute("UPDATE klaxon.subscription SET filters = filters; SET statement_timeout = '1 s'")
        .await
        .unwrap();
    for _ in 0..20 {
        client.batch_execute(emit).await.unwrap();
    }
    let row = client
        .query_one(
            "SELECT (SELECT count(*) FROM klaxon.outbox), (SELECT sum(events)::bigint FROM klaxon.filter_error)",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1)), (23_i64, 23 * i64::try_from(PATHS).unwrap()));
}
