//! A superuser, and a log that was written while nobody looked.

use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use serde_json::json;

use crate::{attempts, checkpoint, ten_attempts, verify};

/// Keeps the log and its head as they are now, to be put back.
async fn keep(scene: &Scene<'_>) {
    let copies = "CREATE TABLE log AS TABLE klaxon.delivery; CREATE TABLE head AS TABLE klaxon.audit_head";
    scene.client.batch_execute(copies).await.unwrap();
}

#[tokio::test]
async fn what_was_changed_is_found_and_named() {
    let scene = ten_attempts().await;
    let (code, clean) = verify(&scene, &[]).await;
    assert_eq!((code, &clean["ok"], &clean["findings"]), (Some(0), &json!(true), &json!([])), "{clean}");
    let last = clean["last_seq"].as_i64().unwrap();
    assert_eq!((clean["first_seq"].as_i64(), clean["rows"].as_i64()), (Some(1), Some(last)));
    keep(&scene).await;

    let base: i64 = scene
        .database
        .psql("SELECT min(seq) - 1 FROM klaxon.delivery WHERE kind = 'attempt'")
        .parse()
        .unwrap();
    // `@3` is the third attempt.
    let place = |sql: &str| {
        (1..=9).fold(sql.to_owned(), |sql, n| sql.replace(&format!("@{n}"), &(base + n).to_string()))
    };
    let insert = "INSERT INTO klaxon.delivery SELECT (jsonb_populate_record(d, '{\"seq\": %}')).* FROM klaxon.delivery AS d WHERE seq = @3";
    let cases: Vec<(&str, String, &str, i64)> = vec![
        ("an edited status", "UPDATE klaxon.delivery SET status = 'sent' WHERE seq = @3".into(), "altered", base + 3),
        ("an edited time", "UPDATE klaxon.delivery SET attempted_at = attempted_at + '1 us' WHERE seq = @4".into(), "altered", base + 4),
        ("a null that was none", "UPDATE klaxon.delivery SET error = NULL WHERE seq = @5".into(), "altered", base + 5),
        ("an edited body", "UPDATE klaxon.delivery SET response_body = 'all well' WHERE seq = @5".into(), "altered", base + 5),
        ("an edited MAC", "UPDATE klaxon.delivery SET mac = decode(repeat('00', 32), 'hex') WHERE seq = @6".into(), "altered", base + 6),
        ("a deleted row", "DELETE FROM klaxon.delivery WHERE seq = @7".into(), "missing", base + 7),
        ("deleted first rows", "DELETE FROM klaxon.delivery WHERE seq <= 2".into(), "missing", 1),
        ("a deleted tail", format!("DELETE FROM klaxon.delivery WHERE seq = {last}"), "truncated", last),
        ("a row added at the end", insert.replace('%', &(last + 1).to_string()), "altered", last + 1),
        (
            "a row put between",
            format!("UPDATE klaxon.delivery SET seq = -seq WHERE false; UPDATE klaxon.delivery SET seq = seq + 1000 WHERE seq > @5; \
                     UPDATE klaxon.delivery SET seq = seq - 999 WHERE seq > 1000; {}", insert.replace('%', "@6")),
            "altered",
            base + 6,
        ),
        (
            "two rows in each other's place",
            "UPDATE klaxon.delivery SET seq = 1000 WHERE seq = @4; UPDATE klaxon.delivery SET seq = @4 WHERE seq = @5; \
             UPDATE klaxon.delivery SET seq = @5 WHERE seq = 1000"
                .into(),
            "altered",
            base + 4,
        ),
        ("a time that is none", "UPDATE klaxon.delivery SET attempted_at = 'infinity' WHERE seq = @4".into(), "altered", base + 4),
        ("a head that is gone", "DELETE FROM klaxon.audit_head".into(), "missing", last),
        ("a head of another MAC", "UPDATE klaxon.audit_head SET mac = '\\x00'".into(), "forked", last),
        (
            "a row twice",
            "ALTER TABLE klaxon.delivery DROP CONSTRAINT delivery_pkey; \
             INSERT INTO klaxon.delivery SELECT * FROM klaxon.delivery WHERE seq = @3"
                .into(),
            "duplicate",
            base + 3,
        ),
        (
            // Who reads the table by another way than its key finds the forged one.
            "a row that the index does not lead to",
            format!(
                "UPDATE pg_catalog.pg_index SET indisready = false WHERE indexrelid = 'klaxon.delivery_pkey'::regclass; {}; \
                 UPDATE pg_catalog.pg_index SET indisready = true WHERE indexrelid = 'klaxon.delivery_pkey'::regclass",
                insert.replace('%', "@5")
            ),
            "duplicate",
            base + 5,
        ),
        (
            "a row without a MAC",
            "ALTER TABLE klaxon.delivery ALTER mac DROP NOT NULL; UPDATE klaxon.delivery SET mac = NULL WHERE seq = @3".into(),
            "unsealed",
            base + 3,
        ),
        ("a MAC cut short", "UPDATE klaxon.delivery SET mac = substr(mac, 1, 31) WHERE seq = @4".into(), "unsealed", base + 4),
        (
            "a sealed change of the configuration, told otherwise",
            "UPDATE klaxon.delivery SET detail = replace(detail, 'hook', 'hock') WHERE seq = 3".into(),
            "altered",
            3,
        ),
        (
            "an adoption that nobody with a key made",
            format!(
                "UPDATE klaxon.audit_head SET chain = gen_random_uuid(); \
                 INSERT INTO klaxon.delivery (seq, kind, attempted_at, detail, chain, key_id, mac) \
                 SELECT h.seq + 1, 'adoption', now(), \
                        json_build_object('deployment', NULL, 'chain', d.chain, 'seq', h.seq, 'mac', encode(d.mac, 'hex'), 'key_id', 'ffff'), \
                        h.chain, h.key_id, d.mac FROM klaxon.audit_head AS h JOIN klaxon.delivery AS d USING (seq); \
                 UPDATE klaxon.audit_head SET seq = {last} + 1"
            ),
            "foreign",
            1,
        ),
        ("another chain's row", "UPDATE klaxon.delivery SET chain = gen_random_uuid() WHERE seq = @8".into(), "foreign", base + 8),
        ("another key's row", "UPDATE klaxon.delivery SET key_id = 'ffffffffffffffff' WHERE seq = @9".into(), "wrong_key", base + 9),
    ];
    for (what, tamper, kind, seq) in cases {
        scene.client.batch_execute(&place(&tamper)).await.unwrap();
        let (code, verdict) = verify(&scene, &[]).await;
        // A row too many contradicts the head as well, which is named before it.
        let named = verdict["findings"]
            .as_array()
            .is_some_and(|all| all.iter().any(|found| found["kind"] == kind && found["seq"] == seq));
        assert!(code == Some(1) && verdict["ok"] == json!(false) && named, "{what}: {verdict}");
        scene
            .client
            .batch_execute(
                "TRUNCATE klaxon.delivery; INSERT INTO klaxon.delivery TABLE log;
                 ALTER TABLE klaxon.delivery DROP CONSTRAINT IF EXISTS delivery_pkey;
                 ALTER TABLE klaxon.delivery ADD CONSTRAINT delivery_pkey PRIMARY KEY (seq), ALTER mac SET NOT NULL;
                 TRUNCATE klaxon.audit_head; INSERT INTO klaxon.audit_head TABLE head",
            )
            .await
            .unwrap();
    }
    assert_eq!(verify(&scene, &[]).await.0, Some(0), "as it was");

    // Retention may blank a body: its hash stays.
    scene.client.batch_execute("UPDATE klaxon.delivery SET response_body = NULL").await.unwrap();
    assert_eq!(verify(&scene, &[]).await.0, Some(0));
}

