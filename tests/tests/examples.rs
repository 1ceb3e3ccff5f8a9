//! `examples/` does what it says: emits with the row and not without it, and believes what is signed and nothing else.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use klaxon_tests::cluster::{SUPERUSER, free_port};
use klaxon_tests::counterpart::command;
use klaxon_tests::database::Database;
use klaxon_tests::limit::{within, within_time};
use klaxon_tests::receiver::{Hook, Request};
use klaxon_tests::scene::Scene;
use klaxon_tests::until::until;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    path.canonicalize().expect("there is such an example").display().to_string()
}

/// Far more than a first build takes.
const BUILDING: Duration = Duration::from_secs(900);

/// An example, ready to run: built first, where its language is compiled. The languages' modules are those of the
/// counterparts, wherever the example lies; what Rust's depend on, `examples/rust/Cargo.lock` says.
async fn program(name: &str) -> Command {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/examples");
    match name.rsplit_once('.').expect("examples have extensions").1 {
        "py" => with(command("python"), name),
        "js" => {
            let mut command = with(command("node"), name);
            command.env("NODE_PATH", klaxon_tests::counterpart::folder().join("node_modules"));
            command
        }
        "go" => {
            let program = built.join("receive_go");
            let mut go = command("go");
            // Nothing but its own library, and nothing of whoever tests.
            go.env("GOCACHE", built.join("go")).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
            build(go.arg("build").arg("-o").arg(&program).arg(example(name))).await;
            piped(Command::new(program))
        }
        _ => {
            let mut cargo = Command::new(env!("CARGO"));
            let manifest = example("rust/Cargo.toml");
            build(
                cargo
                    .args(["build", "--quiet", "--locked", "--manifest-path", &manifest, "--target-dir"])
                    .arg(&built),
            )
            .await;
            piped(Command::new(built.join("debug").join(Path::new(name).file_stem().expect("a file"))))
        }
    }
}

fn with(mut command: Command, name: &str) -> Command {
    command.arg(example(name));
    command
}

fn piped(mut command: Command) -> Command {
    command.stdout(Stdio::piped()).kill_on_drop(true);
    command
}

