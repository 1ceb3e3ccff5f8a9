//! What is installed, and how: Debian packages, the service, and that a tree could be released.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use klaxon_tests::counterpart::folder;
use klaxon_tests::database::Database;
use klaxon_tests::limit::within;
use klaxon_tests::postgres::Postgres;
use klaxon_tests::process;
use klaxon_tests::scene::Scene;
use klaxon_tests::worker::binary;
use tokio::net::UnixDatagram;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Runs a command to its end, whatever that is.
fn output(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("it starts");
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

fn succeed(command: &mut Command) -> String {
    process::run(command).unwrap_or_else(|error| panic!("{error:#}"))
}

/// A machine without anything, for dpkg to install on.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["info", "updates", "triggers"] {
            std::fs::create_dir_all(folder.path().join("var/lib/dpkg").join(part)).unwrap();
        }
        std::fs::write(folder.path().join("var/lib/dpkg/status"), "").unwrap();
        Self(folder)
    }

    fn dpkg(&self, arguments: &[&str]) -> String {
        // What the packages depend on is not there, nor a shell to run their scripts in.
        let force = "--force-depends,not-root,script-chrootless,bad-path";
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", self.0.path().display())).arg(force).arg("--log=/dev/null");
        succeed(dpkg.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(arguments))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }
}

/// The two packages, of what is installed and under test.
fn packages(major: u32, into: &Path) -> Vec<PathBuf> {
    let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "/usr/bin/pg_config".into());
    let folder = succeed(Command::new(&pg_config).arg("--pkglibdir"));
    let library = Path::new(folder.trim()).join("pg_klaxon.so");
    let mut build = Command::new(root().join("packaging/debian.sh"));
    let built =
        succeed(build.arg(library).arg(binary().canonicalize().unwrap()).arg(major.to_string()).arg(into));
    built.lines().map(PathBuf::from).collect()
}

#[test]
fn packages_install_and_go_again() {
    let folder = tempfile::tempdir().unwrap();
    let major = Postgres::under_test().and_then(|postgres| postgres.major()).unwrap();
    let packages = packages(major, folder.path());
    assert_eq!(packages.len(), 2, "{packages:?}");
    for package in &packages {
        let told = succeed(Command::new("dpkg-deb").arg("--info").arg(package));
        assert!(told.contains("Depends: ") && told.contains("libc6 (>= "), "{told}");
        let listed = succeed(Command::new("dpkg-deb").arg("--contents").arg(package));
        assert!(listed.lines().all(|line| line.contains("root/root")), "{listed}");
        assert!(listed.contains("/copyright") && listed.contains("/changelog.gz"), "{listed}");
    }
    let machine = Machine::new();
    let files: Vec<_> = packages.iter().map(|path| path.to_str().unwrap()).collect();
    machine.dpkg(&[&["--install"], &files[..]].concat());
    for file in [
        "usr/bin/klaxon",
        "lib/systemd/system/klaxon.service",
        "usr/share/man/man1/klaxon.1.gz",
        "usr/share/man/man1/klaxon-audit-verify.1.gz",
        "usr/share/bash-completion/completions/klaxon",
        "usr/share/zsh/vendor-completions/_klaxon",
        "usr/share/fish/vendor_completions.d/klaxon.fish",
        &format!("usr/share/postgresql/{major}/extension/pg_klaxon.control"),
        &format!("usr/share/postgresql/{major}/extension/pg_klaxon--0.1.0.sql"),
        &format!("usr/lib/postgresql/{major}/lib/pg_klaxon.so"),
    ] {
        assert!(machine.path(file).is_file(), "{file}");
    }
    assert_eq!(std::fs::metadata(machine.path("etc/klaxon")).unwrap().mode() & 0o777, 0o700);
    let told = succeed(Command::new(machine.path("usr/bin/klaxon")).arg("--version"));
    assert_eq!(told, "klaxon 0.1.0\n");
    assert_eq!(machine.dpkg(&["--verify"]), "", "every file is as it was packed");

    let unit = machine.path("lib/systemd/system/klaxon.service");
    let (good, told) = output(
        Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(format!("--root={}", machine.0.path().display()))
            .arg(&unit),
    );
    assert!(good && !told.contains("klaxon.service:"), "{told}");
    let (good, told) = output(
        Command::new("systemd-analyze").args(["security", "--offline=yes", "--threshold=15"]).arg(&unit),
    );
    assert!(good && told.contains("Overall exposure level"), "{told}");

    std::fs::write(machine.path("etc/klaxon/secret.key"), "kept").unwrap();
    machine.dpkg(&["--purge", "klaxon-worker", &format!("postgresql-{major}-pg-klaxon")]);
    assert!(!machine.path("usr").exists() && !machine.path("lib").exists(), "nothing is left");
    assert_eq!(
        std::fs::read_to_string(machine.path("etc/klaxon/secret.key")).unwrap(),
        "kept",
        "but the keys"
    );
}

