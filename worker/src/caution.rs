//! Which shards are worked with care, because workers keep ending in them: one delivery at a time, its
//! attempt counted before it is made. See docs/adr/0007-what-kills-workers.md.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::DbTime;
use crate::schedule::Shards;

/// Deaths in a row after which a shard is worked with care.
const DEATHS: i32 = 3;
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
#[derive(Debug, Default)]
pub struct Caution(BTreeMap<i16, DbTime>);

impl Caution {
    /// Goes by what is on record of shards that have just been locked.
    pub fn note(&mut self, records: &[Record]) {
        for record in records {
            match record.careful_until() {
                Some(until) => self.0.insert(record.shard, until),
                None => self.0.remove(&record.shard),
            };
        }
    }

    /// The shards that are to be worked with care at `now`.
    pub fn shards(&mut self, now: DbTime) -> Shards {
        self.0.retain(|_, until| now < *until);
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

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
        let mut caution = Caution::default();
        caution.note(&[
            Record { shard: 0, deaths: 0, died_at: None },
            died(1, 1, 0),
            died(2, 2, 0),
            died(3, 3, 0),
            died(4, 40, 0),
        ]);
        assert_eq!(careful(&mut caution, 0), [3, 4]);
    }

    #[test]
    fn care_ends_five_minutes_after_the_last_death() {
        let mut caution = Caution::default();
        caution.note(&[died(3, 3, 0), died(4, 4, MINUTE)]);
        assert_eq!(careful(&mut caution, 5 * MINUTE - 1), [3, 4]);
        assert_eq!(careful(&mut caution, 5 * MINUTE), [4]);
        assert_eq!(careful(&mut caution, 6 * MINUTE), [0; 0]);
    }

    #[test]
    fn what_was_on_record_long_ago_is_no_cause_for_care() {
        let mut caution = Caution::default();
        caution.note(&[died(3, 3, 0)]);
        assert_eq!(careful(&mut caution, 60 * MINUTE), [0; 0]);
    }

    #[test]
    fn a_shard_that_is_taken_again_goes_by_its_new_record() {
        let mut caution = Caution::default();
        caution.note(&[died(3, 3, 0), died(4, 3, 0)]);
        caution.note(&[died(3, 4, 4 * MINUTE), died(4, 1, 4 * MINUTE)]);
        assert_eq!(careful(&mut caution, 5 * MINUTE), [3]);
    }
}