#[tokio::test]
async fn a_checkpoint_finds_what_the_chain_alone_cannot() {
    let scene = ten_attempts().await;
    let output = scene.installation.run(&["audit", "checkpoint", "--json"]).await;
    let file = scene.installation.folder().join("checkpoint.json");
    std::fs::write(&file, output.stdout).unwrap();
    let file = file.to_str().unwrap();
    let (code, verdict) = verify(&scene, &["--checkpoint", file]).await;
    assert_eq!((code, verdict["verdict"].as_str()), (Some(0), Some("clean")));

    // The tail cut off and the head set back: to itself the chain looks whole.
    scene
        .client
        .batch_execute(
            "DELETE FROM klaxon.delivery WHERE seq > 4;
             UPDATE klaxon.audit_head AS h SET seq = d.seq, mac = d.mac FROM klaxon.delivery AS d WHERE d.seq = 4",
        )
        .await
        .unwrap();
    let (code, verdict) = verify(&scene, &[]).await;
    assert_eq!((code, verdict["verdict"].as_str()), (Some(0), Some("unanchored")));
    let (code, verdict) = verify(&scene, &["--checkpoint", file]).await;
    assert_eq!((code, verdict["findings"][0]["kind"].as_str()), (Some(1), Some("rewound")), "{verdict}");

    std::fs::write(file, "{}").unwrap();
    let (code, verdict) = verify(&scene, &["--checkpoint", file]).await;
    assert_eq!(
        (code, verdict["findings"][0]["kind"].as_str()),
        (Some(1), Some("bad_checkpoint")),
        "{verdict}"
    );
}

