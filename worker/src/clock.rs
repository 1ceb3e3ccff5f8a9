//! The database's clock, the only one that schedules, cooldowns and heartbeats are decided by.
//!
//! A worker's host may be off by an hour or a year: its wall clock is never asked. Between two
//! answers of the database, time passes by the monotonic clock.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// Microseconds from the Unix epoch to Postgres' own, 2000-01-01.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A moment by the database's clock, exactly as `timestamptz` stores it: whole microseconds since
/// 2000-01-01 UTC. `infinity` and `-infinity` are its greatest and least values, and order as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbTime(i64);

impl DbTime {
    /// `-infinity`.
    pub const MIN: Self = Self(i64::MIN);

    /// The moment `micros` microseconds after the Unix epoch.
    #[cfg(test)]
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros.saturating_sub(POSTGRES_EPOCH))
    }

    /// Microseconds since 2000-01-01 UTC, as Postgres counts.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Microseconds since the Unix epoch.
    pub fn unix_micros(self) -> i64 {
        self.0.saturating_add(POSTGRES_EPOCH)
    }

    /// The moment `span` later; `infinity` stays so.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to this moment, zero where that is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl<'a> FromSql<'a> for DbTime {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let _ = ty;
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }
    accepts!(TIMESTAMPTZ);
}

impl ToSql for DbTime {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.to_sql(&Type::INT8, out).inspect(|_| {
            let _ = ty;
        })
    }
    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

/// What the database's clock shows now, going by its last answer.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    shown: DbTime,
    at: Instant,
}

impl Clock {
    /// The clock, given what an answer that arrived at `at` says it showed.
    ///
    /// The answer's way back is not added: the clock runs late by that much, so that nothing is
    /// taken for due before the database says so.
    pub fn new(shown: DbTime, at: Instant) -> Self {
        Self { shown, at }
    }

    /// The database's time at `instant`.
    pub fn at(&self, instant: Instant) -> DbTime {
        self.shown.after(instant.saturating_duration_since(self.at))
    }

    /// The local moment at which the database's clock will show `time`, for a timer.
    pub fn instant(&self, time: DbTime) -> Instant {
        const FAR: Duration = Duration::from_secs(86_400);
        self.at + time.since(self.shown).min(FAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_by_the_monotonic_clock() {
        let at = Instant::now();
        let clock = Clock::new(DbTime::from_unix_micros(1_000_000), at);
        assert_eq!(clock.at(at + Duration::from_secs(2)).unix_micros(), 3_000_000);
        assert_eq!(clock.instant(DbTime::from_unix_micros(4_000_000)), at + Duration::from_secs(3));
    }

    #[test]
    fn infinity_is_later_than_everything_and_no_overflow() {
        let infinity = DbTime(i64::MAX);
        assert_eq!(infinity.after(Duration::from_secs(1)), infinity);
        assert!(infinity > DbTime::from_unix_micros(i64::MAX));
        let clock = Clock::new(DbTime(0), Instant::now());
        assert!(clock.instant(infinity) > Instant::now());
        assert_eq!(DbTime::MIN.since(infinity), Duration::ZERO);
    }
}
