//! A pooler between the worker and Postgres: Debian's pgbouncer, from its package's unpacked program.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::cluster::{Cluster, free_port};
use crate::database::{EMITTER_ROLE, WORKER_ROLE};
use crate::limit::within;
use crate::process::{self, Keeper};

/// The pooler; it ends with its drop.
pub struct Pooler {
    port: u16,
    _pgbouncer: Child,
    _keeper: Keeper,
}

impl Pooler {
    /// Starts one in front of a cluster, for the worker's and the emitter's role, with this `pool_mode` and that many
    /// sessions of the server for each database.
    ///
    /// # Panics
    /// When pgbouncer is missing or does not start.
    pub async fn start(cluster: &Cluster, mode: &str, sessions: u32) -> Self {
        let keeper = Keeper::new("pooler").expect("a temporary folder");
        let within_folder = |name: &str| keeper.folder().join(name);
        let port = free_port().expect("a port is free");
        // A copy, where its user can reach it wherever the clone is.
        std::fs::copy(unpacked(), within_folder("pgbouncer")).expect("pgbouncer is there: run `make setup`");
        std::fs::write(within_folder("users"), format!("\"{WORKER_ROLE}\" \"\"\n\"{EMITTER_ROLE}\" \"\"\n"))
            .expect("a file");
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = {sessions}\n\
             ignore_startup_parameters = extra_float_digits\n",
            cluster.port(),
            within_folder("users").display(),
        );
        std::fs::write(within_folder("config"), config).expect("a file");
        let mut command = process::unprivileged("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(within_folder("pgbouncer"))
            .arg(within_folder("config"));
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut command = Command::from(command);
        let mut pgbouncer = command.kill_on_drop(true).spawn().expect("pgbouncer starts");
        let stderr = pgbouncer.stderr.take().expect("stderr is piped");
        let mut log = BufReader::new(stderr).lines();
        within("pgbouncer to be up", async {
            let mut said = Vec::new();
            while let Some(line) = log.next_line().await.expect("a pipe") {
                if line.contains("process up") {
                    return;
                }
                said.push(line);
            }
            panic!("pgbouncer does not start: {said:#?}");
        })
        .await;
        // Read on, so that what it says later finds room.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { port, _pgbouncer: pgbouncer, _keeper: keeper }
    }

    /// Its port, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The worker's way through it to a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://{WORKER_ROLE}@127.0.0.1:{}/{database}", self.port)
    }
}

fn unpacked() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/pooler/usr/sbin/pgbouncer")
}
