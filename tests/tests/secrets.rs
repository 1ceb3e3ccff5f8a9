//! Secrets are planted wherever one can be given, receivers do their worst with them, and then they are
//! looked for wherever something is written or said.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Response;
use hyper::body::Bytes;
use hyper::http::request::Parts;
use klaxon_tests::cluster::{Cluster, free_port};
use klaxon_tests::counterpart::{SEALED_BOX, Script};
use klaxon_tests::database::{Database, WORKER_ROLE};
use klaxon_tests::https::{Server, response};
use klaxon_tests::process;
use klaxon_tests::scene::Scene;
use klaxon_tests::smtp::{HOST as MAIL, PASSWORD, USER};
use klaxon_tests::until::until;
use klaxon_tests::worker;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What is planted: none is a word that anybody would write by chance.
const HMAC: &str = "kx01q7Zt/hmac+secret";
const FORMER_HMAC: &str = "kx02W3er/former+secret";
const HEADER: &str = "kx03 header \"quoted\" <value> & more";
const AUTHORIZATION: &str = "Bearer kx04Rf81LmPq";
const SLACK: &str = "kx05Tg7vXs2kQw9z";
const TELEGRAM: &str = "kx06_AbCdEfGhIjKl-mNoP";
const PAGERDUTY: &str = "kx07f00dfeed0123456789abcdef0123";
const DISCORD: &str = "kx08Yh5bNc4mUj1x";
const TEAMS: &str = "kx09Ik3vBd6nOl8y";
const NTFY: &str = "tk_kx10Pz4wEx7cRt2v";
const OWN_SMTP: &str = "kx11 worker's mail password";
const DATABASE: &str = "kx12DatabasePassword";
const UNSAVED: &str = "tk_kx13NeverSavedToken";
const WRONG: &str = "kx14/GivenInTheWrongPlace";

const HOSTS: [&str; 6] = [
    "receiver.test",
    "hooks.slack.com",
    "api.telegram.org",
    "events.pagerduty.com",
    "discord.com",
    "prod-01.westeurope.logic.azure.com",
];

/// Every planted secret that a receiver knows.
const TOLD: [&str; 11] =
    [HMAC, FORMER_HMAC, HEADER, AUTHORIZATION, SLACK, TELEGRAM, PAGERDUTY, DISCORD, TEAMS, NTFY, UNSAVED];

