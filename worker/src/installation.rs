//! What a deployment has on disk: the configuration file, and the two key files beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use klaxon_model::audit;
use klaxon_model::seal::SecretKey;
use secrecy::ExposeSecret as _;
use uuid::Uuid;

use crate::config::Settings;
use crate::keys;

/// A new deployment: made in memory first, so that everything can be checked before anything is
/// written.
pub struct Installation {
    /// The deployment's id.
    pub id: String,
    /// The configuration file.
    pub config: PathBuf,
    /// The private key's file.
    pub secret_key_file: PathBuf,
    /// The audit key's file.
    pub audit_key_file: PathBuf,
    /// The private key.
    pub secret: SecretKey,
    /// The audit key.
    pub audit: audit::Key,
    text: String,
}

impl Installation {
    /// A deployment of its own id and keys, whose configuration file will be `config`.
    ///
    /// # Errors
    /// Where one of its files is there already: a key is never overwritten.
    pub fn new(config: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let folder = config.parent().map(Path::to_path_buf).unwrap_or_default();
        let id = Uuid::new_v4().to_string();
        let installation = Self {
            config: config.to_owned(),
            secret_key_file: folder.join("secret.key"),
            audit_key_file: folder.join("audit.key"),
            secret: SecretKey::generate(),
            audit: audit::Key::generate(),
            text: configuration(settings, &id),
            id,
        };
        for key in [&installation.secret_key_file, &installation.audit_key_file] {
            if key.exists() {
                bail!(
                    "{} exists: a key is never overwritten; name another folder by --config",
                    key.display()
                );
            }
        }
        Ok(installation)
    }

    /// The key that secrets are sealed to, base64.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.secret.public().to_base64()
    }

    /// Writes the three files, or none of them.
    ///
    /// # Errors
    /// Where one cannot be written.
    pub fn write(&self) -> anyhow::Result<()> {
        if let Some(folder) = self.config.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut written = Vec::new();
        for (path, text) in [
            (&self.secret_key_file, format!("{}\n", *self.secret.to_base64()).into()),
            (&self.audit_key_file, format!("{}\n", *self.audit.to_base64()).into()),
            // Last: with the configuration there, the deployment is whole.
            (&self.config, zeroize::Zeroizing::new(self.text.clone())),
        ] {
            if let Err(error) = keys::write_new(path, &text) {
                for path in written {
                    // What is left behind is said below, by name, when the next try meets it.
                    let _: std::io::Result<()> = std::fs::remove_file(path);
                }
                return Err(error);
            }
            written.push(path);
        }
        Ok(())
    }

    /// Takes the files back, where the databases refused what they were written for.
    pub fn remove(&self) {
        for path in [&self.config, &self.secret_key_file, &self.audit_key_file] {
            // As above.
            let _: std::io::Result<()> = std::fs::remove_file(path);
        }
    }
}

/// The configuration file: what was said on the way, and what was made.
fn configuration(settings: &Settings, id: &str) -> String {
    let mut text = String::from("# klaxon: every setting is listed by \"klaxon run --help\".\n\n");
    if !settings.database_url.is_empty() {
        let urls: Vec<toml::Value> =
            settings.database_url.iter().map(|url| toml::Value::from(url.expose_secret())).collect();
        text.push_str(&format!("database-url = {}\n", toml::Value::Array(urls)));
    }
    for (key, value) in
        [("deployment-id", id), ("secret-key-file", "secret.key"), ("audit-key-file", "audit.key")]
    {
        text.push_str(&format!("{key} = {}\n", toml::Value::from(value)));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::Flags;

    #[test]
    fn what_is_written_reads_back_and_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("new/klaxon.toml");
        let flags = Flags { database_url: vec!["host=h password='a\"b'".into()], ..Flags::default() };
        let settings = Settings::load_without_file(&flags).unwrap();
        let installation = Installation::new(&config, &settings).unwrap();
        installation.write().unwrap();

        let read = Settings::load(Some(&config), &Flags::default()).unwrap();
        assert_eq!(read.deployment_id.as_deref(), Some(installation.id.as_str()));
        assert_eq!(read.database_url[0].expose_secret(), "host=h password='a\"b'");
        let keys = keys::Keys::load(&read).unwrap();
        assert_eq!(keys.secret[0].public().to_base64(), installation.public_key());
        for path in [&config, &installation.secret_key_file, &installation.audit_key_file] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(Installation::new(&config, &settings).is_err(), "keys are never overwritten");
    }

    #[test]
    fn all_of_it_is_written_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("klaxon.toml");
        let settings = Settings::load_without_file(&Flags::default()).unwrap();
        let installation = Installation::new(&config, &settings).unwrap();
        std::fs::write(&config, "").unwrap();
        assert!(installation.write().is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
