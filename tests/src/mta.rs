//! A mail server as providers run it: Debian's exim, from its first greeting to the mailbox, so that a
//! test reads a mail as its recipient's mail store has it.
//!
//! It runs as whoever may run Postgres, from its package's unpacked program: installed, it would take
//! the place of the machine's own mail server.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStdout;

use crate::authority::Authority;
use crate::limit::within;
use crate::process::{self, Keeper};
use crate::smtp::{HOST, PASSWORD, USER};

/// Demands STARTTLS, then offers AUTH PLAIN and LOGIN.
pub const STARTTLS: u16 = 587;
/// TLS from the start.
pub const IMPLICIT: u16 = 465;
/// As [`STARTTLS`], and offers AUTH LOGIN alone.
pub const LOGIN_ONLY: u16 = 2525;

const CONFIG: &str = include_str!("exim.conf");
const READER: &str = include_str!("mailbox.py");

/// A mail as a mailbox has it, read by Python's parser.
#[derive(Clone, Debug, Deserialize)]
pub struct Mail {
    /// The headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The plain text part.
    pub text: String,
    /// The HTML part.
    pub html: String,
    /// Bytes of its longest line.
    pub longest_line: usize,
    /// What the parser had to overlook.
    pub defects: Vec<String>,
}

impl Mail {
    /// The only header of a name.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let mut values = self.headers.iter().filter(|(header, _)| header == name).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (Some(value), None) => value,
            _ => panic!("not one {name} in {:#?}", self.headers),
        }
    }
}

/// The server; it ends with its drop.
pub struct Mta {
    ports: [u16; 3],
    seen: Vec<String>,
    log: Lines<BufReader<ChildStdout>>,
    exim: Child,
    _tail: tokio::process::Child,
    keeper: Keeper,
}

