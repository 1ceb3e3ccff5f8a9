//! What the vendors make of our messages, and what others' programs do.

use klaxon_tests::counterpart::{SLACK_BLOCKS, Script, WEBHOOK};
use klaxon_tests::database::Database;
use klaxon_tests::hostile;
use klaxon_tests::receiver::{Hook, Request};
use klaxon_tests::scene::Scene;
use klaxon_tests::telegram_emulator::Emulator;
use klaxon_tests::until::until;
use klaxon_tests::vendor::{Call, Vendor, Vendors, discord, ntfy, pagerduty, slack, teams, telegram};
use serde_json::{Value, json};

/// Whom the worker can write to.
const VENDORS: [Vendor; 6] =
    [slack::VENDOR, telegram::VENDOR, pagerduty::VENDOR, discord::VENDOR, teams::VENDOR, ntfy::VENDOR];

/// Everything is settled, of events and of digests.
const SETTLED: &str =
    "NOT EXISTS (SELECT FROM klaxon.outbox) AND NOT EXISTS (SELECT FROM klaxon.digest_item)";

/// A channel to each vendor that hears of everything, with these rules besides its address; and a
/// project and an event type of which not even the names mean well.
async fn scene(rules: Value) -> (Scene<'static>, Vendors) {
    let mut scene = Scene::set(Database::new()).await;
    let vendors = scene.vendors().await;
    for vendor in VENDORS {
        let mut config = (vendor.config)();
        config["retry_schedule"] = json!([]);
        for (field, value) in rules.as_object().unwrap() {
            config[field] = value.clone();
        }
        scene.channel(vendor.kind, vendor.kind, config, &["*"]).await;
    }
    scene
        .client
        .batch_execute(
            "INSERT INTO klaxon.project (slug, name, url) VALUES ('billing', '<!channel> @everyone *b* </b>', 'https://ci.example.com/b');
             INSERT INTO klaxon.event_type (name, severity) VALUES ('<!here>@here_(x)~~y~~|z|', 'error')",
        )
        .await
        .unwrap();
    (scene, vendors)
}