fn percent(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn in_json(text: &str) -> String {
    Value::from(text).to_string().trim_matches('"').to_owned()
}

/// A secret as it may be found: as it is, and as it is commonly written.
fn spellings(secret: &str) -> Vec<String> {
    let mut all = vec![
        secret.to_owned(),
        percent(secret),
        percent(secret).replace('+', "%20"),
        in_json(secret),
        hex::encode(secret),
        hex::encode_upper(secret),
    ];
    // In base64 a text looks different by where it begins: what of it is the same whatever surrounds it.
    for before in 0..3 {
        let encoded = STANDARD.encode(format!("{}{secret}", "\0".repeat(before)));
        let skip = [0, 2, 3][before];
        let end = encoded.trim_end_matches('=').len() - 2;
        all.push(encoded[skip..end].to_owned());
    }
    all
}

/// Answers with everything it was sent and everything it knows, in every spelling, as an error.
fn echo(seen: &Mutex<String>, head: &Parts, body: &Bytes) -> Response<http_body_util::Full<Bytes>> {
    let headers: String = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let body = String::from_utf8_lossy(body);
    let sent = format!("{} {}\n{headers}{body}\n", head.method, head.uri);
    seen.lock().unwrap().push_str(&sent);
    // A receiver knows what it shares with the sender, and what it was sent.
    let own = TOLD.iter().filter(|secret| {
        sent.contains(**secret) || (head.uri.path() == "/hook" && [HMAC, FORMER_HMAC].contains(*secret))
    });
    let known: String = own
        .flat_map(|secret| {
            [
                (*secret).to_owned(),
                percent(secret),
                in_json(secret),
                hex::encode(secret),
                STANDARD.encode(secret),
                STANDARD.encode(format!("a{secret}")),
                STANDARD.encode(format!("the whole request, {secret}, as it came")),
                secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"),
            ]
        })
        .map(|spelling| format!("why {spelling} \u{1b}[31m"))
        .collect();
    let mut answer = response(500, &format!("{known}\n{sent}"));
    if let Ok(value) = format!("{:.200}", in_json(&known)).parse() {
        answer.headers_mut().insert("retry-after", value);
    }
    answer
}

/// All channels; each secret stands in the parameters of a statement, never in its text.
async fn plant(scene: &Scene<'_>) {
    let slack = format!("https://hooks.slack.com/services/T1/B1/{SLACK}");
    let teams = format!(
        "https://prod-01.westeurope.logic.azure.com/workflows/1/triggers/manual/paths/invoke?sig={TEAMS}"
    );
    for (name, kind, mut config) in [
        (
            "webhook",
            "webhook",
            json!({"url": "https://receiver.test/hook", "hmac_secret": HMAC, "previous_hmac_secret": FORMER_HMAC,
                   "headers": {"X-Token": HEADER, "Authorization": AUTHORIZATION}}),
        ),
        ("slack", "slack", json!({"webhook_url": slack})),
        ("telegram", "telegram", json!({"bot_token": format!("123456:{TELEGRAM}"), "chat_id": -100})),
        ("pagerduty", "pagerduty", json!({"integration_key": PAGERDUTY})),
        (
            "discord",
            "discord",
            json!({"webhook_url": format!("https://discord.com/api/webhooks/1/{DISCORD}")}),
        ),
        ("teams", "teams", json!({"webhook_url": teams})),
        ("ntfy", "ntfy", json!({"url": "https://receiver.test", "topic": "ops", "token": NTFY})),
        (
            "mail",
            "email",
            json!({"smtp_host": MAIL, "smtp_user": USER, "smtp_pass": PASSWORD, "to_addrs": ["ann@example.com"]}),
        ),
        ("own mail", "email", json!({"to_addrs": ["ann@example.com"]})),
        // Nobody listens there, and another's certificate is shown.
        (
            "closed",
            "slack",
            json!({"webhook_url": format!("https://hooks.slack-gov.com/services/T1/B1/{SLACK}")}),
        ),
        (
            "wrong name",
            "discord",
            json!({"webhook_url": format!("https://ptb.discord.com/api/webhooks/1/{DISCORD}")}),
        ),
    ] {
        config["retry_schedule"] = json!([1]);
        scene.channel(name, kind, config, &["task.failed"]).await;
    }
}

/// What is wrong is refused without being repeated.
async fn refusals(scene: &Scene<'_>) -> String {
    let mut said = String::new();
    for (kind, config) in [
        ("slack", json!({"webhook_url": format!("https://hooks.slack.com.evil.test/{WRONG}")})),
        ("slack", json!({"webhook_url": {"deep": WRONG}})),
        ("telegram", json!({"bot_token": WRONG, "chat_id": 1})),
        ("pagerduty", json!({"integration_key": WRONG})),
        ("discord", json!({"webhook_url": format!("http://discord.com/{WRONG}")})),
        ("webhook", json!({"url": "https://receiver.test/", "headers": {"X-A": format!("{WRONG}\n")}})),
        ("webhook", json!({"url": "https://receiver.test/", "hmac_secret": format!("whsec_{WRONG}!")})),
        ("webhook", json!({"url": format!("https://user:{WRONG}@receiver.test/")})),
        (
            "email",
            json!({"smtp_host": MAIL, "smtp_tls": false, "smtp_port": 25, "smtp_user": USER, "smtp_pass": WRONG, "to_addrs": ["a@b.c"]}),
        ),
        ("ntfy", json!({"url": "https://receiver.test", "topic": "x", "token": format!("{WRONG}\u{7}")})),
    ] {
        let written = scene
            .client
            .execute(
                "INSERT INTO klaxon.channel (name, kind, config) VALUES ('wrong', $1, $2)",
                &[&kind, &config],
            )
            .await;
        let tested = scene.client.query("CALL klaxon.test_config($1, $2)", &[&kind, &config]).await;
        for refused in [written.err(), tested.err()] {
            let refused = refused.unwrap_or_else(|| panic!("{kind} takes {config}"));
            said.push_str(&format!("{:?}\n", refused.as_db_error().expect("by the database")));
        }
    }
    said
}

async fn scraped(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("klaxon_attempts_total"), "{answer}");
    answer
}

