//! Dumps, changes of the configuration, retention, and what is missing.

use klaxon_tests::database::Database;
use klaxon_tests::process;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;

use crate::{checkpoint, ten_attempts, verify};

#[tokio::test]
async fn a_dump_that_is_restored_verifies() {
    let scene = ten_attempts().await;
    let rotated = scene.installation.run(&["keys", "rotate"]).await;
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    let (file, _) = checkpoint(&scene).await;
    let before = verify(&scene, &["--checkpoint", &file]).await;
    let dump = process::run(&mut scene.database.cluster.client("pg_dump", &scene.database.name)).unwrap();
    let restored = Database::bare(scene.database.cluster);
    let sql = scene.installation.folder().join("dump.sql");
    std::fs::write(&sql, dump).unwrap();
    let mut psql = scene.database.cluster.client("psql", &restored.name);
    process::run(psql.args(["--quiet", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&sql)).unwrap();
    // Of other formats of times and numbers, the log knows nothing.
    restored.psql(&format!(
        "ALTER DATABASE {} SET datestyle = 'German'; ALTER DATABASE {0} SET timezone = 'Asia/Kathmandu'; \
         ALTER DATABASE {0} SET bytea_output = 'escape'",
        restored.name
    ));
    let after = verify(&scene, &["--checkpoint", &file, "--database-url", &restored.url()]).await;
    assert_eq!((before.0, before.1["verdict"].as_str()), (Some(0), Some("clean")), "{}", before.1);
    assert_eq!(after, before);
}

#[tokio::test]
async fn what_cannot_be_verified_exits_2() {
    let scene = Scene::set(Database::new()).await;
    let output = scene
        .installation
        .run(&["audit", "verify", "--json", "--database-url", "postgresql://nobody@127.0.0.1:1/x"])
        .await;
    assert_eq!(output.status.code(), Some(2));
    std::fs::remove_file(scene.installation.folder().join("audit.key")).unwrap();
    let output = scene.installation.run(&["audit", "verify"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn changes_of_the_configuration_are_rows_of_the_log() {
    let scene = Scene::set(Database::new()).await;
    scene
        .client
        .batch_execute("CREATE ROLE audit_boss IN ROLE klaxon_admin; SET ROLE audit_boss")
        .await
        .unwrap();
    scene.webhook("hook", Hook::default().secret("whsec_c3dvcmRmaXNo"), json!({}), &["run.failed"]).await;
    scene.client.batch_execute("RESET ROLE").await.unwrap();
    let unsealed = "(SELECT value FROM klaxon.status() WHERE item = 'audit_unsealed')";
    until(&scene.client, &format!("{unsealed} <> '0'")).await;
    let _worker = scene.worker(&[]).await;
    until(&scene.client, &format!("{unsealed} = '0'")).await;
    scene
        .client
        .batch_execute("UPDATE klaxon.channel SET enabled = false; DELETE FROM klaxon.channel")
        .await
        .unwrap();
    until(
        &scene.client,
        "EXISTS (SELECT FROM klaxon.delivery WHERE detail::jsonb ->> 'operation' = 'delete')",
    )
    .await;

    let told: Vec<(String, String, String)> = scene
        .client
        .query(
            "SELECT detail::jsonb ->> 'by', detail::jsonb ->> 'table', detail::jsonb ->> 'operation' FROM klaxon.delivery
             WHERE kind = 'config' AND detail::jsonb ->> 'table' IN ('channel', 'subscription') ORDER BY seq",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let expected = [
        ("audit_boss", "channel", "insert"),
        ("audit_boss", "subscription", "insert"),
        ("postgres", "channel", "update"),
        ("postgres", "channel", "delete"),
    ];
    assert_eq!(told, expected.map(|(a, b, c)| (a.into(), b.into(), c.into())));
    let (code, verdict) = verify(&scene, &[]).await;
    assert_eq!((code, &verdict["findings"]), (Some(0), &json!([])), "{verdict}");

    // Who takes such a record out of the log is found out, like anybody else who does.
    scene.client.batch_execute("DELETE FROM klaxon.delivery WHERE seq = 2").await.unwrap();
    let (code, verdict) = verify(&scene, &[]).await;
    assert_eq!(
        (code, &verdict["findings"][0]["kind"], &verdict["findings"][0]["seq"]),
        (Some(1), &json!("missing"), &json!(2))
    );
}

#[tokio::test]
async fn old_rows_are_removed_up_to_a_checkpoint_and_the_rest_verifies() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("hook", Hook::default().counting(), json!({}), &["run.failed"]).await;
    let kept = scene.installation.folder().join("checkpoints");
    std::fs::write(&kept, "").unwrap();
    let mut worker = scene.worker(&["--checkpoint-file", &kept.display().to_string()]).await;
    let emit = "INSERT INTO klaxon.event (type) SELECT 'run.failed' FROM generate_series(1, 10100)";
    let settled = "NOT EXISTS (SELECT FROM klaxon.outbox)";
    for checkpoints in 1..=2 {
        scene.client.batch_execute(emit).await.unwrap();
        until(&scene.client, settled).await;
        let written =
            format!("(SELECT count(*) FROM klaxon.delivery WHERE kind = 'checkpoint') = {checkpoints}");
        until(&scene.client, &written).await;
    }
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, settled).await;
    let checkpoint = scene.installation.run(&["audit", "checkpoint", "--json"]).await;
    let file = scene.installation.folder().join("checkpoint.json");
    std::fs::write(&file, &checkpoint.stdout).unwrap();
    let file = file.display().to_string();

    // What the log holds of its checkpoints is what was kept outside, a line each, and what the command prints
    // of one.
    let signed: String = scene
        .client
        .query_one(
            "SELECT string_agg(detail || E'\\n', '' ORDER BY seq) FROM klaxon.delivery WHERE kind = 'checkpoint'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), signed);
    let kept = kept.display().to_string();
    let (code, verdict) = verify(&scene, &["--checkpoint", &kept]).await;
    assert_eq!((code, &verdict["verdict"]), (Some(0), &json!("clean")), "{verdict}");
    // Of several databases' it is this one's that counts.
    let other = signed.lines().next().unwrap().replacen("\"chain\":\"", "\"chain\":\"0", 1);
    std::fs::write(&kept, format!("{signed}{other}\n")).unwrap();
    let (code, verdict) = verify(&scene, &["--checkpoint", &kept]).await;
    assert_eq!((code, &verdict["verdict"]), (Some(0), &json!("clean")), "{verdict}");

    let announced: i64 = scene
        .client
        .query_one("SELECT rows FROM klaxon.prune(deliveries => '0') WHERE what = 'delivery'", &[])
        .await
        .unwrap()
        .get(0);
    assert!(announced > 20_000, "{announced}");
    until(&scene.client, "(SELECT prune_before IS NULL FROM klaxon.audit_head)").await;
    let (first, prunes): (i64, i64) = scene
        .client
        .query_one("SELECT min(seq), count(*) FILTER (WHERE kind = 'prune') FROM klaxon.delivery", &[])
        .await
        .map(|row| (row.get(0), row.get(1)))
        .unwrap();
    // To the two checkpoints, and to one more at the end that was written for it.
    assert_eq!((first, prunes), (announced + 2, 3));
    let (code, verdict) = verify(&scene, &["--checkpoint", &file]).await;
    assert_eq!((code, &verdict["findings"]), (Some(0), &json!([])), "{verdict}");
    assert_eq!(verdict["first_seq"], json!(first));
    worker.signal("TERM");
    assert!(worker.wait().await.success());

    // One row more, by hand, is one that no record speaks of.
    scene.client.execute("DELETE FROM klaxon.delivery WHERE seq = $1", &[&first]).await.unwrap();
    let (code, verdict) = verify(&scene, &[]).await;
    assert_eq!((code, &verdict["findings"][0]["kind"]), (Some(1), &json!("missing")), "{verdict}");
}

/// While a transaction is left open, the head's former versions stay, one a batch: whoever read them all on the
/// way to the newest would be slower from minute to minute.
#[tokio::test]
async fn upkeep_reads_the_newest_version_of_the_head_alone() {
    let scene = ten_attempts().await;
    let pages =
        "SELECT heap_blks_read + heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'audit_head'";
    let flushed = async || -> i64 {
        scene.client.execute("SELECT pg_stat_force_next_flush()", &[]).await.unwrap();
        scene.client.query_one(pages, &[]).await.unwrap().get(0)
    };
    let mut open = scene.database.connect().await;
    let open =
        open.build_transaction().isolation_level(tokio_postgres::IsolationLevel::RepeatableRead).start();
    let open = open.await.unwrap();
    open.execute("TABLE klaxon.audit_head", &[]).await.unwrap();
    // What a superuser writes into a scratch chain is as dead as what the worker does.
    let rewrite =
        "DO $$ BEGIN FOR n IN 1..5000 LOOP UPDATE klaxon.audit_head SET seq = seq + 1; END LOOP; END $$";
    for statement in [rewrite, "ANALYZE klaxon.audit_head", "SET enable_seqscan = off"] {
        scene.client.batch_execute(statement).await.unwrap();
    }
    scene
        .client
        .batch_execute("SELECT * FROM klaxon.remove_deliveries(), klaxon.journal_is_due()")
        .await
        .unwrap();
    let before = flushed().await;
    scene
        .client
        .batch_execute("SELECT * FROM klaxon.remove_deliveries(), klaxon.journal_is_due()")
        .await
        .unwrap();
    let read = flushed().await - before;
    assert!((1..10).contains(&read), "{read} pages of the head were read");
    open.rollback().await.unwrap();
}
