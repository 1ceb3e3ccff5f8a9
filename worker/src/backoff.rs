//! When to try again: a delivery that failed, and a database that is away.

use std::time::Duration;

/// Seconds between attempts where a channel has no `retry_schedule` of its own: ten attempts over
/// about three days (the schedule Standard Webhooks recommends).
pub const DEFAULT_SCHEDULE: [u32; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// A `Retry-After` is honoured up to this; a server that asks for more is asked again sooner.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// How far a delay strays from the schedule, so that what failed together does not return together.
const JITTER: f64 = 0.25;

/// How long to wait after attempt number `attempt` (from 1) failed; `None` where that was the last
/// one the schedule allows.
///
/// `chance` is a random number of `0.0..1.0`. The delay is within a quarter of the schedule's
/// entry, and never shorter than `retry_after`, of which at most an hour counts.
pub fn retry_delay(
    schedule: &[u32],
    attempt: i32,
    retry_after: Option<Duration>,
    chance: f64,
) -> Option<Duration> {
    let index = usize::try_from(attempt).ok()?.checked_sub(1)?;
    let seconds = f64::from(*schedule.get(index)?);
    let jittered = seconds * (1.0 + JITTER * (2.0 * chance.clamp(0.0, 1.0) - 1.0));
    let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
    Some(Duration::from_secs_f64(jittered).max(asked))
}

/// How long to wait before connection attempt number `attempt` (from 1): 100 ms doubling to 2 s,
/// so that Postgres' return is noticed soon and a long outage costs next to nothing.
pub fn reconnect_delay(attempt: u32, chance: f64) -> Duration {
    let base = Duration::from_millis(100) * 2u32.pow(attempt.saturating_sub(1).min(5));
    base.min(Duration::from_secs(2)).mul_f64(1.0 - JITTER * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HALF: f64 = 0.5;

    #[test]
    fn follows_the_schedule_and_ends_with_it() {
        for (attempt, seconds) in (1..).zip(DEFAULT_SCHEDULE) {
            assert_eq!(
                retry_delay(&DEFAULT_SCHEDULE, attempt, None, HALF),
                Some(Duration::from_secs(seconds.into()))
            );
        }
        assert_eq!(retry_delay(&DEFAULT_SCHEDULE, 10, None, HALF), None);
        assert_eq!(retry_delay(&[], 1, None, HALF), None);
        assert_eq!(retry_delay(&[5], 0, None, HALF), None);
        assert_eq!(retry_delay(&[5], -3, None, HALF), None);
    }

    #[test]
    fn retry_after_is_honoured_up_to_an_hour() {
        let cases = [(1, 5), (60, 60), (3_600, 3_600), (3_601, 3_600), (u64::MAX, 3_600)];
        for (asked, expected) in cases {
            assert_eq!(
                retry_delay(&[5], 1, Some(Duration::from_secs(asked)), HALF),
                Some(Duration::from_secs(expected)),
                "Retry-After: {asked}"
            );
        }
    }

    proptest! {
        #[test]
        fn jitter_is_at_most_a_quarter(seconds in 0u32..=u32::MAX, chance in 0.0f64..1.0) {
            let delay = retry_delay(&[seconds], 1, None, chance).unwrap().as_secs_f64();
            let schedule = f64::from(seconds);
            prop_assert!(delay >= schedule * 0.75 - 1e-6 && delay <= schedule * 1.25 + 1e-6);
        }

        #[test]
        fn reconnecting_waits_between_75_ms_and_2_s(attempt in 0u32..=u32::MAX, chance in 0.0f64..1.0) {
            let delay = reconnect_delay(attempt, chance);
            prop_assert!(delay >= Duration::from_millis(75) && delay <= Duration::from_secs(2));
        }
    }
}
