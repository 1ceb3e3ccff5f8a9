//! Watched tables whose statements are cancelled, or are to be tried again: what a pass has begun is ended before
//! anything else hears of it.

use klaxon_tests::database::{Database, WORKER_ROLE};
use klaxon_tests::limit::within;
use klaxon_tests::until::until;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

/// A table whose watcher takes long with every row.
const SLOW: &str = "
    CREATE TABLE busy (task_id text PRIMARY KEY, state text, budget_ms int, started_at timestamptz);
    ALTER TABLE busy ENABLE ROW LEVEL SECURITY;
    ALTER TABLE busy FORCE ROW LEVEL SECURITY;
    CREATE ROLE owner_of_busy;
    GRANT klaxon_emitter TO owner_of_busy;
    CREATE POLICY slow ON busy USING (pg_sleep(60) IS NOT NULL);
    ALTER TABLE busy OWNER TO owner_of_busy;";

fn code(result: Result<(), Error>) -> SqlState {
    result.expect_err("it is refused").code().expect("the server lives and says why").clone()
}

async fn lives(client: &Client) {
    let row = client.query_one("SELECT current_user::text, session_user::text", &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("postgres", "postgres"));
}

#[tokio::test]
async fn a_serialization_failure_is_the_statements() {
    let database = Database::new();
    let (client, other) = (database.connect().await, database.connect().await);
    client
        .batch_execute(
            "CREATE TABLE runs (run_id text, status text, signature text); SELECT klaxon.watch_runs('runs')",
        )
        .await
        .unwrap();
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO runs VALUES ('r1', 'running')")
        .await
        .unwrap();
    other.batch_execute("INSERT INTO runs VALUES ('r3', 'failed', 'sig-1')").await.unwrap();
    let failed = client.batch_execute("INSERT INTO runs VALUES ('r2', 'failed', 'sig-1')").await;
    assert_eq!(code(failed), SqlState::T_R_SERIALIZATION_FAILURE);
    client.batch_execute("ROLLBACK").await.unwrap();
    lives(&client).await;
}

#[tokio::test]
async fn a_cancel_while_a_watcher_is_made_is_a_cancel() {
    let database = Database::new();
    let (client, other) = (database.connect().await, database.connect().await);
    client.batch_execute("CREATE TABLE held (task_id int, state text)").await.unwrap();
    other.batch_execute("BEGIN; LOCK TABLE held IN SHARE ROW EXCLUSIVE MODE").await.unwrap();
    client.batch_execute("SET statement_timeout = '500ms'").await.unwrap();
    assert_eq!(
        code(client.batch_execute("SELECT klaxon.watch_tasks('held')").await),
        SqlState::QUERY_CANCELED
    );
    lives(&client).await;
}

#[tokio::test]
async fn a_cancel_within_a_pass_is_a_cancel_and_can_be_caught() {
    let database = Database::new();
    let (client, other) = (database.connect().await, database.connect().await);
    client
        .batch_execute(
            "CREATE TABLE tasks (task_id int, state text);
             SELECT klaxon.watch_tasks('tasks');
             CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
             CREATE TRIGGER wait AFTER INSERT ON klaxon.event FOR EACH STATEMENT EXECUTE FUNCTION wait()",
        )
        .await
        .unwrap();
    let insert = "INSERT INTO tasks VALUES (1, 'failed')";
    client.batch_execute("SET statement_timeout = '500ms'").await.unwrap();
    assert_eq!(code(client.batch_execute(insert).await), SqlState::QUERY_CANCELED);
    lives(&client).await;
    let caught = format!(
        "DO $$ BEGIN BEGIN {insert}; EXCEPTION WHEN query_canceled THEN NULL; END;
                     ASSERT current_user = 'postgres'; END $$"
    );
    client.batch_execute(&caught).await.unwrap();
    lives(&client).await;

    // By somebody else.
    client.batch_execute("RESET statement_timeout").await.unwrap();
    let statement = client.batch_execute(insert);
    let cancel = async {
        until(&other, "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database())").await;
        let sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
        other.batch_execute(sql).await.unwrap();
    };
    let (failed, ()) = within("the cancel", async { tokio::join!(statement, cancel) }).await;
    assert_eq!(code(failed), SqlState::QUERY_CANCELED);
    lives(&client).await;
}

/// The clock looks with the rights of the extension's owner and then of the table's: a worker that catches its
/// cancel is itself again.
#[tokio::test]
async fn a_cancel_of_the_clock_leaves_its_caller_who_it_was() {
    let database = Database::new();
    let client = database.connect().await;
    client.batch_execute(SLOW).await.unwrap();
    client
        .batch_execute("SET ROLE owner_of_busy; SELECT klaxon.watch_tasks('busy'); RESET ROLE")
        .await
        .unwrap();
    client
        .batch_execute("INSERT INTO busy VALUES ('slow', 'running', 10, now() - interval '1 day')")
        .await
        .unwrap();
    client.batch_execute(&format!("SET statement_timeout = '500ms'; SET ROLE {WORKER_ROLE}")).await.unwrap();
    client
        .batch_execute(&format!(
            "DO $$ DECLARE cancelled boolean := false;
                   BEGIN BEGIN PERFORM klaxon.poll_watcher(id) FROM klaxon.polled_watchers(); EXCEPTION WHEN query_canceled THEN cancelled := true; END;
                         ASSERT cancelled, 'it took long';
                         ASSERT current_user = '{WORKER_ROLE}', current_user; END $$"
        ))
        .await
        .unwrap();
    client.batch_execute("RESET ROLE").await.unwrap();
    lives(&client).await;
}
