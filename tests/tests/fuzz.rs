//! Every function that SQL can call, with nulls and extremes: an error has an SQLSTATE that says whose
//! it is, and no backend dies of one.
//!
//! `KLAXON_FUZZ_CALLS` sets how many calls are made, `KLAXON_FUZZ_SEED` repeats a run.

use klaxon_tests::database::Database;
use tokio_postgres::Client;

/// Values of a type, as SQL; every type has NULL besides.
fn values(kind: &str) -> &'static [&'static str] {
    match kind {
        "text" => &[
            "''",
            "'run.failed'",
            "'agent.offline'",
            "'ops'",
            "'fleet'",
            "'alice'",
            "'*'",
            "'[!a'",
            "'UTC'",
            "'Europe/Berlin'",
            "'realtime'",
            "'digest'",
            "'webhook'",
            "E'\\x01\\x7f\\n'",
            "'größe €😀'",
            "''';DROP TABLE klaxon.event;--'",
            "repeat('x', 100000)",
            "'3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08='",
            "'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='",
            "'sealed:v1:AAAA'",
            "'%s%I$1'",
        ],
        "jsonb" => &[
            "'{}'",
            "'[]'",
            "'null'",
            "'\"text\"'",
            "'1e400'",
            "'{\"n\": 1e400, \"deep\": {\"a\": [1, 2, {\"b\": null}]}}'",
            "(repeat('[', 3000) || repeat(']', 3000))::jsonb",
            "jsonb_build_object('title', repeat('x', 300000))",
            "'{\"priority\": \"high\", \"task_name\": \"report.daily\"}'",
            "'{\"task_name_pattern\": \"[a\", \"where\": \"$.a > 1\"}'",
            "'{\"where\": \"$.** ? (@ like_regex \\\"(a*)*b\\\")\"}'",
            "'{\"url\": \"https://example.com/\", \"hmac_secret\": \"x\"}'",
            "'{\"url\": \"https://[::1]:99999/\"}'",
            "'{\"a\\u00e9\": \"\\ud83d\\ude00\"}'",
        ],
        "bigint" => &["0", "1", "-1", "9223372036854775807", "(-9223372036854775807 - 1)"],
        "integer" => &["0", "1", "-1", "2147483647"],
        "boolean" => &["true", "false"],
        "interval" => &["'0'", "'5 min'", "'-1 s'", "'178000000 years'", "'1 mon -30 days'", "'1 us'"],
        "time without time zone" => &["'00:00'", "'08:00'", "'24:00'", "'23:59:59.999999'"],
        "timestamp with time zone" => &[
            "now()",
            "'infinity'",
            "'-infinity'",
            "'4713-01-01 BC'",
            "'294276-01-01'",
            "'2026-03-29 01:30Z'",
        ],
        "uuid" => &[
            "'00000000-0000-0000-0000-000000000000'",
            "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
            "gen_random_uuid()",
        ],
        "regclass" => {
            &["'klaxon.event'", "'pg_class'", "'public.runs'", "'public.a_view'", "0", "4294967295"]
        }
        "text[]" => &[
            "'{}'",
            "ARRAY['ops']",
            "ARRAY['run.failed', 'task.*']",
            "ARRAY[NULL]",
            "ARRAY['ops', NULL, '']",
            "ARRAY[['ops', 'ops'], ['ops', 'ops']]",
            "'[5:6]={ops,run.failed}'",
        ],
        "bigint[]" => &[
            "'{}'",
            "ARRAY[1, 2]::bigint[]",
            "ARRAY[NULL]::bigint[]",
            "'[-3:-2]={1,2}'",
            "ARRAY[[1], [2]]::bigint[]",
        ],
        "boolean[]" => {
            &["'{}'", "ARRAY[true, false]", "ARRAY[NULL]::boolean[]", "array_fill(true, ARRAY[1000])"]
        }
        "uuid[]" => &["'{}'", "ARRAY[gen_random_uuid(), NULL]", "ARRAY[[gen_random_uuid()]]"],
        "timestamp with time zone[]" => {
            &["'{}'", "ARRAY['-infinity'::timestamptz, now(), NULL]", "'[0:0]={infinity}'"]
        }
        "jsonb[]" => &[
            "'{}'",
            "ARRAY['{}'::jsonb, 'null', NULL]",
            "ARRAY['{\"run_id\": 1, \"status\": \"failed\"}'::jsonb]",
        ],
        "klaxon.subscription" => &[
            "(SELECT s FROM klaxon.subscription AS s LIMIT 1)",
            "jsonb_populate_record(NULL::klaxon.subscription, '{}')",
            "jsonb_populate_record(NULL::klaxon.subscription, '{\"id\": -1, \"owner\": \"alice\", \"project\": \"fleet\", \"events\": [\"*\", null]}')",
        ],
        "klaxon.channel" => &[
            "(SELECT c FROM klaxon.channel AS c LIMIT 1)",
            "jsonb_populate_record(NULL::klaxon.channel, '{}')",
            "jsonb_populate_record(NULL::klaxon.channel, '{\"id\": -1, \"owner\": \"alice\", \"project\": \"fleet\", \"kind\": \"x\"}')",
        ],
        "bytea" => &["''", "'\\x00'"],
        _ => &[],
    }
}

