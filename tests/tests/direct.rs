//! `notify_event` writes what is plainly in order without a statement: it must be what an INSERT would have made of it,
//! and whatever is not plain must be left to one.

use klaxon_tests::database::Database;
use tokio_postgres::Client;
use tokio_postgres::error::{DbError, SqlState};

/// Subscriptions of which the first wants nothing but a delivery, and each other one of its own type something more.
const PEOPLE: &str = r#"
    INSERT INTO klaxon.project (slug) VALUES ('billing');
    SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
    INSERT INTO klaxon.channel (name, kind, config) VALUES ('hook', 'webhook', '{"url": "https://receiver.test/"}');
    SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.*'], owner => NULL);
    SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['task.slow'], cooldown => '1 h', owner => NULL);
    SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['task.failed'], mode => 'digest', digest_at => '9:00', owner => NULL);
    SELECT klaxon.subscribe(ARRAY[]::text[], ARRAY['task.retried'], in_app => true, owner => 'postgres');
    SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['cluster.new'], filters => '{"where": "$.n.datetime() > 1"}', owner => NULL);"#;
/// Who emits.
const ROLES: &str = "
    CREATE ROLE anna IN ROLE klaxon_emitter;
    CREATE ROLE berta IN ROLE klaxon_admin;
    CREATE ROLE carla IN ROLE klaxon_emitter, klaxon_app;
    CREATE ROLE dora;
    GRANT USAGE ON SCHEMA klaxon TO dora;
    GRANT EXECUTE ON FUNCTION klaxon.notify_event, klaxon.uuid_v7 TO dora;
    CREATE TABLE big AS SELECT jsonb_build_object('text', string_agg(md5(n::text), '')) AS payload FROM generate_series(1, 3000) AS n;
    GRANT SELECT ON big TO anna;";

/// What came of an event: its row and what else was written, or the error; and whether a statement's trigger ran.
#[derive(Debug)]
struct Outcome {
    written: Result<String, Raised>,
    by_statement: bool,
}

/// An error, with all that applications tell errors apart by.
#[derive(Debug, PartialEq)]
struct Raised {
    code: SqlState,
    fields: [Option<String>; 8],
    /// Whose doing it was: of what `notify_event` has done, there is more to say in the end.
    context: String,
}

impl Raised {
    fn of(error: &DbError) -> Self {
        // It says the id, which is another one each time.
        let detail = error.detail().filter(|detail| !detail.starts_with("Failing row contains"));
        let fields = [
            Some(error.message()),
            detail,
            error.hint(),
            error.schema(),
            error.table(),
            error.column(),
            error.datatype(),
            error.constraint(),
        ];
        Self {
            code: error.code().clone(),
            fields: fields.map(|field| field.map(str::to_owned)),
            context: error.where_().unwrap_or_default().to_owned(),
        }
    }
}

/// An event of a role, after something was done to the database that is undone with it.
struct Case {
    before: &'static str,
    role: &'static str,
    kind: &'static str,
    payload: &'static str,
    project: &'static str,
    occurred_at: &'static str,
}

const PLAIN: Case = Case {
    before: "",
    role: "anna",
    kind: "run.failed",
    payload: "'{\"run_id\": 1}'",
    project: "'billing'",
    occurred_at: "now()",
};

impl Case {
    fn by_function(&self) -> String {
        format!(
            "SELECT klaxon.notify_event('{}', {}, {}, occurred_at => {})",
            self.kind, self.payload, self.project, self.occurred_at
        )
    }

    fn by_insert(&self) -> String {
        format!(
            "INSERT INTO klaxon.event (type, payload, project, occurred_at) VALUES ('{}', {}, {}, {})",
            self.kind, self.payload, self.project, self.occurred_at
        )
    }

    async fn run(&self, client: &Client, statement: &str) -> Outcome {
        let role = self.role;
        client.batch_execute("BEGIN; SET LOCAL track_functions = 'all'").await.unwrap();
        let before = calls(client).await;
        client.batch_execute(&format!("{}; SET LOCAL ROLE {role}", self.before)).await.unwrap();
        let (written, by_statement) = match client.batch_execute(statement).await {
            Ok(()) => {
                client.batch_execute("RESET ROLE; SET LOCAL row_security = on").await.unwrap();
                let written = client.query_one(WRITTEN, &[]).await.unwrap().get(0);
                (Ok(written), calls(client).await > before)
            }
            Err(error) => (Err(Raised::of(error.as_db_error().expect("an error of the server"))), true),
        };
        client.batch_execute("ROLLBACK").await.unwrap();
        Outcome { written, by_statement }
    }
}

