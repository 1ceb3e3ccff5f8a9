//! `pg_snapshot`: which transactions a read could see.

use std::num::ParseIntError;
use std::str::FromStr;

/// What `pg_current_snapshot()` says, from its text form `xmin:xmax:xip,xip…`
/// (PostgreSQL documentation, "Transaction ID and Snapshot Information Functions").
///
/// A transaction was visible if its id is below `xmax` and not in `xip`. So what became visible to
/// a later read is exactly what is at or past `xmax`, or was then in `xip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    xip: Vec<u64>,
}

/// Why a text is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It has not the three parts.
    #[error("snapshot {0:?} is not xmin:xmax:xip")]
    Form(String),
    /// A part of it is not a transaction id.
    #[error("snapshot holds what is no transaction id")]
    Number(#[from] ParseIntError),
}

impl FromStr for Snapshot {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<Self, SnapshotError> {
        let mut parts = text.split(':');
        let (Some(xmin), Some(xmax), Some(xip), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SnapshotError::Form(text.to_owned()));
        };
        let xip = xip.split(',').filter(|id| !id.is_empty()).map(u64::from_str).collect::<Result<_, _>>()?;
        Ok(Self { xmin: xmin.parse()?, xmax: xmax.parse()?, xip })
    }
}

impl Snapshot {
    /// The first transaction id that had not been given out: everything from here on is new. As
    /// text, which `xid8` is cast from.
    pub fn xmax(&self) -> String {
        self.xmax.to_string()
    }

    /// What was in progress, as text, which `xid8` is cast from.
    pub fn in_progress(&self) -> Vec<String> {
        self.xip.iter().map(u64::to_string).collect()
    }

    #[cfg(test)]
    fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && !self.xip.contains(&xid))
    }

    #[cfg(test)]
    fn is_new(&self, xid: u64) -> bool {
        xid >= self.xmax || self.xip.contains(&xid)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_what_postgres_prints() {
        let cases: [(&str, u64, &[u64]); 3] = [
            ("742:742:", 742, &[]),
            ("742:746:742,744", 746, &[742, 744]),
            ("18446744073709551614:18446744073709551615:18446744073709551614", u64::MAX, &[u64::MAX - 1]),
        ];
        for (text, xmax, xip) in cases {
            let snapshot: Snapshot = text.parse().unwrap();
            assert_eq!(snapshot.xmax(), xmax.to_string());
            assert_eq!(snapshot.xip, xip);
        }
        for text in ["", "1:2", "1:2:3:4", "a:2:", "1:2:x", "-1:2:"] {
            assert!(text.parse::<Snapshot>().is_err(), "{text:?}");
        }
    }

    /// A history: transactions begin and end in any order, and reads happen in between. Every
    /// committed transaction must be new to exactly one read after its commit.
    #[derive(Clone, Debug)]
    enum Step {
        Begin,
        End(prop::sample::Index),
        Read,
    }

    fn history() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(
            prop_oneof![
                3 => Just(Step::Begin),
                3 => any::<prop::sample::Index>().prop_map(Step::End),
                2 => Just(Step::Read),
            ],
            0..200,
        )
    }

    proptest! {
        #[test]
        fn every_commit_is_read_exactly_once(history in history()) {
            let (mut next, mut running, mut ended) = (10u64, Vec::new(), BTreeSet::new());
            let mut read = BTreeSet::new();
            let mut last: Snapshot = "10:10:".parse().unwrap();
            let mut steps = history;
            steps.push(Step::Read);
            for step in steps {
                match step {
                    Step::Begin => { running.push(next); next += 1; }
                    Step::End(index) if !running.is_empty() => {
                        let at = index.index(running.len());
                        ended.insert(running.swap_remove(at));
                    }
                    Step::End(_) => {}
                    Step::Read => {
                        // As Postgres takes it: xmax is one past the newest that has ended.
                        let xmax = ended.last().map_or(10, |newest| newest + 1);
                        let mut xip: Vec<u64> = running.iter().copied().filter(|xid| *xid < xmax).collect();
                        xip.sort_unstable();
                        let xmin = xip.first().copied().unwrap_or(xmax);
                        let text = format!("{xmin}:{xmax}:{}",
                            xip.iter().map(u64::to_string).collect::<Vec<_>>().join(","));
                        let now: Snapshot = text.parse().unwrap();
                        for xid in ended.iter().filter(|xid| now.sees(**xid) && last.is_new(**xid)) {
                            prop_assert!(read.insert(*xid), "{xid} was read twice");
                        }
                        last = now;
                    }
                }
            }
            prop_assert_eq!(read, ended);
        }
    }
}
