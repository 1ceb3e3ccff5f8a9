//! Connections that wait for the next request.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Origin;
use super::connect::Connection;

/// Origins whose connections are kept.
const ORIGINS: usize = 512;
/// Connections kept of one origin, which may be that of many channels: as many as there are deliveries in
/// flight, or each of the rest would make one of its own.
const CONNECTIONS: usize = 256;
/// How long a connection is kept that nobody uses, at least; at most twice as long.
const IDLE: Duration = Duration::from_secs(60);
/// How long a connection may take to be ready again after an answer that was read to its end.
const RECOVERY: Duration = Duration::from_millis(100);

/// Of one origin.
struct Kept {
    /// Those that wait, each with the time of its last use; of HTTP/2 the one that all share.
    waiting: Vec<(Connection, Instant)>,
    /// Taken by whoever makes the first connection, while nobody knows the protocol.
    first: Arc<tokio::sync::Mutex<()>>,
    /// Whether it speaks HTTP/1.1, of which there is need of many.
    many: bool,
    used: Instant,
}

#[derive(Default)]
struct Origins {
    kept: HashMap<Origin, Kept>,
    swept: bool,
}

/// Connections that wait for the next request.
#[derive(Default)]
pub(super) struct Pool {
    origins: Arc<Mutex<Origins>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    fn origins(&self) -> MutexGuard<'_, Origins> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that a request can be sent over, the one used last.
    pub(super) fn take(&self, origin: &Origin) -> Option<Connection> {
        let mut origins = self.origins();
        let kept = origins.kept.get_mut(origin)?;
        let now = Instant::now();
        kept.used = now;
        while let Some((connection, _)) = kept.waiting.pop() {
            if !connection.is_ready() {
                continue;
            }
            if let Connection::Http2(sender) = &connection {
                let shared = Connection::Http2(sender.clone());
                kept.waiting.push((connection, now));
                return Some(shared);
            }
            return Some(connection);
        }
        None
    }

    /// What to hold while making a connection; nothing where there is need of many, or where no more
    /// origins are kept.
    pub(super) fn first(&self, origin: &Origin) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut origins = self.origins();
        if !origins.kept.contains_key(origin) {
            if origins.kept.len() >= ORIGINS {
                return None;
            }
            let now = Instant::now();
            let kept = Kept { waiting: Vec::new(), first: Arc::default(), many: false, used: now };
            origins.kept.insert(origin.clone(), kept);
            if !std::mem::replace(&mut origins.swept, true) {
                tokio::spawn(sweep(Arc::downgrade(&self.origins)));
            }
        }
        let kept = origins.kept.get(origin)?;
        (!kept.many).then(|| Arc::clone(&kept.first))
    }

    /// Notes what a new connection says of its origin, and keeps it where all can share it.
    pub(super) fn met(&self, origin: &Origin, connection: &Connection) {
        let mut origins = self.origins();
        let Some(kept) = origins.kept.get_mut(origin) else { return };
        kept.many = !connection.is_http2();
        if let Connection::Http2(sender) = connection {
            kept.waiting.retain(|(other, _)| other.is_ready());
            kept.waiting.insert(0, (Connection::Http2(sender.clone()), Instant::now()));
        }
    }

    /// Keeps a connection whose answer was read to its end; one that is shared is kept already.
    pub(super) async fn keep(&self, origin: &Origin, mut connection: Connection) {
        if connection.is_http2()
            || !matches!(tokio::time::timeout(RECOVERY, connection.recovers()).await, Ok(true))
        {
            return;
        }
        if let Some(kept) = self.origins().kept.get_mut(origin)
            && kept.waiting.len() < CONNECTIONS
        {
            kept.waiting.push((connection, Instant::now()));
        }
    }
}

/// Closes what waited too long, until nothing waits.
async fn sweep(origins: Weak<Mutex<Origins>>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let Some(origins) = origins.upgrade() else { return };
        let mut origins = origins.lock().unwrap_or_else(PoisonError::into_inner);
        origins.kept.retain(|_, kept| {
            kept.waiting.retain(|(connection, since)| connection.is_ready() && since.elapsed() < IDLE);
            !kept.waiting.is_empty() || kept.used.elapsed() < IDLE
        });
        origins.swept = !origins.kept.is_empty();
        if !origins.swept {
            return;
        }
    }
}