/// All that an event leaves, but for what is made up at random.
const WRITTEN: &str = "
    SELECT jsonb_build_array(
        (SELECT jsonb_agg(to_jsonb(e) - ARRAY['id', 'payload', 'created_at', 'occurred_at']
            || jsonb_build_object('payload', md5(e.payload::text), 'created', e.created_at = now(), 'occurred', now() - e.occurred_at))
         FROM klaxon.event AS e),
        (SELECT jsonb_agg(to_jsonb(o) - ARRAY['id', 'event_id', 'xid', 'due_at', 'created_at']
            || jsonb_build_object('of', o.event_id = (SELECT id FROM klaxon.event), 'xid', o.xid = pg_current_xact_id(), 'due', o.due_at = now(), 'created', o.created_at = now()))
         FROM klaxon.outbox AS o),
        (SELECT count(*) FROM klaxon.digest_item), (SELECT count(*) FROM klaxon.inbox),
        (SELECT jsonb_agg(to_jsonb(f) - 'failed_at') FROM klaxon.filter_error AS f)
    )::text";
/// How often the trigger was called, as far as this session has not yet reported it.
const CALLS: &str =
    "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_xact_user_functions WHERE funcname = 'match_events'";

async fn calls(client: &Client) -> i64 {
    client.query_one(CALLS, &[]).await.unwrap().get(0)
}

/// A session that has met every type.
async fn session(database: &Database<'_>) -> Client {
    let client = database.connect().await;
    client.batch_execute(PEOPLE).await.unwrap();
    for project in ["NULL", "'billing'"] {
        client
            .batch_execute(&format!(
                "BEGIN; SELECT klaxon.notify_event(name, '{{}}', {project}) FROM klaxon.event_type; ROLLBACK"
            ))
            .await
            .unwrap();
    }
    client
}

/// Runs a case both ways; whether the function's way, and the INSERT, called the trigger.
async fn agree(client: &Client, what: &str, case: &Case) -> (bool, bool) {
    let function = case.run(client, &case.by_function()).await;
    let mut insert = case.run(client, &case.by_insert()).await;
    if let (Err(function), Err(insert)) = (&function.written, &mut insert.written)
        && function.context.starts_with(&insert.context)
    {
        insert.context.clone_from(&function.context);
    }
    assert_eq!(function.written, insert.written, "{what}");
    (function.by_statement, insert.by_statement)
}

#[tokio::test]
async fn an_event_without_a_statement_is_what_an_insert_would_have_made_of_it() {
    let database = Database::new();
    let client = session(&database).await;
    client.batch_execute(ROLES).await.unwrap();
    plain(&client).await;
    not_plain(&client).await;
}

async fn plain(client: &Client) {
    for (what, case) in [
        ("an emitter's", PLAIN),
        ("a superuser's", Case { role: "postgres", ..PLAIN }),
        ("an administrator's", Case { role: "berta", ..PLAIN }),
        ("without a project", Case { project: "NULL", ..PLAIN }),
        ("of a type that nobody hears of", Case { kind: "perf.regression", ..PLAIN }),
        ("a scalar", Case { payload: "'1e400'", ..PLAIN }),
        ("an hour ago", Case { occurred_at: "now() - interval '1 h'", ..PLAIN }),
        ("out of line", Case { payload: "(SELECT payload FROM big)", ..PLAIN }),
        ("for somebody else", Case { role: "carla", before: "SET LOCAL klaxon.principal = 'eva'", ..PLAIN }),
        (
            "traced",
            Case {
                before: "SET LOCAL klaxon.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'",
                ..PLAIN
            },
        ),
        (
            "to an emitter by a right of the table",
            Case { role: "dora", before: "GRANT klaxon_emitter TO dora", ..PLAIN },
        ),
        (
            "beside a table's column of a later version",
            Case { before: "ALTER TABLE klaxon.event ADD later text DEFAULT 'a' || 1", ..PLAIN },
        ),
    ] {
        // Under a flood of others' messages of invalidation a session forgets what it knew, and a statement learns it
        // again: once.
        let mut ways = agree(client, what, &case).await;
        if ways.0 {
            ways = agree(client, what, &case).await;
        }
        assert_eq!(ways, (false, true), "{what}: with and without a statement");
    }
}

