//! An event to so many channels that its rows are written a page at a time.

use klaxon_tests::database::Database;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// More than are written at once, twice.
const CHANNELS: i64 = 700;
const PEOPLE: &str = r#"
    CREATE EXTENSION amcheck;
    SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
    INSERT INTO klaxon.channel (name, kind, config)
    SELECT 'c' || n, 'webhook', '{"url": "https://receiver.test/"}' FROM generate_series(1, 700) AS n;
    SELECT klaxon.subscribe(array_agg(name), ARRAY['run.failed'], owner => NULL) FROM klaxon.channel;"#;
/// Whether each channel has so many rows, each of them in every index, and none with an id that another has.
const WHOLE: &str = "
    SELECT (SELECT count(*) FROM klaxon.outbox), (SELECT count(DISTINCT id) FROM klaxon.outbox),
        (SELECT count(*) FROM klaxon.channel AS c
         WHERE (SELECT count(*) FROM klaxon.outbox AS o WHERE o.channel_id = c.id) = $1)";
const CHECK: &str = "
    SELECT bt_index_check(indexrelid, true) FROM pg_index WHERE indrelid = 'klaxon.outbox'::regclass";

async fn check(client: &Client, each: i64) {
    let row = client.query_one(WHOLE, &[&each]).await.unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (CHANNELS * each, CHANNELS * each, CHANNELS));
    client.batch_execute(CHECK).await.unwrap();
}

#[tokio::test]
async fn every_channel_has_its_row_and_every_index_too() {
    let database = Database::new();
    let client = database.connect().await;
    client.batch_execute(PEOPLE).await.unwrap();
    // The first has its subscriptions compiled by a statement, the second is written without one.
    for _ in 0..2 {
        client.batch_execute("SELECT klaxon.notify_event('run.failed')").await.unwrap();
    }
    check(&client, 2).await;
    client
        .batch_execute("INSERT INTO klaxon.event (type) SELECT 'run.failed' FROM generate_series(1, 3)")
        .await
        .unwrap();
    check(&client, 5).await;
    // A column of a later version, which has a default.
    client
        .batch_execute("ALTER TABLE klaxon.outbox ADD COLUMN later text DEFAULT 'x' || pg_backend_pid()")
        .await
        .unwrap();
    client.batch_execute("SELECT klaxon.notify_event('run.failed')").await.unwrap();
    let later = "SELECT count(*) FROM klaxon.outbox WHERE later = 'x' || pg_backend_pid()";
    assert_eq!(client.query_one(later, &[]).await.unwrap().get::<_, i64>(0), 6 * CHANNELS);
    check(&client, 6).await;
}

#[tokio::test]
async fn an_error_among_the_rows_leaves_none_of_them_and_the_session_goes_on() {
    let database = Database::new();
    let client = database.connect().await;
    client.batch_execute(PEOPLE).await.unwrap();
    // The rows of a first page are written when it is met.
    client
        .batch_execute(
            "CREATE FUNCTION odd(channel bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 1 / (channel - 400)';
             CREATE INDEX odd ON klaxon.outbox (odd(channel_id)) WHERE channel_id = 400",
        )
        .await
        .unwrap();
    for emit in [
        "SELECT klaxon.notify_event('run.failed')",
        "SELECT klaxon.notify_event('run.failed')",
        "INSERT INTO klaxon.event (type) VALUES ('run.failed')",
    ] {
        let error = client.batch_execute(emit).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO), "{error}");
        let caught = format!(
            "BEGIN; DO $$ BEGIN {}; EXCEPTION WHEN division_by_zero THEN NULL; END $$; DROP INDEX klaxon.odd; {emit}; ROLLBACK",
            emit.replace("SELECT", "PERFORM")
        );
        client.batch_execute(&caught).await.unwrap();
    }
    let left: i64 = client.query_one("SELECT count(*) FROM klaxon.event", &[]).await.unwrap().get(0);
    assert_eq!(left, 0);
    client.batch_execute("DROP INDEX klaxon.odd; SELECT klaxon.notify_event('run.failed')").await.unwrap();
    check(&client, 1).await;
}
