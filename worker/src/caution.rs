//! Which shards are worked with care, because workers keep ending in them: one delivery at a time, its
//! attempt counted before it is made. See docs/adr/0007-what-kills-workers.md.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::DbTime;
use crate::schedule::Shards;

/// Deaths in a row after which a shard is worked with care.
const DEATHS: i32 = 3;
/// What a shard has on record that is trusted again: the next death is cause enough.
pub const TRUSTED: i32 = DEATHS - 1;
/// How long a death is remembered: so close together they follow one another in a row, and so long after the
/// last one care is taken.
pub const MEMORY: Duration = Duration::from_secs(300);

/// What is on record of a shard that has just been locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The shard.
    pub shard: i16,
    /// Times in a row that its owner ended without giving it up.
    pub deaths: i32,
    /// When that was last noticed.
    pub died_at: Option<DbTime>,
}

impl Record {
    /// Until when the shard is to be worked with care; `None` where it has not come to that.
    fn careful_until(&self) -> Option<DbTime> {
        self.died_at.filter(|_| self.deaths >= DEATHS).map(|at| at.after(MEMORY))
    }
}

/// The shards that are worked with care, and until when.
///
/// A false alarm is soon over. What ended the last worker was in flight then, so it was due and is: where nothing
/// is, it was not in this shard; and once as many deliveries were made here as can have been in flight, its turn
/// has come.
#[derive(Debug)]
pub struct Caution {
    in_flight: usize,
    per_channel: usize,
    shards: BTreeMap<i16, Care>,
    trusted: Shards,
}

#[derive(Clone, Copy, Debug)]
struct Care {
    until: DbTime,
    /// Deliveries to survive.
    left: usize,
}

impl Caution {
    /// Where at most `in_flight` deliveries are on their way at once, and of one channel `per_channel`.
    pub fn new(in_flight: usize, per_channel: usize) -> Self {
        Self { in_flight, per_channel, shards: BTreeMap::new(), trusted: Shards::default() }
    }

    /// Goes by what is on record of shards that have just been locked, and of how many of their channels
    /// something is due.
    pub fn note(&mut self, records: &[Record], channels: impl Fn(i16) -> usize) {
        self.trusted = self.trusted.without(records.iter().map(|record| record.shard).collect());
        for record in records {
            match record.careful_until() {
                Some(until) => {
                    let left = self.per_channel.saturating_mul(channels(record.shard)).min(self.in_flight);
                    self.shards.insert(record.shard, Care { until, left });
                }
                None => drop(self.shards.remove(&record.shard)),
            }
        }
    }

    /// An attempt that was made with care in `shard` is settled.
    pub fn survived(&mut self, shard: i16) {
        let Some(care) = self.shards.get_mut(&shard) else { return };
        care.left = care.left.saturating_sub(1);
        if care.left == 0 {
            self.trust(shard);
        }
    }

    /// Nothing of these shards is due or on its way.
    pub fn nothing_left(&mut self, shards: Shards) {
        shards.iter().for_each(|shard| self.trust(shard));
    }

    fn trust(&mut self, shard: i16) {
        if self.shards.remove(&shard).is_some() {
            self.trusted = self.trusted.union([shard].into_iter().collect());
        }
    }

    /// The shards that are to be worked with care at `now`.
    pub fn shards(&mut self, now: DbTime) -> Shards {
        self.shards.retain(|_, care| now < care.until);
        self.shards.keys().copied().collect()
    }

