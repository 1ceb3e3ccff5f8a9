//! How the channels of a batch fared.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::outcome::{End, Outcome};
use crate::clock::DbTime;

/// How old the record of a healthy channel may grow. Its `last_success_at` is for people to read; an
/// update for every batch would cost as much as a delivery.
const STALE: Duration = Duration::from_secs(5);

/// What a batch says of one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fared {
    /// Whether any attempt succeeded.
    pub succeeded: bool,
    /// Failures since the last success.
    pub failures: i64,
    /// What the last failure said.
    pub error: Option<String>,
}

/// Sums up a batch, whose outcomes stand in the order in which they came. A worker that ended during an
/// attempt says nothing of the channel.
pub fn sum_up<'a>(batch: impl Iterator<Item = &'a Outcome>) -> BTreeMap<i64, Fared> {
    let mut channels: BTreeMap<i64, Fared> = BTreeMap::new();
    for outcome in batch.filter(|outcome| outcome.is_seen()) {
        let fared = channels.entry(outcome.ticket.channel_id).or_default();
        if outcome.end == End::Sent {
            fared.succeeded = true;
            fared.failures = 0;
        } else {
            fared.failures += 1;
            fared.error = outcome.error().map(str::to_owned);
        }
    }
    channels
}

/// What of it is worth writing, going by what was written last.
#[derive(Debug, Default)]
pub struct Written(HashMap<i64, DbTime>);

impl Written {
    /// Keeps what changes a channel's standing, or renews one that is stale.
    pub fn worth_writing(&self, fared: &mut BTreeMap<i64, Fared>, now: DbTime) {
        fared.retain(|channel_id, fared| {
            let healthy_since = self.0.get(channel_id);
            fared.error.is_some()
                || fared.failures > 0
                || healthy_since.is_none_or(|written| now.since(*written) >= STALE)
        });
    }

    /// Takes note of what has been committed.
    pub fn record(&mut self, fared: &BTreeMap<i64, Fared>, now: DbTime) {
        for (channel_id, fared) in fared {
            if fared.failures == 0 {
                self.0.insert(*channel_id, now);
            } else {
                self.0.remove(channel_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DbTime {
        DbTime::from_unix_micros(seconds * 1_000_000)
    }

    fn healthy() -> BTreeMap<i64, Fared> {
        BTreeMap::from([(1, Fared { succeeded: true, ..Fared::default() })])
    }

    fn failing() -> BTreeMap<i64, Fared> {
        BTreeMap::from([(1, Fared { failures: 2, error: Some("timed out".to_owned()), ..Fared::default() })])
    }

    #[test]
    fn a_healthy_channel_is_written_once_in_a_while() {
        let mut written = Written::default();
        let cases = [(0, true), (1, false), (4, false), (5, true), (6, false)];
        for (seconds, expected) in cases {
            let mut fared = healthy();
            written.worth_writing(&mut fared, at(seconds));
            assert_eq!(!fared.is_empty(), expected, "after {seconds} s");
            written.record(&fared, at(seconds));
        }
    }

    #[test]
    fn every_change_is_written() {
        let mut written = Written::default();
        for mut fared in [healthy(), failing(), failing(), healthy()] {
            let before = fared.clone();
            written.worth_writing(&mut fared, at(0));
            assert_eq!(fared, before);
            written.record(&fared, at(0));
        }
    }
}
