//! Key files: 32 bytes in base64, one a line, newest first; for their owner's eyes only.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use klaxon_model::audit;
use klaxon_model::seal::SecretKey;
use zeroize::Zeroizing;

use crate::config::Settings;

/// What the worker opens secrets and signs the log with.
#[derive(Debug)]
pub struct Keys {
    /// Newest first.
    pub secret: Vec<SecretKey>,
    /// Newest first.
    pub audit: Vec<audit::Key>,
}

impl Keys {
    /// Reads both files the settings name.
    ///
    /// # Errors
    /// A file that is missing, unreadable, open to others or without keys; the message says what to run.
    pub fn load(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self { secret: secret_keys(settings)?, audit: audit_keys(settings)? })
    }
}

/// The keys that open secrets.
pub fn secret_keys(settings: &Settings) -> anyhow::Result<Vec<SecretKey>> {
    let path = named("secret-key-file", settings.secret_key_file.as_deref())?;
    lines(path)?
        .iter()
        .map(|line| SecretKey::from_base64(line).with_context(|| path.display().to_string()))
        .collect()
}

/// The keys of the audit log.
pub fn audit_keys(settings: &Settings) -> anyhow::Result<Vec<audit::Key>> {
    let path = named("audit-key-file", settings.audit_key_file.as_deref())?;
    lines(path)?
        .iter()
        .map(|line| audit::Key::from_base64(line).with_context(|| path.display().to_string()))
        .collect()
}

/// Whose key files are believed: our own and root's.
fn is_trusted(owner: u32, us: u32) -> bool {
    owner == us || owner == 0
}

fn named<'a>(setting: &str, path: Option<&'a Path>) -> anyhow::Result<&'a Path> {
    path.with_context(|| format!("{setting} is not set: run \"klaxon init --config klaxon.toml\", which writes the keys and the file"))
}

/// The bits of a mode that let others in. What systemd hands a service (`LoadCredential=`) it lets the service's
/// user read by an access list, whose mask stands in the group's place.
fn open_to_others(path: &Path, credentials: Option<&std::ffi::OsStr>) -> u32 {
    match credentials {
        Some(folder) if !folder.is_empty() && path.parent() == Some(Path::new(folder)) => 0o037,
        _ => 0o077,
    }
}

fn lines(path: &Path) -> anyhow::Result<Vec<Zeroizing<String>>> {
    let shown = path.display();
    let mut file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!(
            "key file {shown} does not exist: run \"klaxon init\" for a new deployment, or restore the file from where its copy is kept"
        ),
        ErrorKind::PermissionDenied => {
            anyhow::anyhow!("key file {shown} cannot be read: run \"chown $(id -un) {shown}\" as its owner or root")
        }
        _ => anyhow::anyhow!("key file {shown}: {error}"),
    })?;
    let metadata = file.metadata().with_context(|| format!("key file {shown}"))?;
    if !metadata.is_file() {
        bail!("key file {shown} is no file");
    }
    let owner = metadata.uid();
    if !is_trusted(owner, rustix::process::geteuid().as_raw()) {
        bail!(
            "key file {shown} belongs to user {owner}, who can change it: run \"chown $(id -un) {shown}\" as root"
        );
    }
    if metadata.mode() & open_to_others(path, std::env::var_os("CREDENTIALS_DIRECTORY").as_deref()) != 0 {
        bail!(
            "key file {shown} is open to others (mode {:04o}): run \"chmod 600 {shown}\"",
            metadata.mode() & 0o7777
        );
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).with_context(|| format!("key file {shown}"))?;
    let lines: Vec<Zeroizing<String>> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| Zeroizing::new(line.to_owned()))
        .collect();
    if lines.is_empty() {
        bail!("key file {shown} holds no key: restore it from where its copy is kept");
    }
    Ok(lines)
}

/// Writes a new file that only its owner may read; never over one that is there.
///
/// # Errors
/// Where it exists or cannot be written.
pub fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a key before those of a file: a new file in its place at once, for the same owner, so that
/// whoever reads meanwhile reads the one or the other.
///
/// # Errors
/// Where the file does not read or cannot be replaced; it is as it was then.
pub fn prepend(path: &Path, key: &str) -> anyhow::Result<()> {
    let former = lines(path)?;
    let mut text = Zeroizing::new(String::with_capacity((former.len() + 1) * 64));
    for line in std::iter::once(key).chain(former.iter().map(|line| line.as_str())) {
        text.push_str(line);
        text.push('\n');
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    // Left by a rotation that was interrupted: nothing has been done under its key.
    let _: std::io::Result<()> = std::fs::remove_file(new);
    write_new(new, &text)?;
    let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    std::os::unix::fs::chown(new, Some(metadata.uid()), Some(metadata.gid()))
        .with_context(|| format!("cannot give {} to the owner of {}", new.display(), path.display()))?;
    std::fs::rename(new, path).with_context(|| format!("cannot replace {}", path.display()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| folder.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_file_is_its_owners_and_holds_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        let says = |path: &Path| format!("{:#}", lines(path).unwrap_err());
        assert!(says(&path).contains("does not exist: run \"klaxon init\""));

        let key = SecretKey::generate();
        write_new(&path, &format!("{}\n\n", *key.to_base64())).unwrap();
        assert_eq!(lines(&path).unwrap().len(), 1);
        assert!(write_new(&path, "x").is_err(), "an existing key is never overwritten");

        for mode in [0o640, 0o604, 0o660, 0o666] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(says(&path).contains("chmod 600"), "{mode:o}");
        }
        let empty = folder.path().join("empty.key");
        write_new(&empty, "\n").unwrap();
        assert!(says(&empty).contains("holds no key"));
        assert!(says(folder.path()).contains("is no file"));
    }

    #[test]
    fn a_key_file_is_ours_or_roots() {
        for (owner, us, trusted) in
            [(0, 0, true), (0, 1000, true), (1000, 1000, true), (1000, 0, false), (1001, 1000, false)]
        {
            assert_eq!(is_trusted(owner, us), trusted, "{owner} {us}");
        }
    }

    #[test]
    fn only_what_systemd_hands_over_may_show_a_mask() {
        let credentials = std::ffi::OsStr::new("/run/credentials/klaxon.service");
        let own = |path: &str| open_to_others(Path::new(path), Some(credentials));
        assert_eq!(own("/run/credentials/klaxon.service/secret.key"), 0o037);
        assert_eq!(own("/run/credentials/other.service/secret.key"), 0o077);
        assert_eq!(own("/etc/klaxon/secret.key"), 0o077);
        assert_eq!(open_to_others(Path::new("secret.key"), None), 0o077);
        assert_eq!(open_to_others(Path::new("secret.key"), Some(std::ffi::OsStr::new(""))), 0o077);
    }
}