async fn build(command: &mut Command) {
    let output =
        within_time(BUILDING, "a build", command.stderr(Stdio::piped()).output()).await.expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const EMITTERS: [&str; 5] = [
    "python/emit_psycopg.py",
    "python/emit_sqlalchemy.py",
    "python/emit_django.py",
    "node/emit.js",
    "rust/src/bin/emit.rs",
];
const RECEIVERS: [&str; 4] =
    ["python/receive.py", "node/receive.js", "go/receive.go", "rust/src/bin/receive.rs"];

#[tokio::test]
async fn events_go_with_the_row_that_they_are_about() {
    let scene = Scene::set(Database::new()).await;
    scene.webhook("runs", Hook::default(), json!({}), &["run.failed"]).await;
    scene.client.batch_execute("CREATE TABLE run (id text PRIMARY KEY, status text NOT NULL)").await.unwrap();
    let _worker = scene.worker(&[]).await;
    let url = scene.database.url();
    let emit = async |emitter: &str, run: &str| {
        let url = if emitter.contains("sqlalchemy") {
            url.replacen("postgresql://", "postgresql+psycopg://", 1)
        } else {
            url.clone()
        };
        let output = program(emitter)
            .await
            .arg(run)
            .env("DATABASE_URL", url)
            .env("DATABASE_NAME", &scene.database.name)
            .env("DATABASE_USER", SUPERUSER)
            .env("DATABASE_HOST", scene.database.cluster.socket_folder())
            .env("DATABASE_PORT", scene.database.cluster.port().to_string())
            .stderr(Stdio::piped())
            .output();
        let output = within(emitter, output).await.expect("it starts");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for emitter in EMITTERS {
        let (good, said) = emit(emitter, emitter).await;
        assert!(good, "{emitter}: {said}");
        let (good, said) = emit(emitter, &format!("{emitter} broken")).await;
        assert!(!good && said.contains("nobody is told anything"), "{emitter}: {said}");
    }
    let trigger = std::fs::read_to_string(example("sql/trigger.sql")).unwrap();
    scene.client.batch_execute(&trigger).await.unwrap();
    scene
        .client
        .batch_execute("INSERT INTO run VALUES ('by trigger', 'failed'), ('passed', 'passed')")
        .await
        .unwrap();
    until(&scene.client, "(SELECT count(*) FROM klaxon.delivery WHERE status = 'sent') >= 6").await;
    until(&scene.client, "NOT EXISTS (SELECT FROM klaxon.outbox)").await;
    let mut told: Vec<String> = scene
        .receiver
        .requests()
        .iter()
        .map(|request| request.json()["data"]["run_id"].as_str().unwrap().to_owned())
        .collect();
    told.sort();
    let mut wanted: Vec<String> = EMITTERS.iter().map(|name| (*name).to_owned()).collect();
    wanted.push("by trigger".into());
    wanted.sort();
    assert_eq!(told, wanted, "each once, and none of a row that was not committed");
}

/// The status that a receiver answers to a request, with another body or header where one is given.
async fn post(port: u16, request: &Request, headers: &[(&str, &str)], body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut head = format!(
        "POST / HTTP/1.1\r\nhost: example\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let value =
            headers.iter().find(|(given, _)| *given == name).map_or(request.header(name), |(_, value)| value);
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(&[head.as_bytes(), b"\r\n", body].concat()).await.unwrap();
    let mut answer = Vec::new();
    within("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
}

#[tokio::test]
async fn receivers_believe_what_is_signed() {
    // Before anything is signed: it is believed for five minutes, and a first build takes some.
    let mut programs = Vec::new();
    for receiver in RECEIVERS {
        programs.push((receiver, program(receiver).await));
    }
    let scene = Scene::set(Database::new()).await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    scene.webhook("signed", Hook::default().secret(secret), json!({}), &["run.failed"]).await;
    let _worker = scene.worker(&[]).await;
    scene.emit("run.failed", json!({"run_id": "ü"})).await;
    until(&scene.client, "EXISTS (SELECT FROM klaxon.delivery WHERE status = 'sent')").await;
    let request = scene.receiver.requests().remove(0);
    for (receiver, mut program) in programs {
        let port = free_port().unwrap();
        let mut child =
            program.arg(port.to_string()).env("WEBHOOK_SECRET", secret).spawn().expect("it starts");
        let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
        within("the receiver to listen", async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let mut other = request.body.to_vec();
        other[0] = b' ';
        for (what, headers, body) in [
            ("another body", vec![], other),
            ("another id", vec![("webhook-id", "1")], request.body.to_vec()),
            ("another time", vec![("webhook-timestamp", "1700000000")], request.body.to_vec()),
            ("no time", vec![("webhook-timestamp", "soon")], request.body.to_vec()),
            ("no signature", vec![("webhook-signature", "")], request.body.to_vec()),
            ("a short one", vec![("webhook-signature", "v1,AAAA")], request.body.to_vec()),
        ] {
            assert_eq!(post(port, &request, &headers, &body).await, 401, "{receiver}: {what}");
        }
        let two = format!("v1,AAAA {}", request.header("webhook-signature"));
        assert_eq!(post(port, &request, &[], &request.body).await, 204, "{receiver}");
        assert_eq!(
            post(port, &request, &[("webhook-signature", &two)], &request.body).await,
            204,
            "{receiver}"
        );
        let line = within("the receiver to say", printed.next_line()).await.unwrap();
        assert_eq!(line.as_deref(), Some("received run.failed"));
        child.kill().await.unwrap();
        assert_eq!(printed.next_line().await.unwrap(), None, "{receiver}: the same message counts once");
    }
}