/// What a call may do and still be the caller's own doing: a bug is any other.
fn is_a_bug(code: &str) -> bool {
    // Internal errors; what ends a session; a statement that does not end.
    matches!(&code[..2], "XX" | "08" | "57" | "58" | "F0")
}

struct Function {
    name: String,
    call: &'static str,
    arguments: Vec<String>,
    required: usize,
}

/// Every function of the extension: triggers, too, can be called, if only to be told that they are some.
async fn functions(client: &Client) -> Vec<Function> {
    let rows = client
        .query(
            "SELECT p.proname::text, p.prokind = 'p', p.proargtypes::oid[]::regtype[]::text[], (p.pronargs - p.pronargdefaults)::integer
             FROM pg_proc AS p
             WHERE p.oid IN (SELECT d.objid FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
                             AND d.refobjid = (SELECT e.oid FROM pg_extension AS e WHERE e.extname = 'pg_klaxon'))
             ORDER BY 1, 3",
            &[],
        )
        .await
        .expect("the catalog reads");
    rows.iter()
        .map(|row| Function {
            name: row.get(0),
            call: if row.get(1) { "CALL" } else { "SELECT * FROM" },
            arguments: row.get(2),
            required: usize::try_from(row.get::<_, i32>(3)).expect("not negative"),
        })
        .collect()
}

#[tokio::test]
async fn no_argument_is_an_internal_error_or_the_end_of_a_backend() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = setting("KLAXON_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let calls = setting("KLAXON_FUZZ_CALLS").unwrap_or(10_000);
    println!("KLAXON_FUZZ_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);

    let database = Database::new();
    let client = database.connect().await;
    client
        .batch_execute(
            "CREATE TABLE public.runs (run_id bigint PRIMARY KEY, status text);
             CREATE VIEW public.a_view AS SELECT 1 AS x;
             SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
             INSERT INTO klaxon.project (slug) VALUES ('fleet');
             INSERT INTO klaxon.member (project, principal, role) VALUES ('fleet', 'alice', 'admin');
             INSERT INTO klaxon.channel (name, kind, config) VALUES ('ops', 'webhook', '{\"url\": \"https://example.com/\"}');
             SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['run.*'], owner => NULL);
             SELECT klaxon.notify_event('run.failed', project => 'fleet', dedup_key => 'ops');
             SET statement_timeout = '20s'; SET client_min_messages = error; SET log_min_messages = fatal",
        )
        .await
        .expect("the scene is set");
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a session").get(0);
    let functions = functions(&client).await;
    assert!(functions.len() > 20, "the schema has its functions");
    for function in &functions {
        let unknown = function.arguments.iter().find(|kind| values(kind).is_empty());
        assert!(unknown.is_none(), "{} takes {unknown:?}: give it values", function.name);
    }
    let mut succeeded = std::collections::BTreeSet::new();
    for number in 0..calls.max(functions.len() as u64) {
        // Each of them, and then any.
        let function = match functions.get(usize::try_from(number).expect("it counts calls")) {
            Some(function) => function,
            None => &functions[random.usize(..functions.len())],
        };
        let count = random.usize(function.required..=function.arguments.len());
        let arguments: Vec<String> = function.arguments[..count]
            .iter()
            .map(|kind| match values(kind) {
                _ if random.u8(..8) == 0 => format!("NULL::{kind}"),
                values => format!("({})::{kind}", values[random.usize(..values.len())]),
            })
            .collect();
        let role =
            ["postgres", "klaxon_user", "klaxon_app", "klaxon_admin", "klaxon_emitter", "klaxon_worker"]
                [random.usize(..6)];
        let call = format!("{} klaxon.{}({})", function.call, function.name, arguments.join(", "));
        let begin = format!("BEGIN; SET LOCAL ROLE {role}; SET LOCAL klaxon.principal = 'alice'");
        client.batch_execute(&begin).await.expect("a transaction begins");
        match client.batch_execute(&call).await {
            Ok(()) => {
                succeeded.insert(function.name.clone());
            }
            Err(error) => {
                let code = error.code().map_or("08000", |code| code.code());
                assert!(!is_a_bug(code), "as {role}: {call}: {code} {error:?}");
            }
        }
        client.batch_execute("ROLLBACK").await.expect("the session lives");
    }
    let alive: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a session").get(0);
    assert_eq!(alive, backend);
    assert!(
        calls < 5_000 || succeeded.len() * 2 > functions.len(),
        "most are called as they may be: {succeeded:?}"
    );
}
