//! A private Postgres cluster: its own folder, socket and port, trust for everyone, gone afterwards.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};

use anyhow::{Context as _, bail};

use crate::postgres::Postgres;
use crate::process::{self, Keeper};

/// The superuser of every cluster here.
pub const SUPERUSER: &str = "postgres";

/// How a cluster is stopped.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// Ends its sessions and writes a checkpoint.
    Fast,
    /// As a crash does: the next start recovers from the log.
    Immediate,
}

/// What a cluster is started with beside its settings.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Variables of the server's environment.
    pub environment: Vec<(String, String)>,
    /// How many megabytes it has for all its data; without, as many as there are.
    pub room: Option<u32>,
    /// Whose programs run it; without, those under test.
    pub postgres: Option<Postgres>,
}

/// A cluster, running unless [`Cluster::stop`] was called.
pub struct Cluster {
    keeper: Keeper,
    postgres: Postgres,
    port: u16,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    postmaster: Mutex<Option<Child>>,
    log: Arc<Mutex<Vec<String>>>,
}

/// One cluster for all tests of a binary that do not stop it. It does not survive a power cut.
static SHARED: LazyLock<Cluster> = LazyLock::new(|| {
    Cluster::start(&[("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off")])
        .expect("the shared cluster starts")
});

impl Cluster {
    /// The cluster that the tests of this binary share.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn shared() -> &'static Self {
        &SHARED
    }

    /// Initialises and starts a cluster with these settings on top of the defaults.
    ///
    /// # Errors
    /// What initdb or postgres said.
    pub fn start(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_in(Surroundings::default(), settings)
    }

    /// The same in these surroundings.
    ///
    /// # Errors
    /// As there; or we may not limit the room.
    pub fn start_in(surroundings: Surroundings, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let postgres = surroundings.postgres.map_or_else(Postgres::under_test, Ok)?;
        let keeper = Keeper::new("cluster")?;
        if let Some(megabytes) = surroundings.room {
            keeper.confine(megabytes)?;
        }
        let cluster = Self {
            postgres,
            port: free_port()?,
            settings: settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            environment: surroundings.environment,
            postmaster: Mutex::new(None),
            log: Arc::default(),
            keeper,
        };
        cluster.initialise()?;
        cluster.restart()?;
        Ok(cluster)
    }

    /// With checksums, whether that is the version's default (since 18) or not: where they differ, pg_upgrade
    /// refuses.
    fn initialise(&self) -> anyhow::Result<()> {
        process::run(
            process::unprivileged(self.postgres.program("initdb"))
                .current_dir("/")
                .args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"])
                .args(["--data-checksums".to_owned(), format!("--username={SUPERUSER}")])
                .arg("-D")
                .arg(self.data()),
        )
        .map(drop)
    }

    /// Stops it and starts another of a later version with everything that was in it, by pg_upgrade.
    ///
    /// # Errors
    /// What initdb, pg_upgrade or postgres said.
    pub fn upgraded(&self, postgres: Postgres) -> anyhow::Result<Self> {
        self.stop(Stop::Fast)?;
        let upgraded = Self {
            postgres,
            port: free_port()?,
            settings: self.settings.clone(),
            environment: self.environment.clone(),
            postmaster: Mutex::new(None),
            log: Arc::default(),
            keeper: Keeper::new("upgraded")?,
        };
        upgraded.initialise()?;
        process::run(
            process::unprivileged(upgraded.postgres.program("pg_upgrade"))
                // It writes its logs where it is.
                .current_dir(upgraded.keeper.folder())
                .arg(format!("--username={SUPERUSER}"))
                .arg("--old-bindir")
                .arg(self.postgres.bin())
                .arg("--new-bindir")
                .arg(upgraded.postgres.bin())
                .arg("--old-datadir")
                .arg(self.data())
                .arg("--new-datadir")
                .arg(upgraded.data())
                .arg("--socketdir")
                .arg(upgraded.keeper.folder())
                .args(["--old-port", &self.port.to_string(), "--new-port", &upgraded.port.to_string()]),
        )
        .with_context(|| upgraded.upgrade_log())?;
        upgraded.restart()?;
        Ok(upgraded)
    }

    /// What pg_upgrade's programs complained of, which is gone with the folder.
    fn upgrade_log(&self) -> String {
        let script = r#"grep -h -A 3 error: "$1"/pg_upgrade_output.d/*/log/*.log"#;
        process::run(Command::new("sh").args(["-c", script, "sh"]).arg(self.data())).unwrap_or_default()
    }

    /// Starts another that is what this one was when it was backed up, which is now.
    ///
    /// # Errors
    /// What pg_basebackup or postgres said.
    pub fn restored(&self) -> anyhow::Result<Self> {
        self.copied(([127, 0, 0, 1], self.port).into(), "restored", &[])
    }

    /// Starts a standby of it, that follows by streaming until it is promoted.
    ///
    /// # Errors
    /// What pg_basebackup or postgres said.
    pub fn standby(&self) -> anyhow::Result<Self> {
        self.standby_by(([127, 0, 0, 1], self.port).into())
    }

    /// The same, which reaches this one at another address.
    ///
    /// # Errors
    /// As there.
    pub fn standby_by(&self, address: SocketAddr) -> anyhow::Result<Self> {
        self.copied(address, "standby", &["--write-recovery-conf"])
    }

    fn copied(&self, address: SocketAddr, name: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let keeper = Keeper::new(name)?;
        process::run(
            process::unprivileged(self.postgres.program("pg_basebackup"))
                .current_dir("/")
                .args(["--checkpoint=fast", "--no-sync"])
                .args(flags)
                .arg(format!("--dbname=postgresql://{SUPERUSER}@{address}"))
                .arg("-D")
                .arg(keeper.folder().join("data")),
        )?;
        let copy = Self {
            postgres: self.postgres.clone(),
            port: free_port()?,
            settings: self.settings.clone(),
            environment: self.environment.clone(),
            postmaster: Mutex::new(None),
            log: Arc::default(),
            keeper,
        };
        copy.restart()?;
        Ok(copy)
    }

    /// Starts it again after [`Cluster::stop`], on the same port.
    ///
    /// # Errors
    /// It does not come up: with the end of its log.
    pub fn restart(&self) -> anyhow::Result<()> {
        // Its environment is not the business of what makes it unprivileged.
        let mut command = process::unprivileged("env");
        command.args(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(self.postgres.program("postgres"));
        command.current_dir("/").arg("-D").arg(self.keeper.folder().join("data"));
        command.arg("-k").arg(self.socket_folder()).arg("-p").arg(self.port.to_string());
        for (name, value) in
            [("listen_addresses", "127.0.0.1"), ("max_connections", "200"), ("lc_messages", "C")]
        {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // Errors are to read as they do for users, whatever the tests' own panics are to show.
        command.env_remove("RUST_BACKTRACE").process_group(0);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        *self.postmaster.lock().expect("no panic while locked") = Some(child);
        self.await_ready(stderr)
    }

    /// The postmaster says when it is ready; what it says later is kept for [`Cluster::log`].
    fn await_ready(&self, stderr: ChildStderr) -> anyhow::Result<()> {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("database system is ready to accept") {
                    // Nobody listens any more after a second such line.
                    let _ = ready.send(());
                }
                log.lock().expect("no panic while locked").push(line);
            }
        });
        if is_ready.recv().is_err() {
            bail!("postgres did not start:\n{}", self.log());
        }
        Ok(())
    }

    /// Stops it and waits until it is gone. Without effect on one that does not run.
    ///
    /// # Errors
    /// The postmaster cannot be signalled or waited for.
    pub fn stop(&self, how: Stop) -> anyhow::Result<()> {
        let Some(mut child) = self.postmaster.lock().expect("no panic while locked").take() else {
            return Ok(());
        };
        process::signal(
            child.id(),
            match how {
                Stop::Fast => "INT",
                Stop::Immediate => "QUIT",
            },
        )?;
        child.wait()?;
        Ok(())
    }

    /// Whether the postmaster is there: it may have ended by itself.
    ///
    /// # Panics
    /// When it is not ours to ask.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let mut postmaster = self.postmaster.lock().expect("no panic while locked");
        postmaster.as_mut().is_some_and(|child| child.try_wait().expect("it is our child").is_none())
    }

    /// Whose programs run it.
    #[must_use]
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The folder of its data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.keeper.folder().join("data")
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic while locked").join("\n")
    }

    /// The folder of its Unix socket.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        self.keeper.folder()
    }

    /// Its port, on 127.0.0.1 and in the name of its socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection string for programs, over TCP.
    #[must_use]
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// `psql` or another client program of this installation, told where the cluster is.
    #[must_use]
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.postgres.program(program));
        command
            .env("PGHOST", self.socket_folder())
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", SUPERUSER)
            .env("PGDATABASE", database)
            .env("PGCLIENTENCODING", "UTF8")
            .env("PGTZ", "UTC")
            .env_remove("PGSERVICE")
            .env_remove("PGPASSWORD");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The keeper ends what this could not.
        let _ = self.stop(Stop::Immediate);
    }
}

/// A port that is free now; nobody else asks the system for ports by number.
///
/// # Errors
/// None is free.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
