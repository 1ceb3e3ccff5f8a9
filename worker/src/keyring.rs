//! The keys of a running worker. A rotation writes the files anew under it, so they are read again
//! whenever something is met that none of the keys at hand is for.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use klaxon_model::audit;
use klaxon_model::seal::SecretKey;

use crate::config::Settings;
use crate::keys::Keys;

/// Keys, and where they came from.
pub struct Keyring {
    settings: Settings,
    keys: RwLock<Arc<Keys>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// As [`Keys::load`].
    pub fn load(settings: &Settings) -> anyhow::Result<Self> {
        let keys = RwLock::new(Arc::new(Keys::load(settings)?));
        Ok(Self { settings: settings.clone(), keys })
    }

    /// Reads the files again. What does not read now leaves the keys as they are.
    pub fn reload(&self) {
        match Keys::load(&self.settings) {
            Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the keys were not read again"),
        }
    }

    /// What opens secrets, newest first.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What opened `with` the keys at hand, or with those in the files now.
    ///
    /// # Errors
    /// What the second try said.
    pub fn open<T, E>(&self, with: impl Fn(&[SecretKey]) -> Result<T, E>) -> Result<T, E> {
        with(&self.keys().secret).or_else(|_| {
            self.reload();
            with(&self.keys().secret)
        })
    }

    /// The audit key of that name; the newest where a log has not yet named one.
    pub fn audit(&self, id: Option<&str>) -> Option<audit::Key> {
        let find = |keys: &Keys| match id {
            None => keys.audit.first().cloned(),
            Some(id) => keys.audit.iter().find(|key| key.id() == id).cloned(),
        };
        find(&self.keys()).or_else(|| {
            self.reload();
            find(&self.keys())
        })
    }
}

#[cfg(test)]
mod tests {
    use klaxon_model::audit;

    use super::*;
    use crate::config::Flags;
    use crate::installation::Installation;
    use crate::keys;

    #[test]
    fn a_key_that_was_written_meanwhile_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("klaxon.toml");
        let made =
            Installation::new(&config, &Settings::load_without_file(&Flags::default()).unwrap()).unwrap();
        made.write().unwrap();
        let ring = Keyring::load(&Settings::load(Some(&config), &Flags::default()).unwrap()).unwrap();
        assert_eq!(ring.audit(None).unwrap().id(), made.audit.id());

        let new = audit::Key::generate();
        assert!(ring.audit(Some(new.id())).is_none());
        keys::prepend(&made.audit_key_file, &new.to_base64()).unwrap();
        assert_eq!(ring.audit(Some(new.id())).unwrap().id(), new.id());
        assert_eq!(ring.audit(Some(made.audit.id())).unwrap().id(), made.audit.id(), "former keys stay");
        assert_eq!(ring.audit(None).unwrap().id(), new.id(), "the newest is the first");

        std::fs::remove_file(&made.secret_key_file).unwrap();
        assert!(ring.open(|keys| keys.first().cloned().ok_or(())).is_ok());
        assert!(ring.open(|_| Err::<(), _>("no")).is_err());
        assert!(!ring.keys().secret.is_empty(), "what does not read leaves the keys as they are");
    }
}