impl Mta {
    /// Starts one on free ports, with these mailboxes in `example.com`.
    ///
    /// # Errors
    /// Exim or what it needs is missing.
    pub async fn start(authority: &Authority, mailboxes: &[&str]) -> anyhow::Result<Self> {
        let keeper = Keeper::new("mta")?;
        let within_folder = |name: &str| keeper.folder().join(name);
        let free = [listener()?, listener()?, listener()?];
        let ports =
            [free[0].local_addr()?.port(), free[1].local_addr()?.port(), free[2].local_addr()?.port()];
        // A copy, where its user can reach it wherever the clone is.
        let program = within_folder("exim4");
        std::fs::copy(unpacked(), &program).context("exim is missing: run `make setup`")?;
        authority.files(keeper.folder(), HOST)?;
        std::fs::write(within_folder("mailbox.py"), READER)?;
        std::fs::write(within_folder("mainlog"), "")?;
        let set = format!(
            "FOLDER = {}\nPROGRAM = {}\nLOGIN_USER = {USER}\nLOGIN_PASSWORD = {PASSWORD}\n\
             STARTTLS_PORT = {}\nTLS_PORT = {}\nLOGIN_PORT = {}\n",
            keeper.folder().display(),
            program.display(),
            ports[0],
            ports[1],
            ports[2],
        );
        let config = within_folder("exim.conf");
        std::fs::write(&config, set + CONFIG)?;
        let who = |flag| process::run(process::unprivileged("id").arg(flag));
        let (user, group) = (who("-u")?, who("-g")?);
        std::fs::write(
            within_folder("passwd"),
            format!("Debian-exim:x:{}:{}::/:/bin/false\n", user.trim(), group.trim()),
        )?;
        std::fs::write(within_folder("group"), format!("Debian-exim:x:{}:\n", group.trim()))?;
        for name in ["busy", "mailboxes"] {
            std::fs::create_dir(within_folder(name))?;
        }
        for name in mailboxes {
            let mailbox = within_folder("mailboxes").join(name);
            std::fs::create_dir(&mailbox)?;
            process::hand_over(&mailbox)?;
        }
        for name in ["mainlog", "exim.conf"] {
            process::hand_over(&within_folder(name))?;
        }

        let mut tail = ending_with_us();
        tail.args(["tail", "-n", "+1", "-f"]).arg(within_folder("mainlog")).stdout(Stdio::piped());
        let mut tail =
            tokio::process::Command::from(tail).kill_on_drop(true).spawn().context("cannot start tail")?;
        let log = BufReader::new(tail.stdout.take().context("stdout is piped")?).lines();
        let exim = |arguments: &[&str]| {
            let mut command = ending_with_us();
            // Its program wants a user of this name, which is one of the package's installation.
            command.args(["env", "LD_PRELOAD=libnss_wrapper.so"]);
            command.arg(format!("NSS_WRAPPER_PASSWD={}", within_folder("passwd").display()));
            command.arg(format!("NSS_WRAPPER_GROUP={}", within_folder("group").display()));
            command.arg(&program).args(arguments).arg("-C").arg(&config);
            command
        };
        // What keeps it from starting is said here.
        process::run(&mut exim(&["-bV"]))?;
        drop(free);
        let exim = exim(&["-bdf"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start exim")?;
        let mut mta = Self { ports, seen: Vec::new(), log, exim, _tail: tail, keeper };
        mta.logged("that it listens", |line| line.contains("daemon started")).await;
        Ok(mta)
    }

    /// The worker's `connect-to` for it, a port of [`HOST`] each.
    #[must_use]
    pub fn connect_to(&self) -> [String; 3] {
        let to = |at: usize, port: u16| format!("{HOST}:{port}:127.0.0.1:{}", self.ports[at]);
        [to(0, STARTTLS), to(1, IMPLICIT), to(2, LOGIN_ONLY)]
    }

    /// A channel's `config` for it.
    #[must_use]
    pub fn channel(&self, port: u16, to: &[&str]) -> Value {
        let to: Vec<String> = to.iter().map(|name| format!("{name}@example.com")).collect();
        json!({
            "smtp_host": HOST, "smtp_port": port, "smtp_user": USER, "smtp_pass": PASSWORD, "to_addrs": to,
        })
    }

    /// Whether a recipient is refused for now, from now on.
    ///
    /// # Panics
    /// When the folder is gone.
    pub fn busy(&self, name: &str, busy: bool) {
        let file = self.keeper.folder().join("busy").join(name);
        let done = if busy { std::fs::write(file, "") } else { std::fs::remove_file(file) };
        done.expect("the folder is there");
    }

    /// The mails of a mailbox, in the order they arrived, once there are so many at least.
    ///
    /// # Panics
    /// When there are not.
    pub async fn mails(&mut self, name: &str, count: usize) -> Vec<Mail> {
        let delivered = [format!(" => {name} <"), format!(" -> {name} <")];
        let mut left = count;
        self.logged(&format!("{count} mails for {name}"), |line| {
            left -= usize::from(delivered.iter().any(|mark| line.contains(mark)));
            left == 0
        })
        .await;
        let mailbox = self.keeper.folder().join("mailboxes").join(name);
        let list = process::run(
            Command::new("/usr/bin/python3").arg(self.keeper.folder().join("mailbox.py")).arg(mailbox),
        );
        serde_json::from_str(&list.expect("the mailbox reads")).expect("a list of mails")
    }

    /// The first line of its log, written already or to come, that satisfies the condition.
    ///
    /// # Panics
    /// When none does.
    pub async fn logged(&mut self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        if let Some(line) = self.seen.iter().find(|line| wanted(line)) {
            return line.clone();
        }
        within(&format!("exim to log {what}"), async {
            loop {
                let line = self.log.next_line().await.expect("the log reads").expect("tail goes on");
                self.seen.push(line.clone());
                if wanted(&line) {
                    return line;
                }
            }
        })
        .await
    }

    /// How many lines of the log there were so far with these words in them.
    #[must_use]
    pub fn count(&self, words: &str) -> usize {
        self.seen.iter().filter(|line| line.contains(words)).count()
    }
}

impl Drop for Mta {
    fn drop(&mut self) {
        // With its processes that still talk to somebody, whose logs would bring the folder back.
        let group = format!("-{}", self.exim.id());
        let _ = process::run(Command::new("kill").args(["-KILL", "--", &group]));
        let _ = self.exim.wait();
    }
}

fn listener() -> std::io::Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0")
}

/// Where `make setup` unpacks it.
fn unpacked() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/mta/usr/sbin/exim4")
}

/// Runs what follows as a user that may, until the thread that started it ends, should that be killed.
fn ending_with_us() -> Command {
    let mut command = process::unprivileged("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).current_dir("/").stdin(Stdio::null());
    command
}
