//! Who has a mail that others are still waiting for, so that the next attempt addresses the others
//! alone.
//!
//! It is kept in memory, within bounds: after a restart all are addressed again, for delivery is at
//! least once. The second copy has the first one's Message-ID, by which mail stores can drop it.

use std::collections::HashMap;
use std::time::Duration;

use lettre::Address;
use tokio::time::Instant;

use super::Refusal;

/// Mails remembered.
const MAILS: usize = 1024;
/// How long one is remembered after its latest attempt: the longest pause of a `retry_schedule` and
/// a day, for its jitter and for who retries it by hand.
const AGE: Duration = Duration::from_secs(8 * 24 * 3600);

/// What became of a mail's recipients so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// What was replied when it was last taken.
    pub(super) code: i32,
    /// Who have it.
    pub(super) recipients: Vec<Address>,
    /// Who never will.
    pub(super) refused: Vec<Refusal>,
}

/// Mails that not all of their recipients have, by Message-ID.
#[derive(Default)]
pub(super) struct Unfinished {
    mails: HashMap<String, (Reached, Instant)>,
}

impl Unfinished {
    /// What is known of a mail.
    pub(super) fn get(&self, id: &str) -> Option<Reached> {
        let (reached, since) = self.mails.get(id)?;
        (since.elapsed() < AGE).then(|| reached.clone())
    }

    /// Remembers a mail; the one that was tried longest ago makes room for it.
    pub(super) fn put(&mut self, id: String, reached: Reached) {
        if self.mails.len() >= MAILS && !self.mails.contains_key(&id) {
            self.mails.retain(|_, (_, since)| since.elapsed() < AGE);
            let oldest = self.mails.iter().min_by_key(|(_, (_, since))| *since).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest.filter(|_| self.mails.len() >= MAILS) {
                self.mails.remove(&oldest);
            }
        }
        self.mails.insert(id, (reached, Instant::now()));
    }

    /// Forgets a mail that nobody waits for any more.
    pub(super) fn remove(&mut self, id: &str) {
        self.mails.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(code: i32) -> Reached {
        Reached { code, recipients: Vec::new(), refused: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room_and_age_ends_it() {
        let mut mails = Unfinished::default();
        for id in 0..MAILS {
            mails.put(id.to_string(), reached(250));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        mails.put("0".into(), reached(251));
        mails.put("new".into(), reached(252));
        assert_eq!(mails.mails.len(), MAILS);
        assert_eq!(mails.get("1"), None, "it was the oldest");
        assert_eq!(mails.get("0"), Some(reached(251)));
        mails.remove("0");
        assert_eq!(mails.get("0"), None);
        tokio::time::advance(AGE).await;
        assert_eq!(mails.get("new"), None);
        mails.put("a".into(), reached(250));
        mails.put("b".into(), reached(250));
        assert_eq!(mails.mails.len(), 2, "what is too old is swept where room is needed");
    }
}
