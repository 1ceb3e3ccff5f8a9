//! A circuit breaker: a channel that does not answer is left alone for a while, so that what waits
//! for it burns no attempts.

use std::time::Duration;

use crate::clock::DbTime;

/// Failures in a row that open it.
const THRESHOLD: u32 = 10;
/// How long it stays open the first time; doubled each time the probe fails.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// How long it stays open at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What an attempt says about the channel, as opposed to about the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered, if only to refuse this message.
    Answers,
    /// It did, but took its time.
    Lags,
    /// It could not be reached, did not answer in time, or said that it is out of order (5xx).
    Fails,
}

/// Whether a delivery may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// As many as the bounds allow.
    Open,
    /// One, to see whether the channel is back.
    Probe,
    /// None before this moment.
    Shut(DbTime),
}

/// The breaker of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circuit {
    failures: u32,
    pauses: u32,
    until: Option<DbTime>,
}

impl Circuit {
    /// Whether it has nothing to remember, so that it may be forgotten.
    pub fn is_pristine(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a delivery may be sent at `now`.
    pub fn gate(&self, now: DbTime) -> Gate {
        match self.until {
            None => Gate::Open,
            Some(until) if now < until => Gate::Shut(until),
            Some(_) => Gate::Probe,
        }
    }

    /// Takes in how an attempt went. Attempts that were on their way when the breaker opened may
    /// still close it, but do not lengthen the pause.
    pub fn record(&mut self, health: Health, now: DbTime) {
        match health {
            Health::Answers | Health::Lags => *self = Self::default(),
            Health::Fails => {
                self.failures = self.failures.saturating_add(1);
                let probe_failed = matches!(self.gate(now), Gate::Probe);
                let first = self.until.is_none() && self.failures >= THRESHOLD;
                if first || probe_failed {
                    let pause = FIRST_PAUSE * 2u32.pow(self.pauses.min(8));
                    self.pauses += 1;
                    self.until = Some(now.after(pause.min(LONGEST_PAUSE)));
                }
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

    fn opened_at(seconds: i64) -> Circuit {
        let mut circuit = Circuit::default();
        for _ in 0..THRESHOLD {
            assert_eq!(circuit.gate(at(seconds)), Gate::Open);
            circuit.record(Health::Fails, at(seconds));
        }
        circuit
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let mut circuit = Circuit::default();
        for _ in 0..5 {
            for _ in 1..THRESHOLD {
                circuit.record(Health::Fails, at(0));
            }
            circuit.record(Health::Answers, at(0));
        }
        assert_eq!(circuit.gate(at(0)), Gate::Open);
        assert!(circuit.is_pristine());
        assert_eq!(opened_at(0).gate(at(29)), Gate::Shut(at(30)));
    }

    #[test]
    fn probes_and_doubles_its_pause_up_to_five_minutes() {
        let mut circuit = opened_at(0);
        let mut now = 30;
        for pause in [60, 120, 240, 300, 300] {
            assert_eq!(circuit.gate(at(now)), Gate::Probe);
            circuit.record(Health::Fails, at(now));
            assert_eq!(circuit.gate(at(now)), Gate::Shut(at(now + pause)));
            now += pause;
        }
        circuit.record(Health::Answers, at(now));
        assert!(circuit.is_pristine());
    }

    #[test]
    fn stragglers_do_not_lengthen_the_pause() {
        let mut circuit = opened_at(0);
        circuit.record(Health::Fails, at(10));
        circuit.record(Health::Fails, at(11));
        assert_eq!(circuit.gate(at(12)), Gate::Shut(at(30)));
    }
}
