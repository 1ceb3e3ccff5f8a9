//! Randomised histories: many transactions at once that end in every way there is, workers that are
//! stopped, killed, frozen and cut off meanwhile, and a verdict on what the receivers got of it.
//!
//! The plan follows from a seed; how its parts interleave is the machine's affair. So a seed that failed
//! may have to be run several times.

pub mod arrivals;
pub mod emitter;
pub mod faults;
pub mod ledger;
pub mod manners;
pub mod plan;
pub mod verdict;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is asked for by the environment.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `KLAXON_HISTORY_SEED`; a random one without.
    pub seed: u64,
    /// `KLAXON_HISTORY_SECONDS`: for how long transactions are made, at least. Every fault there is
    /// happens once however short it is.
    pub length: Duration,
}

impl Settings {
    /// Reads them.
    ///
    /// # Panics
    /// When one is no number.
    #[must_use]
    pub fn from_env() -> Self {
        let number = |name: &str| {
            std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
        };
        Self {
            seed: number("KLAXON_HISTORY_SEED").unwrap_or_else(|| fastrand::u64(..)),
            length: Duration::from_secs(number("KLAXON_HISTORY_SECONDS").unwrap_or(30)),
        }
    }
}

/// Seconds since 1970: the workers' logs are in this time too.
#[must_use]
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