/// Every event type there is.
async fn types(scene: &Scene<'_>) -> Vec<String> {
    let rows = scene.client.query("SELECT name FROM klaxon.event_type ORDER BY name", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Emits these, half of them in the project, and returns how many.
async fn emit(scene: &Scene<'_>, events: &[(String, String)]) -> usize {
    let (types, payloads): (Vec<_>, Vec<_>) = events.iter().cloned().unzip();
    scene
        .client
        .execute(
            "SELECT klaxon.notify_event(e.type, e.payload::jsonb, CASE WHEN n % 2 = 0 THEN 'billing' END)
             FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS e (type, payload, n)",
            &[&types, &payloads],
        )
        .await
        .expect("any jsonb is a payload");
    events.len()
}

/// Each vendor took `count` messages at the first attempt, and found nothing in them to interpret.
async fn assert_taken(scene: &Scene<'_>, vendors: &Vendors, count: usize) {
    let mut problems: Vec<String> = Vec::new();
    for call in vendors.refused() {
        let Call { vendor, request, answer } = call;
        let body = String::from_utf8_lossy(&request.body).into_owned();
        problems.push(format!("{} refused {:.600}: {answer:?}", vendor.kind, body));
    }
    for call in vendors.calls().iter().filter(|call| !call.answer.refuses()) {
        let (reading, body) = (call.reading(), String::from_utf8_lossy(&call.request.body));
        let elsewhere = |link: &&String| !link.starts_with("https://ci.example.com/");
        for what in reading.interpreted.iter().chain(reading.links.iter().filter(elsewhere)) {
            problems.push(format!("{} interpreted {what:.200} in {body:.600}", call.vendor.kind));
        }
    }
    let shown = problems.iter().take(20).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(problems.is_empty(), "{} messages were not taken as they are meant:\n{shown}", problems.len());
    for vendor in VENDORS {
        assert_eq!(vendors.wait_for(&vendor, count).await.len(), count, "{}", vendor.kind);
    }
    assert_eq!(vendors.calls().len(), count * VENDORS.len());
    let row = scene
        .client
        .query_one(
            "SELECT count(*) FILTER (WHERE status = 'sent'), count(*) FILTER (WHERE status <> 'sent'),
                    (SELECT count(*) FROM klaxon.dead_letter)
             FROM klaxon.delivery WHERE kind = 'attempt'",
            &[],
        )
        .await
        .unwrap();
    let told: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(told, ((count * VENDORS.len()) as i64, 0, 0), "sent, not sent, given up");
}

#[tokio::test]
async fn nothing_a_payload_contains_is_refused_or_interpreted() {
    let (scene, vendors) = scene(json!({})).await;
    let mut events = Vec::new();
    for kind in types(&scene).await {
        events.push((kind.clone(), hostile::ordinary().to_string()));
        events.extend(hostile::payloads().into_iter().map(|payload| (kind.clone(), payload)));
    }
    let kinds = ["task.failed", "run.failed", "agent.offline", "cluster.new"].into_iter().cycle();
    events.extend(kinds.map(str::to_owned).zip(hostile::oddities()));
    let count = emit(&scene, &events).await;
    let _worker = scene.worker(&[]).await;
    until(&scene.client, SETTLED).await;
    assert_taken(&scene, &vendors, count).await;
}

#[tokio::test]
async fn nothing_a_digest_lists_is_refused_or_interpreted() {
    let (scene, vendors) = scene(json!({})).await;
    scene
        .client
        .batch_execute("UPDATE klaxon.subscription SET mode = 'digest', digest_at = '08:00'")
        .await
        .unwrap();
    let types = types(&scene).await;
    let _worker = scene.worker(&[]).await;
    let payloads: Vec<_> = hostile::payloads().into_iter().chain(hostile::oddities()).collect();
    // A digest lists the newest twenty.
    let digests: Vec<_> = payloads.chunks(20).collect();
    for payloads in &digests {
        let events: Vec<_> = types.iter().cycle().cloned().zip(payloads.iter().cloned()).collect();
        emit(&scene, &events).await;
        scene
            .client
            .batch_execute("UPDATE klaxon.digest_item SET due_at = now() WHERE delivery_id IS NULL")
            .await
            .unwrap();
        until(&scene.client, SETTLED).await;
    }
    assert_taken(&scene, &vendors, digests.len()).await;
}

#[tokio::test]
async fn nothing_a_template_fills_in_is_refused_or_interpreted() {
    let template =
        json!({"title": "{{ data.title }}", "body": "{{ data.note }}\n{{ data.exception }}\n{{ data }}"});
    let (scene, vendors) = scene(json!({ "template": template })).await;
    let payloads = hostile::payloads().into_iter().chain(hostile::oddities());
    let events: Vec<_> = payloads.map(|payload| ("run.failed".to_owned(), payload)).collect();
    let count = emit(&scene, &events).await;
    let _worker = scene.worker(&[]).await;
    until(&scene.client, SETTLED).await;
    assert_taken(&scene, &vendors, count).await;
}

#[tokio::test]
async fn no_time_of_an_event_is_refused() {
    let (scene, vendors) = scene(json!({})).await;
    let times =
        ["4713-01-01Z BC", "0001-01-01Z", "1969-12-31 23:59:59.999999Z", "9999-12-31Z", "294276-12-31Z"];
    for time in times {
        let emitted = format!("SELECT klaxon.notify_event('task.failed', occurred_at => '{time}')");
        scene.client.batch_execute(&emitted).await.unwrap();
    }
    let _worker = scene.worker(&[]).await;
    until(&scene.client, SETTLED).await;
    assert_taken(&scene, &vendors, times.len()).await;
}

#[tokio::test]
async fn slacks_own_library_takes_every_block() {
    let mut scene = Scene::set(Database::new()).await;
    let vendors = scene.vendors().await;
    scene.channel("slack", "slack", (slack::VENDOR.config)(), &["*"]).await;
    let payloads = hostile::payloads().into_iter().chain(hostile::oddities());
    let mut events: Vec<_> = payloads.map(|payload| ("task.failed".to_owned(), payload)).collect();
    events.extend(types(&scene).await.into_iter().map(|kind| (kind, hostile::ordinary().to_string())));
    let count = emit(&scene, &events).await;
    let _worker = scene.worker(&[]).await;
    let mut library = Script::start(SLACK_BLOCKS).unwrap();
    for call in vendors.wait_for(&slack::VENDOR, count).await {
        let body = call.request.json().unwrap();
        assert_eq!(library.ask(&body).await, json!([]), "{body:#}");
    }
    let header = json!({"type": "header", "text": {"type": "plain_text", "text": "x".repeat(151)}});
    let wrong = json!({"text": "x", "blocks": [header, {"type": "poem"}]});
    let errors = library.ask(&wrong).await;
    assert!(errors.as_array().is_some_and(|errors| errors.len() > 1), "it does object: {errors}");
}

/// What the library of Standard Webhooks for Python says of a request.
async fn verify(library: &mut Script, secret: &str, request: &Request) -> Value {
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers: serde_json::Map<_, _> =
        names.map(|name| (name.to_owned(), json!(request.header(name)))).into_iter().collect();
    let body = std::str::from_utf8(&request.body).unwrap();
    library.ask(&json!({"secret": secret, "headers": headers, "body": body})).await
}

#[tokio::test]
async fn webhooks_verify_by_the_standards_library_for_python() {
    const ENCODED: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const PLAIN: &str = "correct horse battery staple";
    let scene = Scene::set(Database::new()).await;
    let rotating = json!({"hmac_secret": ENCODED, "previous_hmac_secret": PLAIN});
    for (name, config) in [
        ("encoded", json!({"hmac_secret": ENCODED})),
        ("plain", json!({"hmac_secret": PLAIN})),
        ("rotating", rotating),
    ] {
        scene.webhook(name, Hook::default(), config, &["*"]).await;
    }
    let payloads = [hostile::ordinary().to_string()].into_iter().chain(hostile::payloads());
    let events: Vec<_> = payloads.map(|payload| ("run.failed".to_owned(), payload)).collect();
    let count = emit(&scene, &events).await;
    let _worker = scene.worker(&[]).await;
    let mut library = Script::start(WEBHOOK).unwrap();
    for (path, signed_with) in
        [("/encoded", &[ENCODED][..]), ("/plain", &[PLAIN]), ("/rotating", &[ENCODED, PLAIN])]
    {
        for request in scene.receiver.wait_at(path, count).await {
            for secret in [ENCODED, PLAIN] {
                let said = verify(&mut library, secret, &request).await;
                assert_eq!(said.is_null(), signed_with.contains(&secret), "{path} under {secret}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn an_emulator_of_telegram_has_what_was_sent() {
    let mut scene = Scene::set(Database::new()).await;
    let emulator = Emulator::start(&scene.authority).await.unwrap();
    scene.connect(emulator.connect_to());
    scene.channel("telegram", "telegram", (telegram::VENDOR.config)(), &["*"]).await;
    let payloads = [hostile::ordinary().to_string()].into_iter().chain(hostile::payloads());
    let events: Vec<_> = payloads.map(|payload| ("task.failed".to_owned(), payload)).collect();
    let count = emit(&scene, &events).await;
    let _worker = scene.worker(&[]).await;
    until(&scene.client, SETTLED).await;
    let messages = emulator.messages(telegram::TOKEN).await.unwrap();
    assert_eq!(messages.len(), count);
    for message in &messages {
        assert_eq!((&message["chat_id"], &message["parse_mode"]), (&json!(telegram::CHAT), &json!("HTML")));
    }
    let text =
        messages.iter().filter_map(|message| message["text"].as_str()).find(|text| text.contains("r-9"));
    let text = text.expect("the ordinary one arrived");
    for said in ["<b>", "billing.tasks.charge", "ValueError: negative amount", "test_pay: assert 1 == 2"] {
        assert!(text.contains(said), "{said} in {text}");
    }
    assert!(text.ends_with("<a href=\"https://ci.example.com/r/9\">Open</a>"), "{text}");
    let sent: i64 = scene
        .client
        .query_one("SELECT count(*) FROM klaxon.delivery WHERE status = 'sent' AND response_code = 200", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(sent, count as i64);
}