async fn not_plain(client: &Client) {
    for (what, case) in [
        ("a cooldown", Case { kind: "task.slow", ..PLAIN }),
        ("a digest", Case { kind: "task.failed", ..PLAIN }),
        ("an inbox", Case { kind: "task.retried", project: "NULL", ..PLAIN }),
        ("a filter that raises", Case { kind: "cluster.new", payload: "'{\"n\": \"x\"}'", ..PLAIN }),
        ("a type that is none", Case { kind: "no.such", ..PLAIN }),
        ("a project's name that is too long", Case { project: "repeat('x', 101)", ..PLAIN }),
        ("a project's name that is empty", Case { project: "''", ..PLAIN }),
        ("as many characters of two bytes as may be", Case { project: "repeat('ü', 100)", ..PLAIN }),
        ("a moment that is none", Case { occurred_at: "'infinity'", ..PLAIN }),
        (
            "a payload over the limit",
            Case { before: "SET LOCAL klaxon.max_payload_bytes = 1024", payload: "(SELECT payload FROM big)", ..PLAIN },
        ),
        ("nobody's", Case { role: "dora", ..PLAIN }),
        ("whose right is withdrawn", Case { before: "REVOKE INSERT (payload) ON klaxon.event FROM klaxon_emitter", ..PLAIN }),
        ("a policy that is gone", Case { before: "DROP POLICY emit ON klaxon.event", ..PLAIN }),
        (
            "a policy that restricts",
            Case { before: "CREATE POLICY never ON klaxon.event AS RESTRICTIVE FOR INSERT WITH CHECK (project <> 'billing')", ..PLAIN },
        ),
        (
            "a policy that asks",
            Case { before: "ALTER POLICY emit ON klaxon.event WITH CHECK (project <> 'billing')", ..PLAIN },
        ),
        ("policies that may not be applied", Case { before: "SET LOCAL row_security = off", ..PLAIN }),
        ("a transaction that only reads", Case { before: "SET TRANSACTION READ ONLY", ..PLAIN }),
        ("a replica's", Case { before: "SET LOCAL session_replication_role = replica", ..PLAIN }),
        ("triggers that are off", Case { before: "ALTER TABLE klaxon.event DISABLE TRIGGER match_events", ..PLAIN }),
        ("a matcher that is gone", Case { before: "DROP TRIGGER match_events ON klaxon.event CASCADE", ..PLAIN }),
        (
            "somebody's CHECK",
            Case { before: "ALTER TABLE klaxon.event ADD CONSTRAINT mine CHECK (project <> 'billing')", ..PLAIN },
        ),
        ("somebody's rule", Case { before: "CREATE RULE mine AS ON INSERT TO klaxon.event DO ALSO NOTIFY mine", ..PLAIN }),
        (
            "somebody's generated column",
            Case { before: "ALTER TABLE klaxon.event ADD mine text GENERATED ALWAYS AS (type || '!') STORED", ..PLAIN },
        ),
        (
            "somebody's column that is generated when it is read",
            Case {
                before: "DO $$ BEGIN EXECUTE 'ALTER TABLE klaxon.event ADD mine text GENERATED ALWAYS AS (type || ''!'')'
                             || CASE WHEN current_setting('server_version_num')::integer >= 180000 THEN 'VIRTUAL' ELSE 'STORED' END; END $$",
                ..PLAIN
            },
        ),
        (
            "somebody's column of a type that must be filled",
            Case {
                before: "CREATE DOMAIN mine AS text NOT NULL; ALTER TABLE klaxon.event ADD mine mine",
                ..PLAIN
            },
        ),
        ("somebody's column that counts", Case { before: "ALTER TABLE klaxon.event ADD mine bigint GENERATED ALWAYS AS IDENTITY", ..PLAIN }),
        ("somebody's column that must be filled", Case { before: "ALTER TABLE klaxon.event ADD mine text NOT NULL", ..PLAIN }),
        (
            "a column that must be filled by now",
            Case { before: "ALTER TABLE klaxon.event ALTER traceparent SET NOT NULL", ..PLAIN },
        ),
        (
            "somebody's constraint that is checked at the end",
            Case {
                before: "ALTER TABLE klaxon.event ADD CONSTRAINT mine UNIQUE (type) DEFERRABLE INITIALLY DEFERRED",
                ..PLAIN
            },
        ),
        (
            "somebody's constraint that may be checked at the end",
            Case { before: "ALTER TABLE klaxon.event ADD CONSTRAINT mine UNIQUE (type) DEFERRABLE", ..PLAIN },
        ),
        (
            "somebody's exclusion constraint",
            Case {
                before: "ALTER TABLE klaxon.event ADD CONSTRAINT mine EXCLUDE USING hash (type WITH =);
                         INSERT INTO klaxon.event (type) VALUES ('run.failed')",
                ..PLAIN
            },
        ),
        (
            "somebody's exclusion constraint that is checked at the end",
            Case {
                before: "ALTER TABLE klaxon.event ADD CONSTRAINT mine EXCLUDE USING hash (type WITH =) DEFERRABLE INITIALLY DEFERRED",
                ..PLAIN
            },
        ),
        (
            "somebody's trigger before",
            Case {
                before: "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.payload := '{\"mine\": 1}'; RETURN NEW; END $$;
                         CREATE TRIGGER mine BEFORE INSERT ON klaxon.event FOR EACH ROW EXECUTE FUNCTION mine()",
                ..PLAIN
            },
        ),
        (
            "somebody's trigger after",
            Case {
                before: "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'APP01', CONSTRAINT = 'quota'; END $$;
                         CREATE TRIGGER mine AFTER INSERT ON klaxon.event FOR EACH STATEMENT EXECUTE FUNCTION mine()",
                ..PLAIN
            },
        ),
    ] {
        let (function, insert) = agree(client, what, &case).await;
        assert_eq!(function, insert, "{what}: a statement for both, or an error");
    }
}

