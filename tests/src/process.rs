//! Starting programs so that none outlives the test that started it, however that ends.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};

/// The user that servers run as which refuse to run as root.
const SERVER_USER: &str = "postgres";

/// Whether this process is root's, who may not run Postgres.
#[must_use]
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// A command for `program` as a user that may run Postgres: ourselves, or `postgres` where we are
/// root. `setpriv` replaces itself by the program, so the process id is the program's own.
#[must_use]
pub fn unprivileged(program: impl AsRef<OsStr>) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", SERVER_USER, "--regid", SERVER_USER, "--init-groups", "--"]).arg(program);
    command
}

/// Gives a folder to the user of [`unprivileged`].
///
/// # Errors
/// That user does not exist, or the folder does not.
pub fn hand_over(folder: &Path) -> anyhow::Result<()> {
    if is_root() {
        run(Command::new("chown").arg(SERVER_USER).arg(folder))?;
    }
    Ok(())
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// It does not start, or fails: with what it said.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        // Some say on one what is wrong, some on the other.
        let said = [output.stdout, output.stderr].concat();
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sends a signal by name to one process.
///
/// # Errors
/// There is no such process.
pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    run(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string())).map(drop)
}

/// A folder with perhaps a Postgres in it, both of which go when this is dropped or when this
/// process ends, in whatever way: a static is never dropped, and a killed process drops nothing.
/// A shell waits for the end of a pipe that only we hold.
pub struct Keeper {
    folder: PathBuf,
    shell: Child,
}

impl Keeper {
    // The file goes last of what Postgres does. Its process id alone would not do: where the first
    // process reaps nobody, as in many containers, an orphan keeps its id for ever.
    const SCRIPT: &'static str = r#"
        cat >/dev/null
        pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null &&
            while [ -e "$1/data/postmaster.pid" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
        [ -e "$1/confined" ] && umount "$1/data"
        rm -rf "$1""#;

    /// A new folder under the system's temporary one, owned by the user of [`unprivileged`].
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix(&format!("klaxon-{name}-")).tempdir()?.keep();
        hand_over(&folder)?;
        let shell = Command::new("sh")
            .args(["-c", Self::SCRIPT, "keeper"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not the terminal's: Ctrl-C must not end it before us.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        Ok(Self { folder, shell })
    }

    /// Gives its folder `data` a size, in megabytes.
    ///
    /// # Errors
    /// We may not.
    pub fn confine(&self, megabytes: u32) -> anyhow::Result<()> {
        let data = self.folder.join("data");
        std::fs::create_dir(&data)?;
        let options = format!("size={megabytes}m,mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&data))?;
        std::fs::write(self.folder.join("confined"), "")?;
        hand_over(&data)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Nothing to be done about an error here; the folder is a temporary one.
        let _ = self.shell.wait();
    }
}
