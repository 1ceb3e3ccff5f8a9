//! Mails, from a committed row to a mailbox of a real mail server.

use klaxon_tests::database::Database;
use klaxon_tests::mta::{IMPLICIT, LOGIN_ONLY, STARTTLS};
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;

const SETTLED: &str = "NOT EXISTS (SELECT FROM klaxon.outbox)";

/// The audit rows: attempt, status, response code, error.
async fn attempts(scene: &Scene<'_>) -> Vec<(i32, String, Option<i32>, Option<String>)> {
    let query = "SELECT attempt, status, response_code, error FROM klaxon.delivery
                 WHERE kind = 'attempt' ORDER BY seq";
    let rows = scene.client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

#[tokio::test]
async fn a_mail_arrives_whichever_way_the_server_wants_the_login() {
    let mut scene = Scene::set(Database::new()).await;
    let mut mta = scene.mta(&["ann", "bob", "cleo"]).await;
    for (name, port) in [("ann", STARTTLS), ("bob", IMPLICIT), ("cleo", LOGIN_ONLY)] {
        scene.channel(name, "email", mta.channel(port, &[name]), &["run.failed"]).await;
    }
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({"run_id": "r9"})).await;
    for (name, login) in [("ann", "plain"), ("bob", "plain"), ("cleo", "login")] {
        let mail = mta.mails(name, 1).await.remove(0);
        assert_eq!(mail.header("to"), format!("{name}@example.com"));
        let took = mta.logged(name, |line| line.contains(&format!("for {name}@example.com"))).await;
        assert!(took.contains(" P=esmtpsa X=TLS1.3:"), "{took}");
        assert!(took.contains(&format!(" A={login}:klaxon@mail.test ")), "{took}");
    }
    until(&scene.client, SETTLED).await;
    assert_eq!(attempts(&scene).await, vec![(1, "sent".into(), Some(250), None); 3]);
}

#[tokio::test]
async fn a_wrong_password_disables_the_channel_and_says_so() {
    let mut scene = Scene::set(Database::new()).await;
    let mut mta = scene.mta(&["ann"]).await;
    let mut config = mta.channel(STARTTLS, &["ann"]);
    config["smtp_pass"] = "not it".into();
    scene.channel("ops", "email", config, &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "(SELECT NOT enabled FROM klaxon.channel)").await;
    let refused = mta.logged("the login", |line| line.contains("authenticator failed")).await;
    assert!(refused.contains("535 Incorrect authentication data"), "{refused}");
    let reason: String =
        scene.client.query_one("SELECT disabled_reason FROM klaxon.channel", &[]).await.unwrap().get(0);
    assert_eq!(reason, "SMTP 535 to the login");
    until(&scene.client, "EXISTS (SELECT FROM klaxon.dead_letter)").await;
    assert_eq!(attempts(&scene).await, [(1, "dead".into(), Some(535), Some(reason))]);
}

#[tokio::test]
async fn a_recipient_nobody_knows_is_named_and_keeps_nothing_from_the_others() {
    let mut scene = Scene::set(Database::new()).await;
    let mut mta = scene.mta(&["ann", "bob"]).await;
    scene.channel("ops", "email", mta.channel(STARTTLS, &["ann", "nobody", "bob"]), &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    for name in ["ann", "bob"] {
        assert_eq!(mta.mails(name, 1).await.len(), 1);
    }
    until(&scene.client, SETTLED).await;
    let error = "not to all recipients: nobody@example.com refused with SMTP 550";
    assert_eq!(attempts(&scene).await, [(1, "sent".into(), Some(250), Some(error.into()))]);
}

#[tokio::test]
async fn who_is_told_to_come_back_later_gets_it_later_and_the_others_once() {
    let mut scene = Scene::set(Database::new()).await;
    let mut mta = scene.mta(&["ann", "bob", "cleo"]).await;
    mta.busy("bob", true);
    let mut config = mta.channel(STARTTLS, &["ann", "bob", "nobody", "cleo"]);
    config["retry_schedule"] = json!(vec![1; 20]);
    scene.channel("ops", "email", config, &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    for name in ["ann", "cleo"] {
        mta.mails(name, 1).await;
    }
    until(&scene.client, "EXISTS (SELECT FROM klaxon.delivery WHERE status = 'failed')").await;
    mta.busy("bob", false);
    let late = mta.mails("bob", 1).await;
    until(&scene.client, SETTLED).await;

    let attempts = attempts(&scene).await;
    let (last, before) = attempts.split_last().unwrap();
    let nobody = "nobody@example.com refused with SMTP 550";
    let deferred = format!("deferred for bob@example.com: SMTP 451; sent to 2 others; {nobody}");
    for (_, status, code, error) in before {
        assert_eq!((status.as_str(), *code, error.as_ref()), ("failed", Some(451), Some(&deferred)));
    }
    assert_eq!(last.1, "sent");
    assert_eq!(last.3, Some(format!("not to all recipients: {nobody}")));
    for name in ["ann", "cleo"] {
        let mails = mta.mails(name, 1).await;
        assert_eq!(mails.len(), 1, "{name}");
        assert_eq!(mails[0].header("message-id"), late[0].header("message-id"));
    }
    assert_eq!((late.len(), mta.count("rejected RCPT <nobody@")), (1, 1));
}

#[tokio::test]
async fn after_a_restart_a_second_copy_is_known_by_its_message_id() {
    let mut scene = Scene::set(Database::new()).await;
    let mut mta = scene.mta(&["ann", "bob"]).await;
    mta.busy("bob", true);
    let mut config = mta.channel(STARTTLS, &["ann", "bob"]);
    config["retry_schedule"] = json!(vec![1; 20]);
    scene.channel("ops", "email", config, &["run.failed"]).await;
    let mut worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({})).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.delivery WHERE status = 'failed')").await;
    worker.signal("TERM");
    worker.wait().await;
    mta.busy("bob", false);
    let _next = scene.worker(&[]).await;
    let bob = mta.mails("bob", 1).await;
    let ann = mta.mails("ann", 2).await;
    let ids = bob.iter().chain(&ann).map(|mail| mail.header("message-id"));
    assert_eq!(ids.collect::<Vec<_>>(), vec![bob[0].header("message-id"); 3]);
}

