//! The statements that find work, by themselves.

use klaxon_tests::database::Database;
use klaxon_tests::scene::Scene;
use serde_json::json;
use uuid::Uuid;

const REFILL: &str = include_str!("../../worker/src/sql/refill.sql");

/// Rows that become due while they are being read are read with their payload, or as not yet due.
#[tokio::test]
async fn what_becomes_due_while_it_is_read_is_whole_or_not_read() {
    const ROWS: i64 = 2_000;
    let scene = Scene::set(Database::new()).await;
    let channel =
        scene.channel("hook", "webhook", json!({"url": "https://receiver.test/"}), &["run.*"]).await;
    scene
        .client
        .execute(
            "INSERT INTO klaxon.event (type) SELECT 'run.failed' FROM generate_series(1, $1::bigint)",
            &[&ROWS],
        )
        .await
        .unwrap();
    let reader = scene.database.connect().await;
    let refill = reader.prepare(REFILL).await.unwrap();
    let mut becoming_due = 0;
    for _ in 0..100 {
        scene
            .client
            .batch_execute(
                "UPDATE klaxon.outbox AS o SET due_at = clock_timestamp() + n.n * interval '20 us'
                 FROM (SELECT id, row_number() OVER () AS n FROM klaxon.outbox) AS n WHERE o.id = n.id",
            )
            .await
            .unwrap();
        let rows = reader
            .query(
                &refill,
                &[
                    &vec![channel],
                    &vec![std::time::SystemTime::UNIX_EPOCH],
                    &vec![Uuid::nil()],
                    &vec![ROWS],
                    &i64::MAX,
                    &"",
                ],
            )
            .await
            .unwrap();
        let whole = rows.iter().filter(|row| !row.get::<_, bool>("cut")).collect::<Vec<_>>();
        becoming_due += usize::from((1..rows.len()).contains(&whole.len()));
        let empty = whole.iter().filter(|row| row.get::<_, Option<&str>>("payload").is_none()).count();
        assert_eq!(empty, 0, "of {} rows read", whole.len());
    }
    assert!(becoming_due > 10, "rows were due, and others were not, in {becoming_due} of 100 reads");
}
