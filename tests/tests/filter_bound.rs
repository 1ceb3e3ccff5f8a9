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

/// However many of them one principal has.
#[tokio::test]
async fn all_paths_of_a_principal_together_cost_little() {
    let database = Database::new();
    let client = database.connect().await;
    let paths = 200;
    client
        .batch_execute(&format!(
            "INSERT INTO klaxon.channel (name, kind, owner, config) VALUES ('hook', 'webhook', 'mallory', '{{\"url\": \"https://receiver.test/\"}}');
             INSERT INTO klaxon.subscription (owner, events, filters)
             SELECT 'mallory', ARRAY['run.failed'], jsonb_build_object('where', '{ENDLESS} || ' || n || ' == 500')
             FROM generate_series(1, {paths}) AS n;
             INSERT INTO klaxon.subscription_channel SELECT s.id, c.id FROM klaxon.subscription AS s, klaxon.channel AS c;
             INSERT INTO klaxon.channel (name, kind, config) VALUES ('ops', 'webhook', '{{\"url\": \"https://receiver.test/\"}}');
             SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['run.failed'], filters => '{{\"where\": \"$[0] == 0\"}}', owner => NULL)"
        ))
        .await
        .unwrap();
    // Each takes at least 0.1 s of the processor.
    client.batch_execute("SET statement_timeout = '15 s'").await.unwrap();
    let emit =
        "SELECT klaxon.notify_event('run.failed', (SELECT jsonb_agg(n) FROM generate_series(0, 300) AS n))";
    client.batch_execute(emit).await.unwrap();
    client
        .batch_execute("UPDATE klaxon.subscription SET filters = filters; SET statement_timeout = '5 s'")
        .await
        .unwrap();
    client.batch_execute(emit).await.unwrap();
    let row = client
        .query_one(
            "SELECT (SELECT count(*) FROM klaxon.outbox), (SELECT sum(events)::bigint FROM klaxon.filter_error)",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1)), (2_i64, 2_i64 * paths), "the other's filter holds");
}