#[tokio::test]
async fn a_past_that_was_lived_twice_is_forked() {
    let scene = ten_attempts().await;
    scene.webhook("again", Hook::default(), json!({}), &["task.failed"]).await;
    attempts(&scene, 1).await;
    let rewind = "TRUNCATE klaxon.delivery, klaxon.audit_head;
        INSERT INTO klaxon.delivery TABLE log; INSERT INTO klaxon.audit_head TABLE head";
    keep(&scene).await;
    attempts(&scene, 3).await;
    let (file, said) = checkpoint(&scene).await;
    let (code, verdict) = verify(&scene, &["--checkpoint", &file]).await;
    assert_eq!((code, verdict["verdict"].as_str()), (Some(0), Some("clean")), "{verdict}");

    // The worker itself goes on from where a superuser has put the log back to: every MAC is sound.
    scene.client.batch_execute(rewind).await.unwrap();
    attempts(&scene, 4).await;
    let (code, verdict) = verify(&scene, &[]).await;
    assert_eq!((code, verdict["verdict"].as_str()), (Some(0), Some("unanchored")), "{verdict}");
    let (code, verdict) = verify(&scene, &["--checkpoint", &file]).await;
    let found = &verdict["findings"];
    assert_eq!((code, found.as_array().map(Vec::len)), (Some(1), Some(1)), "{verdict}");
    assert_eq!((&found[0]["kind"], &found[0]["seq"]), (&json!("forked"), &said["seq"]), "{verdict}");

    // A checkpoint that somebody wrote to fit.
    let (head, mut forged) = checkpoint(&scene).await;
    forged["seq"] = json!(forged["seq"].as_i64().unwrap() - 1);
    std::fs::write(&head, forged.to_string()).unwrap();
    let (code, verdict) = verify(&scene, &["--checkpoint", &head]).await;
    assert_eq!((code, &verdict["findings"][0]["kind"]), (Some(1), &json!("bad_checkpoint")), "{verdict}");
}

#[tokio::test]
async fn only_an_end_of_its_own_writing_is_signed() {
    let scene = ten_attempts().await;
    let last: i64 = scene.database.psql("SELECT seq FROM klaxon.audit_head").parse().unwrap();
    for forged in [
        "UPDATE klaxon.audit_head SET mac = decode(repeat('00', 32), 'hex')".to_owned(),
        format!("DELETE FROM klaxon.delivery WHERE seq = {last}"),
        format!("DELETE FROM klaxon.delivery WHERE seq = {last} - 1"),
        format!("UPDATE klaxon.delivery SET status = 'sent', error = 'x' WHERE seq = {last}"),
        // Row and head agree with each other, and not with the key.
        format!(
            "UPDATE klaxon.delivery SET mac = decode(repeat('ab', 32), 'hex') WHERE seq = {last};
             UPDATE klaxon.audit_head SET mac = decode(repeat('ab', 32), 'hex')"
        ),
    ] {
        let kept = "CREATE TABLE log AS TABLE klaxon.delivery; CREATE TABLE head AS TABLE klaxon.audit_head";
        scene.client.batch_execute(&format!("{kept}; {forged}")).await.unwrap();
        let output = scene.installation.run(&["audit", "checkpoint", "--json"]).await;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{forged}");
        scene
            .client
            .batch_execute(
                "TRUNCATE klaxon.delivery, klaxon.audit_head; INSERT INTO klaxon.delivery TABLE log;
                 INSERT INTO klaxon.audit_head TABLE head; DROP TABLE log, head",
            )
            .await
            .unwrap();
    }
    assert!(scene.installation.run(&["audit", "checkpoint", "--json"]).await.status.success());
}
