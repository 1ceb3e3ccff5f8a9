//! `klaxon retry` and `klaxon replay`: once more, from the shell.

use klaxon_tests::database::Database;
use klaxon_tests::receiver::Hook;
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;

/// Exit status and what was printed, as whoever may edit every channel.
async fn run(scene: &Scene<'_>, arguments: &[&str]) -> (Option<i32>, String) {
    let url = scene.database.url();
    let arguments: Vec<_> = arguments.iter().copied().chain(["--database-url", &url]).collect();
    let told = scene.installation.run(&arguments).await;
    (told.status.code(), String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned())
}

async fn count(scene: &Scene<'_>, table: &str) -> i64 {
    scene.client.query_one(&format!("SELECT count(*) FROM klaxon.{table}"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn dead_letters_are_put_back_and_delivered() {
    let scene = Scene::set(Database::new()).await;
    let once = json!({"retry_schedule": []});
    scene.webhook("mended", Hook::default().statuses([500, 500, 500, 200]), once.clone(), &["task.*"]).await;
    scene.webhook("other", Hook::default().statuses([500, 200]), once, &["run.*"]).await;
    let _worker = scene.worker(&[]).await;
    for _ in 0..3 {
        scene.emit("task.failed", json!({})).await;
    }
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "(SELECT count(*) FROM klaxon.dead_letter) = 4").await;

    let (code, said) = run(&scene, &["retry", "--all", "--dry-run"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "4 dead letters would be tried again\n"));
    let (code, said) =
        run(&scene, &["retry", "--channel", "mended", "--since", "1 hour", "--dry-run", "--json"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "{\"dead\":3,\"retried\":0}\n"));
    let (_, said) = run(&scene, &["retry", "--since", "tomorrow", "--json"]).await;
    assert_eq!(said, "{\"dead\":0,\"retried\":0}\n");
    assert_eq!(count(&scene, "dead_letter").await, 4, "a dry run changes nothing");

    let id: uuid::Uuid = scene
        .client
        .query_one("SELECT id FROM klaxon.dead_letter WHERE event_type = 'run.failed'", &[])
        .await
        .unwrap()
        .get(0);
    let (code, said) = run(&scene, &["retry", "--delivery", &id.to_string()]).await;
    assert_eq!((code, said.as_str()), (Some(0), "1 of 1 dead letters are pending again\n"));
    let (code, said) = run(&scene, &["retry", "--channel", "mended", "--yes"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "3 of 3 dead letters are pending again\n"));
    until(&scene.client, "(SELECT count(*) FROM klaxon.delivery WHERE status = 'sent') = 4").await;
    assert_eq!(count(&scene, "dead_letter").await, 0);

    for (arguments, says) in [
        (vec!["retry"], "--all"),
        (vec!["retry", "--all", "--channel", "mended"], "cannot be used with"),
        (vec!["retry", "--channel", "nowhere"], "no channel \"nowhere\" that you may edit"),
        (vec!["retry", "--since", "2026"], "--since \"2026\" is no time such as"),
        (vec!["retry", "--since", "soon"], "--since \"soon\" is no time such as"),
    ] {
        let (code, said) = run(&scene, &arguments).await;
        assert!(code == Some(2) && said.contains(says), "{said}");
    }
}

#[tokio::test]
async fn past_events_are_replayed_each_once() {
    let scene = Scene::set(Database::new()).await;
    // Nobody is subscribed to these: replaying asks for no subscription. In all zones' worst hour, and with many
    // in one microsecond, since that is where slices of time could share some.
    scene
        .client
        .batch_execute(
            "INSERT INTO klaxon.event (type, occurred_at)
             SELECT CASE WHEN n % 4 = 0 THEN 'run.failed' ELSE 'task.failed' END,
                    timestamptz '2026-03-28 12:00Z' + (n / 7) * interval '11 s'
             FROM generate_series(0, 39999) AS n",
        )
        .await
        .unwrap();
    let path = scene.receiver.serve("/again", Hook::default());
    scene
        .client
        .execute(
            "INSERT INTO klaxon.channel (name, kind, config) VALUES ('again', 'webhook', $1)",
            &[&json!({ "url": path })],
        )
        .await
        .unwrap();
    scene
        .client
        .batch_execute(&format!("ALTER DATABASE {} SET TimeZone = 'Europe/Berlin'", scene.database.name))
        .await
        .unwrap();

    let replay = ["replay", "--channel", "again", "--since", "2026-03-28 12:00Z"];
    let with = |more: &[&'static str]| [&replay[..], more].concat();
    let (code, said) = run(&scene, &with(&["--dry-run"])).await;
    assert_eq!((code, said.as_str()), (Some(0), "40000 events would be sent to again again\n"));
    let (_, said) =
        run(&scene, &with(&["--event", "run.f*", "--until", "2026-03-28 12:10Z", "--dry-run"])).await;
    assert!(said.starts_with("97 events"), "{said}");
    assert_eq!(count(&scene, "outbox").await, 0, "a dry run changes nothing");

    let (code, said) = run(&scene, &with(&["--json"])).await;
    assert_eq!((code, said.as_str()), (Some(0), "{\"events\":40000,\"replayed\":40000}\n"));
    let told: (i64, i64, i64) = {
        let query = "SELECT count(*), count(DISTINCT event_id), count(DISTINCT xid) FROM klaxon.outbox WHERE replayed";
        let row = scene.client.query_one(query, &[]).await.unwrap();
        (row.get(0), row.get(1), row.get(2))
    };
    assert_eq!(told, (40_000, 40_000, 4), "each once, in four transactions");

    scene.client.batch_execute("DELETE FROM klaxon.outbox").await.unwrap();
    let (_, said) = run(&scene, &with(&["--until", "2026-03-28 12:00Z"])).await;
    assert_eq!(said, "7 of 7 events are pending for again\n");
    let _worker = scene.worker(&[]).await;
    until(&scene.client, "(SELECT count(*) FROM klaxon.delivery WHERE status = 'sent') = 7").await;

    for (more, says) in [
        (["--event", "run.faild"], "unknown event type \"run.faild\""),
        (["--until", "whenever"], "--until \"whenever\" is no time"),
    ] {
        let (code, said) = run(&scene, &with(&more)).await;
        assert!(code == Some(2) && said.contains(says), "{said}");
    }
    let (code, said) = run(&scene, &["replay", "--channel", "nowhere", "--since", "1 h"]).await;
    assert!(code == Some(2) && said.contains("that you may edit"), "{said}");
}