#[tokio::test]
async fn what_is_written_without_a_statement_is_there_at_once() {
    let database = Database::new();
    let client = session(&database).await;
    client
        .batch_execute(
            "DO $$
             DECLARE
                 emitted uuid;
             BEGIN
                 FOR n IN 1..3 LOOP
                     emitted := klaxon.notify_event('run.failed', jsonb_build_object('n', n), 'billing');
                     ASSERT (SELECT payload ->> 'n' = n::text FROM klaxon.event WHERE id = emitted), 'the event';
                     ASSERT (SELECT count(*) = n FROM klaxon.outbox), 'the deliveries';
                 END LOOP;
             END
             $$",
        )
        .await
        .unwrap();
}

/// Rows that one call of many writes, and what is read beside it.
#[tokio::test]
async fn a_query_emits_for_each_of_its_rows() {
    let database = Database::new();
    let client = session(&database).await;
    let row = client
        .query_one(
            "WITH emitted AS MATERIALIZED (
                 SELECT klaxon.notify_event('run.failed', jsonb_build_object('n', n, 'text', repeat('x', 3000)), 'billing') AS id
                 FROM generate_series(1, 5000) AS n
             )
             SELECT count(DISTINCT id) FROM emitted",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 5000);
    let row = client
        .query_one(
            "SELECT count(*), count(DISTINCT e.payload -> 'n'), count(DISTINCT o.id)
             FROM klaxon.event AS e JOIN klaxon.outbox AS o ON o.event_id = e.id",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (5000_i64, 5000_i64, 5000_i64));
}

/// A subscription of another session's counts from its commit on, also within a transaction that is open.
#[tokio::test]
async fn a_change_by_another_session_counts_for_the_next_transaction() {
    let database = Database::new();
    let (client, other) = (session(&database).await, database.connect().await);
    let emit = "SELECT klaxon.notify_event('perf.regression', '{}', 'billing')";
    for (change, deliveries) in [
        ("SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['perf.regression'], owner => NULL)", 1_i64),
        ("UPDATE klaxon.channel SET enabled = false", 0),
    ] {
        client.batch_execute("BEGIN").await.unwrap();
        other.batch_execute(change).await.unwrap();
        client.batch_execute(emit).await.unwrap();
        let row = client.query_one("SELECT count(*) FROM klaxon.outbox", &[]).await.unwrap();
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(row.get::<_, i64>(0), deliveries, "{change}");
    }
}
