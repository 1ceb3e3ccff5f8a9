//! What the clients know of their transactions.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use uuid::Uuid;

use super::plan::Kind;

/// The events that were emitted, and which of them were committed.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Entries>);

/// What a [`Ledger`] holds.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Committed events.
    pub committed: HashMap<Uuid, Kind>,
    /// Events of transactions or savepoints that were rolled back.
    pub rolled_back: HashSet<Uuid>,
    /// Events whose commit went down with a server: they may have been sent before that, and need not be.
    pub gone: HashSet<Uuid>,
    /// How many transactions were committed, and how many were not.
    pub transactions: [usize; 2],
    /// Savepoints that were rolled back to with events behind them.
    pub savepoints: usize,
    /// Transactions that were committed after they had been prepared.
    pub prepared: usize,
    /// Transactions whose end the client did not hear of.
    pub unheard: usize,
    /// Events of those of them that turned out to be rolled back.
    pub unheard_of: HashSet<Uuid>,
}

impl Ledger {
    /// Writes into it.
    pub fn write(&self, entry: impl FnOnce(&mut Entries)) {
        entry(&mut self.0.lock().expect("no panic while locked"));
    }

    /// All of it.
    #[must_use]
    pub fn read(&self) -> Entries {
        self.0.lock().expect("no panic while locked").clone()
    }
}