#[tokio::test]
async fn systemd_is_told_how_the_worker_fares() {
    let mut scene = Scene::set(Database::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    scene.environment("NOTIFY_SOCKET", path.to_str().unwrap());
    scene.environment("WATCHDOG_USEC", "1000000");
    let mut worker = scene.worker(&[]).await;
    let said = async || {
        let mut buffer = [0; 256];
        let length = within("systemd to be told", socket.recv(&mut buffer)).await.unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
    };
    assert_eq!(said().await, "READY=1");
    for _ in 0..3 {
        assert_eq!(said().await, "WATCHDOG=1");
    }
    worker.signal("TERM");
    while said().await != "STOPPING=1" {}
    assert!(worker.wait().await.success());
}

#[test]
fn a_release_is_of_one_version_and_edits_nothing_released() {
    let check = |folder: &Path| output(&mut Command::new(folder.join("packaging/release-check.sh")));
    let (good, told) = check(&root());
    assert!(good, "{told}");

    let copy = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        succeed(Command::new(program).current_dir(copy.path()).args(arguments))
    };
    let files = [
        "Cargo.toml",
        "Cargo.lock",
        "Makefile",
        "META.json",
        "CHANGELOG.md",
        "sql",
        "extension",
        "packaging",
    ];
    for file in files {
        succeed(Command::new("cp").arg("-r").arg(root().join(file)).arg(copy.path()));
    }
    run("git", &["init", "--quiet"]);
    run("git", &["add", "."]);
    run("git", &["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "-m", "x"]);
    run("git", &["tag", "v0.1.0"]);
    assert!(check(copy.path()).0);

    let edit = |file: &str, from: &str, to: &str| {
        let path = copy.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has {from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let told = check(copy.path());
        std::fs::write(path, text).unwrap();
        told
    };
    for (file, from, to, says) in [
        ("META.json", "\"version\": \"0.1.0\"", "\"version\": \"0.1.1\"", "META.json says \"0.1.1\""),
        ("Makefile", ":= 0.1.0", ":= 0.2.0", "Makefile says \"0.2.0\""),
        ("Cargo.toml", "version = \"0.1.0\"", "version = \"0.3.0\"", "Cargo.toml says \"0.3.0\""),
        ("CHANGELOG.md", "## 0.1.0", "## 0.0.1", "CHANGELOG.md has nothing of 0.1.0"),
        ("sql/pg_klaxon--0.1.0.sql", "klaxon", "other", "was released with v0.1.0 and has been edited since"),
        ("extension/pg_klaxon.control", "'0.1.0'", "'0.2.0'", "no script leads on from 0.1.0"),
    ] {
        let (good, told) = edit(file, from, to);
        assert!(!good && told.contains(says), "{file}: {told}");
    }
    let meta: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("META.json")).unwrap()).unwrap();
    let provided = &meta["provides"]["pg_klaxon"];
    for key in ["file", "docfile"] {
        assert!(root().join(provided[key].as_str().unwrap()).is_file(), "{provided}");
    }
}

#[test]
fn containers_are_described_as_their_tools_have_it() {
    let told = succeed(
        Command::new(folder().join("bin/hadolint"))
            .current_dir(root())
            .args(["packaging/Containerfile.worker", "packaging/Containerfile.postgres"]),
    );
    assert_eq!(told, "", "hadolint has nothing to object");

    // It asks podman for its version, and for nothing else before something is to be run.
    let programs = tempfile::tempdir().unwrap();
    let podman = programs.path().join("podman");
    std::fs::write(&podman, "#!/bin/sh\n[ \"$1\" = --version ] && echo podman version 4.3.1\n").unwrap();
    std::fs::set_permissions(&podman, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let told = succeed(
        Command::new(folder().join("bin/python"))
            .args(["-m", "podman_compose", "-f", "compose.yaml", "--profile", "init", "config"])
            .current_dir(root())
            .env("PATH", format!("{}:/usr/bin:/bin", programs.path().display()))
            .env("POSTGRES_PASSWORD", "secret"),
    );
    for part in [
        "packaging/Containerfile.worker",
        "packaging/Containerfile.postgres",
        "postgresql://postgres:secret@postgres/app",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    // What they copy is there.
    for file in ["Containerfile.worker", "Containerfile.postgres"] {
        let text = std::fs::read_to_string(root().join("packaging").join(file)).unwrap();
        for copied in text
            .lines()
            .filter_map(|line| line.strip_prefix("COPY "))
            .filter(|rest| !rest.starts_with("--from"))
        {
            let words: Vec<_> = copied.split_whitespace().collect();
            for source in words[..words.len() - 1].iter().filter(|source| !source.contains('*')) {
                assert!(root().join(source).exists(), "{file}: {source}");
            }
        }
    }
}
