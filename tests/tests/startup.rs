//! What the worker does where something it needs is not there.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;

use klaxon_tests::cluster::{Cluster, Stop};
use klaxon_tests::database::Database;
use klaxon_tests::process;
use klaxon_tests::worker::{Installation, binary};

#[tokio::test]
async fn without_postgres_it_tries_again_and_says_so() {
    let cluster = Cluster::start(&[]).unwrap();
    let database = Database::create(&cluster);
    let installation = Installation::init(&database.url()).await;
    cluster.stop(Stop::Fast).unwrap();
    let mut worker = installation.start(&["--database-url".into(), database.worker_url()]);
    let line = worker
        .wait_for_log("a third attempt", |line| {
            line.message() == "cannot reach postgres" && line.field("attempt").as_u64() >= Some(3)
        })
        .await;
    assert!(!line.field("error").as_str().unwrap_or_default().is_empty(), "{line:?}");
    cluster.restart().unwrap();
    worker.ready().await;
    worker.signal("TERM");
    assert_eq!(worker.wait().await.code(), Some(0));

    cluster.stop(Stop::Fast).unwrap();
    let mut worker = installation.start(&["--database-url".into(), database.worker_url()]);
    worker.wait_for_log("that it cannot", |line| line.message() == "cannot reach postgres").await;
    worker.signal("TERM");
    assert_eq!(worker.wait().await.code(), Some(0), "it can be ended while it waits");
}

#[tokio::test]
async fn it_refuses_keys_that_are_missing_or_open_and_says_what_to_run() {
    let database = Database::new();
    let installation = Installation::init(&database.url()).await;
    for name in ["secret.key", "audit.key"] {
        let path = installation.folder().join(name);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o644, 0o640, 0o604] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            refused(&installation, &[path.to_str().unwrap(), "chmod 600"]).await;
        }
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let aside = path.with_extension("aside");
        std::fs::rename(&path, &aside).unwrap();
        refused(&installation, &[path.to_str().unwrap(), "klaxon init"]).await;
        std::fs::rename(&aside, &path).unwrap();
    }
}

/// `klaxon run` ends at once with status 2 and says all of these.
async fn refused(installation: &Installation, says: &[&str]) {
    let output = installation.run(&["run", "--log-format", "json"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in says {
        assert!(said.contains(word), "{word} is not in {said}");
    }
}

#[tokio::test]
async fn it_refuses_keys_it_cannot_read_and_says_what_to_run() {
    let database = Database::new();
    let installation = Installation::init(&database.url()).await;
    let key = installation.folder().join("secret.key");
    // Root reads everything, so where we are root the worker must not be.
    set_permissions(installation.folder(), Permissions::from_mode(0o755)).unwrap();
    set_permissions(installation.config(), Permissions::from_mode(0o644)).unwrap();
    if !process::is_root() {
        set_permissions(&key, Permissions::from_mode(0o000)).unwrap();
    }
    // Nor is the binary where everyone may go.
    let copy = installation.folder().join("klaxon");
    std::fs::copy(binary(), &copy).unwrap();
    let output = process::unprivileged(&copy)
        .current_dir("/")
        .args(["run", "--config"])
        .arg(installation.config())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(key.to_str().unwrap()) && said.contains("chown"), "{said}");
}

#[tokio::test]
async fn init_refuses_a_database_that_has_a_deployment_and_names_adopt() {
    let database = Database::new();
    let first = Installation::init(&database.url()).await;
    let second = Installation::empty();
    let output = second.run(&["init", "--database-url", &database.url()]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("klaxon adopt"), "{said}");
    assert_eq!(std::fs::read_dir(second.folder()).unwrap().count(), 0, "nothing was written");

    let output = first.run(&["init", "--database-url", &database.url()]).await;
    assert_eq!(output.status.code(), Some(2), "nor over its own configuration");
}

#[tokio::test]
async fn it_refuses_a_database_of_another_deployment() {
    let (database, other) = (Database::new(), Database::new());
    let installation = Installation::init(&database.url()).await;
    let _others = Installation::init(&other.url()).await;
    let output =
        installation.run(&["run", "--log-format", "json", "--database-url", &other.worker_url()]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_ne!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("deployment"), "{said}");
}