#[tokio::test]
async fn whatever_an_event_says_arrives_whole_and_as_text() {
    let mut scene = Scene::set(Database::new()).await;
    let mut mta = scene.mta(&["ann"]).await;
    let mut config = mta.channel(STARTTLS, &["ann"]);
    config["template"] = json!({"body": "{{ data.note }}"});
    scene.channel("ops", "email", config, &["task.failed"]).await;
    let _worker = scene.worker(&[]).await;
    let long = "wide ".repeat(1000) + &"x".repeat(2000) + &"\u{1F6A8}".repeat(500);
    let note = format!(
        "first\n.\n..\n.hidden\nFrom the start\n<script>alert(1)</script> & \"co\"\n{long}\n\
         tab\there \u{1}\u{8}\u{1b}[31m\u{7f}\n=3D =\nnaïve \u{1F600}\n-- \nlast"
    );
    let title = "Zürich\r\nBcc: eve@example.com\r\n\r\n.\r\n\u{1F6A8} <b>bold</b>\u{1}end";
    scene.emit("task.failed", json!({"title": title, "note": note})).await;
    let mail = mta.mails("ann", 1).await.remove(0);
    assert_eq!(mail.defects, Vec::<String>::new());
    let subject = mail.header("subject");
    assert_eq!(subject, "Zürich Bcc: eve@example.com . \u{1F6A8} <b>bold</b> end");
    let names: Vec<&str> = mail.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert!(!names.contains(&"bcc"), "{names:?}");
    assert!(mail.longest_line <= 998, "{}", mail.longest_line);
    // But for what a terminal would be told: colours and control characters.
    let shown = note.replace("\u{1}\u{8}\u{1b}[31m\u{7f}", "");
    assert!(mail.text.contains(&shown), "{}", mail.text);
    let escaped =
        shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    assert!(mail.html.contains(&escaped) && !mail.html.contains("<script>"), "{}", mail.html);
}

#[tokio::test]
async fn firings_of_one_thing_are_one_thread() {
    let mut scene = Scene::set(Database::new()).await;
    let mut mta = scene.mta(&["ann"]).await;
    scene
        .client
        .batch_execute("INSERT INTO klaxon.project (slug, name) VALUES ('billing', 'Billing')")
        .await
        .unwrap();
    scene.channel("ops", "email", mta.channel(STARTTLS, &["ann"]), &["agent.*", "run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    let events = [
        ("agent.offline", json!({"agent_id": "a1"})),
        ("agent.online", json!({"agent_id": "a1"})),
        ("agent.offline", json!({"agent_id": "a2"})),
        ("run.failed", json!({"run_id": "a1"})),
    ];
    let mut mails = Vec::new();
    for (count, (kind, payload)) in events.iter().enumerate() {
        let emit = "SELECT klaxon.notify_event($1, $2, 'billing')";
        scene.client.execute(emit, &[kind, payload]).await.unwrap();
        mails = mta.mails("ann", count + 1).await;
    }
    let mut ids: Vec<&str> = mails.iter().map(|mail| mail.header("message-id")).collect();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let threads: Vec<&str> = mails.iter().map(|mail| mail.header("references")).collect();
    assert_eq!(threads[0], threads[1], "it is back");
    assert!(threads[0] != threads[2] && threads[0] != threads[3], "{threads:?}");
    for mail in &mails {
        assert_eq!(mail.header("in-reply-to"), mail.header("references"));
        assert_eq!(mail.header("auto-submitted"), "auto-generated");
        assert_eq!(mail.header("list-id"), "<billing.klaxon.mail.test>");
        assert_eq!(mail.header("return-path"), "<klaxon@mail.test>");
    }
}

#[tokio::test]
async fn many_mails_take_few_connections() {
    const MAILS: usize = 60;
    let mut scene = Scene::set(Database::new()).await;
    let mut mta = scene.mta(&["ann"]).await;
    scene.channel("ops", "email", mta.channel(STARTTLS, &["ann"]), &["run.failed"]).await;
    let _worker = scene.worker(&["--per-channel", "3"]).await;
    let insert = "INSERT INTO klaxon.event (type, payload)
                  SELECT 'run.failed', jsonb_build_object('run_id', n) FROM generate_series(1, $1::int) AS n";
    scene.client.execute(insert, &[&i32::try_from(MAILS).unwrap()]).await.unwrap();
    let mails = mta.mails("ann", MAILS).await;
    assert_eq!(mails.len(), MAILS);
    // As many as may be sent at once, and one for each that has carried the 25 the server allows it.
    let connections = mta.count("SMTP connection from [127.0.0.1]");
    assert!((1..=5).contains(&connections), "{connections}");
    assert_eq!(mta.count("dropped: "), 0);
    until(&scene.client, SETTLED).await;
    assert_eq!(attempts(&scene).await, vec![(1, "sent".into(), Some(250), None); MAILS]);
}