#[tokio::test]
async fn libsodium_opens_what_the_database_and_the_command_line_seal() {
    let scene = Scene::set(Database::new()).await;
    let config =
        json!({"url": "https://receiver.test/hook", "hmac_secret": HMAC, "headers": {"X-Token": HEADER}});
    let id = scene.channel("hook", "webhook", config, &["task.failed"]).await;
    let mut seal = worker::command();
    seal.args(["seal", "--channel", "7", "--field", "token", "--config"]).arg(scene.installation.config());
    let mut seal = seal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    seal.stdin.take().unwrap().write_all("größe\n".as_bytes()).await.unwrap();
    let by_hand = String::from_utf8(seal.wait_with_output().await.unwrap().stdout).unwrap();
    let stored = "SELECT field, sealed FROM klaxon.channel_secret ORDER BY field";
    let stored = scene.client.query(stored, &[]).await.unwrap();

    let key = std::fs::read_to_string(scene.installation.folder().join("secret.key")).unwrap();
    let mut libsodium = Script::start(SEALED_BOX).unwrap();
    let mut open = async |sealed: &str| {
        let opened = libsodium.ask(&json!({"key": key.trim(), "sealed": sealed.trim()})).await;
        serde_json::from_str::<Value>(opened.as_str().unwrap()).unwrap()
    };
    let to = "https://receiver.test:443";
    for (row, (field, value)) in stored.iter().zip([("headers.X-Token", HEADER), ("hmac_secret", HMAC)]) {
        assert_eq!(row.get::<_, String>(0), field);
        let sealed = json!({"v": 1, "channel": id, "destination": to, "field": field, "value": value});
        assert_eq!(open(row.get(1)).await, sealed);
    }
    assert_eq!(stored.len(), 2);
    let sealed = json!({"v": 1, "channel": 7, "destination": null, "field": "token", "value": "größe"});
    assert_eq!(open(&by_hand).await, sealed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_secret_is_written_and_said_nowhere() {
    let cluster = Cluster::start(&[
        ("shared_preload_libraries", "pg_stat_statements,pg_klaxon"),
        ("log_min_messages", "debug1"),
        ("fsync", "off"),
    ])
    .unwrap();
    let database = Database::create(&cluster);
    database.psql("CREATE EXTENSION pg_stat_statements");
    let mut scene = Scene::set(database).await;
    let seen = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&seen);
    let server = Server::start(&scene.authority, &HOSTS, move |head, body| {
        let answer = echo(&sink, &head, &body);
        async move { answer }
    })
    .await
    .unwrap();
    let mut mail = scene.mail().await;
    for host in HOSTS.iter().chain(&["ptb.discord.com"]) {
        // Before the scene's own: the first that fits counts.
        scene.connect_first(server.connect_to(host));
    }
    scene.connect(format!("hooks.slack-gov.com:443:127.0.0.1:{}", free_port().unwrap()));
    scene.connect(format!("own.{MAIL}:587:127.0.0.1:{}", mail.port()));
    let url = scene
        .database
        .worker_url()
        .replace(&format!("{WORKER_ROLE}@"), &format!("{WORKER_ROLE}:{DATABASE}@"));
    scene.database_url(url);
    for (name, value) in [
        ("RUST_LOG", "trace"),
        ("KLAXON_SMTP_HOST", MAIL),
        ("KLAXON_SMTP_USER", "worker@mail.test"),
        ("KLAXON_SMTP_PASS", OWN_SMTP),
    ] {
        scene.environment(name, value);
    }
    plant(&scene).await;
    let mut said = refusals(&scene).await;
    mail.refuse_next(&format!("451 4.7.1 {PASSWORD} as {}", STANDARD.encode(PASSWORD))).await;
    mail.refuse_next(&format!("550 5.7.1 {}", STANDARD.encode(format!("\0{USER}\0{PASSWORD}")))).await;

    let port = free_port().unwrap();
    let mut worker = scene.worker(&["--metrics-addr", &format!("127.0.0.1:{port}")]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(
        core.split_whitespace().collect::<Vec<_>>()[4..6],
        ["0", "0"],
        "a crash leaves no secret behind"
    );
    scene.emit("task.failed", json!({"task_name": "report"})).await;
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    for (kind, config) in
        [("ntfy", json!({"url": "https://receiver.test", "topic": "ops", "token": UNSAVED}))]
    {
        let row = scene.client.query_one("CALL klaxon.test_config($1, $2)", &[&kind, &config]).await.unwrap();
        said.push_str(&format!(
            "{:?} {:?}",
            row.get::<_, Option<String>>(2),
            row.get::<_, Option<String>>(3)
        ));
    }
    let file = scene.installation.folder().join("channel.json");
    std::fs::write(
        &file,
        json!({"url": "https://receiver.test", "topic": "ops", "token": UNSAVED}).to_string(),
    )
    .unwrap();
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["doctor"],
        &["test", "--channel", "telegram"],
        &["test", "--channel", "webhook", "--json"],
        &["preview", "--channel", "webhook", "--event", "task.failed"],
        &["preview", "--channel", "slack", "--event", "task.failed", "--json"],
        &["preview", "--channel", "telegram", "--event", "task.failed"],
        &["preview", "--channel", "teams", "--event", "digest"],
        &["preview", "--channel", "ntfy", "--event", "task.failed"],
        &["preview", "--channel", "mail", "--event", "task.failed"],
        &["audit", "verify"],
        &["audit", "checkpoint"],
        &["audit", "head"],
    ] {
        // A worker's role edits no channel, so it tests none.
        let output = if command[0] == "test" {
            scene.installation.run(command).await
        } else {
            scene.run(command).await
        };
        said.push_str(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    }
    let metrics = scraped(port).await;
    let output = scene.installation.run(&["keys", "rotate"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    said.push_str(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));

    let dump = process::run(&mut scene.database.cluster.client("pg_dump", &scene.database.name)).unwrap();
    let statements = scene
        .client
        .query_one("SELECT pg_catalog.string_agg(query, E'\\n') FROM pg_stat_statements", &[])
        .await
        .unwrap()
        .get::<_, String>(0);
    worker.signal("TERM");
    worker.wait().await;
    let log: String = worker.log().iter().map(|line| format!("{}\n", line.0)).collect();
    let key = |name: &str| std::fs::read_to_string(scene.installation.folder().join(name)).unwrap();
    let keys = key("secret.key") + &key("audit.key");

    let sent = seen.lock().unwrap().clone();
    for secret in TOLD.iter().filter(|secret| ![HMAC, FORMER_HMAC].contains(secret)) {
        assert!(sent.contains(secret), "{secret} was used: {sent}");
    }
    assert!(dump.contains("COPY klaxon.delivery") && dump.contains("HTTP 500"), "the dump holds the log");
    assert!(log.contains("\"DEBUG\""), "the log is a full one");
    let places = [
        ("the dump", &dump),
        ("the server's log", &cluster.log()),
        ("the worker's log", &log),
        ("what was said", &said),
        ("the metrics", &metrics),
        ("pg_stat_statements", &statements),
    ];
    let planted = TOLD.iter().chain(&[OWN_SMTP, DATABASE, WRONG, PASSWORD]).copied().chain(keys.lines());
    let mut found = Vec::new();
    for secret in planted {
        for (place, text) in &places {
            // A key's line is base64 already.
            for spelling in spellings(secret).iter().filter(|spelling| text.contains(spelling.as_str())) {
                let at = text.find(spelling.as_str()).unwrap_or_default();
                let from = text.floor_char_boundary(at.saturating_sub(120));
                let to = text.floor_char_boundary((at + 120).min(text.len()));
                found.push(format!("{secret} in {place}: {}", &text[from..to]));
            }
        }
    }
    assert!(found.is_empty(), "{} secrets were found:\n{}", found.len(), found.join("\n\n"));
}
