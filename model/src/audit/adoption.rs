//! A log that another deployment began: a copy of a database, adopted, goes on with it as a chain of its own.
//!
//! From there on the chain has another id, so that no row of the copy passes for one of the original, whichever
//! keys both have. Where the chain goes on stands a record, of kind `adoption`, under a key of who adopted it.
//! What stands before is verified where its key is held; where it is not, it is somebody else's to verify, and
//! is said to be, which is no finding: only a record that a key of ours vouches for says so.

use serde::{Deserialize, Serialize};

use super::Record;

/// What an `adoption` record's detail says of the log before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// The deployment whose log it was; `None` where the database did not say.
    pub deployment: Option<String>,
    /// The id its chain had, as Postgres prints a UUID.
    pub chain: String,
    /// Its last row.
    pub seq: i64,
    /// That row's MAC in hexadecimal.
    pub mac: String,
    /// The key that its next row was to be under.
    pub key_id: String,
}

impl Adoption {
    /// Reads the record that stands at `seq`; none where it speaks of other rows than those before it.
    #[must_use]
    pub fn read(seq: i64, detail: &str) -> Option<Self> {
        serde_json::from_str(detail).ok().filter(|read: &Self| read.seq.checked_add(1) == Some(seq))
    }

    /// The detail of its record.
    ///
    /// # Panics
    /// Never: texts and a number are JSON.
    #[must_use]
    pub fn detail(&self) -> String {
        serde_json::to_string(self).expect("texts and a number are JSON")
    }

    fn chain(&self) -> Option<[u8; 16]> {
        hex::decode(self.chain.replace('-', "")).ok()?.try_into().ok()
    }
}

/// Rows that stand before an adoption's record.
struct Era {
    through: i64,
    chain: Option<[u8; 16]>,
    /// Whether its key is held, so that its rows are verified like our own.
    held: bool,
    first: Option<i64>,
    /// Whether a MAC vouches for the record that speaks of it.
    vouched: bool,
}

/// Who wrote what of the log, in order.
pub struct Eras {
    eras: Vec<Era>,
    /// The era of the row that was met last; past the end in our own.
    at: usize,
}

/// What a row is to be judged by.
pub struct Place {
    /// The chain that it must be of.
    pub chain: [u8; 16],
    /// Whether the key is held.
    pub held: bool,
}

impl Eras {
    pub fn new(mut adoptions: Vec<Adoption>, is_held: impl Fn(&str) -> bool) -> Self {
        adoptions.sort_by_key(|adoption| adoption.seq);
        let eras = adoptions
            .iter()
            .map(|adoption| Era {
                through: adoption.seq,
                chain: adoption.chain(),
                held: is_held(&adoption.key_id),
                first: None,
                vouched: false,
            })
            .collect();
        Self { eras, at: 0 }
    }

    /// Where a row stands, and whether it is the first past the end of an era: of one that was held, or not.
    pub fn meet(&mut self, seq: i64, own: [u8; 16]) -> (Place, Option<bool>) {
        let mut passed = None;
        while let Some(era) = self.eras.get(self.at).filter(|era| era.through < seq) {
            passed = Some(era.held);
            self.at += 1;
        }
        let place = match self.eras.get_mut(self.at) {
            None => Place { chain: own, held: true },
            Some(era) => {
                era.first.get_or_insert(seq);
                Place { chain: era.chain.unwrap_or(own), held: era.held }
            }
        };
        (place, passed)
    }

    /// The chain that row `seq` is of.
    pub fn chain_of(&self, seq: i64, own: [u8; 16]) -> [u8; 16] {
        self.eras.iter().find(|era| seq <= era.through).and_then(|era| era.chain).unwrap_or(own)
    }

    /// Whether the key of that row's era is held.
    pub fn is_held(&self, seq: i64) -> bool {
        self.eras.iter().find(|era| seq <= era.through).is_none_or(|era| era.held)
    }

    /// Takes an adoption's record that a MAC vouches for.
    pub fn heed(&mut self, row: &Record<'_>) {
        for era in &mut self.eras {
            era.vouched |= era.through.checked_add(1) == Some(row.seq);
        }
    }

    /// The first rows of eras that no record accounts for.
    pub fn unaccounted(&self) -> impl Iterator<Item = i64> {
        self.eras.iter().filter(|era| !era.vouched).filter_map(|era| era.first)
    }

    /// The first and the last row of what is not ours to verify.
    pub fn not_ours(&self) -> Option<(i64, i64)> {
        let mut others = self.eras.iter().filter(|era| !era.held && era.vouched);
        let first = others.clone().find_map(|era| era.first)?;
        Some((first, others.next_back()?.through))
    }
}