    /// The shards of which care need not be taken any more before its time is up, once: that is to be put on
    /// record.
    pub fn trusted(&mut self) -> Shards {
        std::mem::take(&mut self.trusted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    /// At most seven in flight, two of a channel; of each shard two channels have something due.
    fn caution() -> Caution {
        Caution::new(7, 2)
    }

    fn at(micros: i64) -> DbTime {
        DbTime::from_unix_micros(micros)
    }

    fn careful(caution: &mut Caution, micros: i64) -> Vec<i16> {
        caution.shards(at(micros)).iter().collect()
    }

    fn died(shard: i16, deaths: i32, micros: i64) -> Record {
        Record { shard, deaths, died_at: Some(at(micros)) }
    }

    #[test]
    fn care_begins_with_the_third_death() {
        let mut caution = caution();
        caution.note(
            &[
                Record { shard: 0, deaths: 0, died_at: None },
                died(1, 1, 0),
                died(2, 2, 0),
                died(3, 3, 0),
                died(4, 40, 0),
            ],
            |_| 2,
        );
        assert_eq!(careful(&mut caution, 0), [3, 4]);
    }

    #[test]
    fn care_ends_five_minutes_after_the_last_death() {
        let mut caution = caution();
        caution.note(&[died(3, 3, 0), died(4, 4, MINUTE)], |_| 2);
        assert_eq!(careful(&mut caution, 5 * MINUTE - 1), [3, 4]);
        assert_eq!(careful(&mut caution, 5 * MINUTE), [4]);
        assert_eq!(careful(&mut caution, 6 * MINUTE), [0; 0]);
    }

    #[test]
    fn what_was_on_record_long_ago_is_no_cause_for_care() {
        let mut caution = caution();
        caution.note(&[died(3, 3, 0)], |_| 2);
        assert_eq!(careful(&mut caution, 60 * MINUTE), [0; 0]);
    }

    #[test]
    fn a_shard_that_is_taken_again_goes_by_its_new_record() {
        let mut caution = caution();
        caution.note(&[died(3, 3, 0), died(4, 3, 0)], |_| 2);
        caution.note(&[died(3, 4, 4 * MINUTE), died(4, 1, 4 * MINUTE)], |_| 2);
        assert_eq!(careful(&mut caution, 5 * MINUTE), [3]);
    }

    #[test]
    fn care_ends_with_what_was_survived_or_with_nothing_left_and_that_is_said_once() {
        type Events = fn(&mut Caution);
        let cases: [(&str, Events, &[i16], &[i16]); 6] = [
            ("nothing happens", |_| (), &[3, 4], &[]),
            ("fewer than can be in flight", |caution| (0..3).for_each(|_| caution.survived(3)), &[3, 4], &[]),
            ("as many", |caution| (0..4).for_each(|_| caution.survived(3)), &[4], &[3]),
            ("elsewhere", |caution| (0..9).for_each(|_| caution.survived(7)), &[3, 4], &[]),
            ("nothing left", |caution| caution.nothing_left([4, 7].into_iter().collect()), &[3], &[4]),
            (
                "one more death",
                |caution| {
                    (0..3).for_each(|_| caution.survived(3));
                    caution.nothing_left([4].into_iter().collect());
                    caution.note(&[died(3, 4, MINUTE), died(4, 3, MINUTE)], |_| 2);
                    (0..3).for_each(|_| caution.survived(3));
                },
                &[3, 4],
                &[],
            ),
        ];
        for (what, events, expected, trusted) in cases {
            let mut caution = caution();
            caution.note(&[died(3, 3, 0), died(4, 3, 0)], |_| 2);
            events(&mut caution);
            assert_eq!(careful(&mut caution, MINUTE), expected, "{what}");
            assert_eq!(caution.trusted().iter().collect::<Vec<_>>(), trusted, "{what}");
            assert!(caution.trusted().is_empty(), "{what}");
        }
    }

    #[test]
    fn as_many_are_to_be_survived_as_can_have_been_in_flight() {
        for (channels, expected) in [(0, 1), (1, 2), (2, 4), (3, 6), (4, 7), (1_000, 7)] {
            let mut caution = caution();
            caution.note(&[died(3, 3, 0)], |_| channels);
            let survived = (1..).find(|_| {
                caution.survived(3);
                careful(&mut caution, 0).is_empty()
            });
            assert_eq!(survived, Some(expected), "{channels} channels");
        }
    }
}
