//! Clocks that are off: Debian's libfaketime, from its package's unpacked library.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::process::Keeper;

/// A clock for programs that are started with its environment; the machine's goes on beside it.
pub struct Clock {
    keeper: Keeper,
}

impl Clock {
    /// One that is off by so many seconds.
    ///
    /// # Panics
    /// When the library is missing.
    #[must_use]
    pub fn off_by(seconds: i64) -> Self {
        let keeper = Keeper::new("clock").expect("a temporary folder");
        let clock = Self { keeper };
        // A copy, where a server's user can reach it wherever the clone is.
        std::fs::copy(unpacked(), clock.library()).expect("libfaketime is there: run `make setup`");
        clock.set_off(seconds);
        clock
    }

    /// One that shows this moment, in seconds since 1970, and goes on from there.
    #[must_use]
    pub fn showing(at: i64) -> Self {
        let clock = Self::off_by(0);
        clock.show(at);
        clock
    }

    /// Sets it to another moment, for programs that run, too.
    ///
    /// # Panics
    /// When its file cannot be written.
    pub fn show(&self, at: i64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
        self.set_off(at - i64::try_from(now).expect("it is before the end of time"));
    }

    /// The variables of a program that goes by it. Timers run as ever.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", self.library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn set_off(&self, seconds: i64) {
        // In one step: nobody reads half of it.
        let next = self.keeper.folder().join("next");
        std::fs::write(&next, format!("{seconds:+}\n")).expect("a file");
        std::fs::rename(next, self.file()).expect("a file");
    }

    fn library(&self) -> PathBuf {
        self.keeper.folder().join("libfaketime.so")
    }

    fn file(&self) -> PathBuf {
        self.keeper.folder().join("offset")
    }
}

fn unpacked() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/faketime/libfaketimeMT.so.1")
}
