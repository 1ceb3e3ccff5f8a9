//! Which shards are this worker's: the advisory locks its session holds.
//!
//! What each worker wants follows from the list of the living alone, so workers agree without talking
//! to one another; and since a lock has one holder, it does no harm while they do not yet agree.

use std::time::{Duration, Instant};

use futures_util::future::join;
use tokio_postgres::{Client, Error, ToStatement};
use uuid::Uuid;

use crate::caution::{self, Record};
use crate::clock::{Clock, DbTime};
use crate::schedule::{SHARDS, Shards};
use crate::statement::Statements;

/// The first half of the advisory locks' keys; the second is the shard. "klax" in ASCII.
const LOCK_CLASS: i32 = 0x6b6c_6178;
/// How often a worker shows that it is alive.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence after which a worker is taken for dead, in seconds of the database's clock.
const SILENCE: f64 = 10.0;
/// The same of one whose session has ended: long enough for it to come back, if it is only that.
const ABSENCE: f64 = 2.0;

/// What a heartbeat was answered.
#[derive(Debug)]
pub struct Roll {
    /// Whether this worker is still registered: one that is not was declared dead.
    pub registered: bool,
    /// Workers that are alive, in ascending order.
    pub living: Vec<Uuid>,
    /// Workers that are silent, or gone.
    pub silent: Vec<Silent>,
    /// Whether the log has records of its own to take.
    pub journal: bool,
    /// Whether what happens because time passes is due, and this worker's to see to.
    pub tick: bool,
    /// Whether statements do not run in the session that owns the shards, or another worker's run in it.
    pub astray: bool,
    /// Whether somebody waits for a configuration to be tested.
    pub tests: bool,
    /// The schema's version.
    pub schema: Option<String>,
    /// The database's clock.
    pub clock: Option<Clock>,
}

/// A worker that is taken for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent {
    /// The worker.
    pub worker: Uuid,
    /// When it was last heard from.
    pub heard_at: DbTime,
}

/// A worker that was ended because it was silent.
#[derive(Debug)]
pub struct Fenced {
    /// Where it ran.
    pub host: String,
    /// Whether its session was there to be ended.
    pub ended: bool,
}

/// The shards that worker `me` should own: of `n` living workers the one of rank `r` has every `n`th
/// shard from `r` on.
pub fn wanted(me: Uuid, living: &[Uuid]) -> Shards {
    let Some(rank) = living.iter().position(|worker| *worker == me) else { return Shards::default() };
    (0..i16::from(SHARDS))
        .filter(|shard| usize::try_from(*shard).is_ok_and(|s| s % living.len() == rank))
        .collect()
}

/// Shows a sign of life and calls the roll. `notified` says that a notification has arrived, so that
/// people can see whether they do; `first`, that the worker had no session before this one.
///
/// # Errors
///
/// Where the session breaks.
pub async fn heartbeat(
    client: &Client,
    statements: &Statements,
    me: Uuid,
    owned: Shards,
    notified: bool,
    first: bool,
) -> Result<Roll, Error> {
    let owned = as_integers(owned);
    let rows =
        client.query(&statements.heartbeat, &[&me, &owned, &SILENCE, &notified, &ABSENCE, &first]).await?;
    let mut roll = Roll {
        registered: false,
        living: Vec::new(),
        silent: Vec::new(),
        journal: false,
        tick: false,
        astray: false,
        tests: false,
        schema: None,
        clock: None,
    };
    for row in &rows {
        let shown: DbTime = row.try_get("now")?;
        roll.clock = Some(Clock::new(shown, Instant::now()));
        roll.registered = row.try_get("registered")?;
        roll.journal = row.try_get("journal")?;
        roll.tick = row.try_get("tick")?;
        roll.tests = row.try_get("tests")?;
        roll.schema = row.try_get("schema")?;
        let (worker, alive) = (row.try_get("id")?, row.try_get("alive")?);
        roll.astray |= alive && row.try_get("astray")?;
        if alive {
            roll.living.push(worker);
        } else {
            roll.silent.push(Silent { worker, heard_at: row.try_get("heartbeat_at")? });
        }
    }
    roll.living.sort_unstable();
    Ok(roll)
}

/// Ends the session of a worker that is silent, if it has one, and forgets it. `None` where it came back, or somebody
/// else was faster.
///
/// # Errors
///
/// Where the session breaks, or may not end that one.
pub async fn fence(
    client: &Client,
    statements: &Statements,
    Silent { worker, heard_at }: Silent,
) -> Result<Option<Fenced>, Error> {
    let row = client.query_opt(&statements.fence, &[&worker, &heard_at]).await?;
    row.map(|row| Ok(Fenced { host: row.try_get("host")?, ended: row.try_get("ended")? })).transpose()
}

/// Locks those of `shards` that nobody holds, for worker `me`. Returns what is on record of each.
///
/// # Errors
///
/// Where the session breaks.
pub async fn lock(
    client: &Client,
    statements: &Statements,
    me: Uuid,
    shards: Shards,
) -> Result<Vec<Record>, Error> {
    let memory = caution::MEMORY.as_secs_f64();
    let rows = client.query(&statements.lock, &[&LOCK_CLASS, &as_integers(shards), &me, &memory]).await?;
    let record = |row: &tokio_postgres::Row| {
        let shard: i32 = row.try_get("shard")?;
        let (deaths, died_at) = (row.try_get("deaths")?, row.try_get("died_at")?);
        Ok(i16::try_from(shard).ok().map(|shard| Record { shard, deaths, died_at }))
    };
    rows.iter().filter_map(|row| record(row).transpose()).collect()
}

/// Gives up `shards` of worker `me`, after everything of them is settled. First it is written that they are
/// given up: in one statement the next owner could have the lock before that is committed, and take this
/// worker for dead. One round trip all the same.
///
/// # Errors
///
/// Where the session breaks.
pub async fn unlock(
    client: &Client,
    statements: &Statements,
    me: Uuid,
    shards: Shards,
) -> Result<Shards, Error> {
    let shards = as_integers(shards);
    let (given_up, unlocked) = join(
        client.execute(&statements.give_up, &[&me, &shards]),
        client.query(&statements.unlock, &[&LOCK_CLASS, &shards]),
    )
    .await;
    given_up?;
    as_shards(&unlocked?)
}

/// A session that has the locks of shards, and is no worker's.
#[derive(Debug)]
pub struct Holder {
    /// `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// Whose it is, where Postgres says so.
    pub role: Option<String>,
    /// How many it has.
    pub shards: i64,
}

/// Who holds `shards` without being a worker, by `holders.sql`.
///
/// # Errors
///
/// Where the session breaks.
pub async fn holders(
    client: &Client,
    statement: &(impl ToStatement + ?Sized + Sync),
    shards: Shards,
) -> Result<Vec<Holder>, Error> {
    let rows = client.query(statement, &[&LOCK_CLASS, &as_integers(shards)]).await?;
    let holder = |row: &tokio_postgres::Row| {
        Ok(Holder { pid: row.try_get("pid")?, role: row.try_get("role")?, shards: row.try_get("shards")? })
    };
    rows.iter().map(holder).collect()
}

/// Puts on record that these shards of worker `me` are worked with care no longer.
///
/// # Errors
///
/// Where the session breaks.
pub async fn trust(client: &Client, statements: &Statements, me: Uuid, shards: Shards) -> Result<(), Error> {
    client.execute(&statements.trust, &[&me, &as_integers(shards), &caution::TRUSTED]).await.map(drop)
}

fn as_integers(shards: Shards) -> Vec<i32> {
    shards.iter().map(i32::from).collect()
}

fn as_shards(rows: &[tokio_postgres::Row]) -> Result<Shards, Error> {
    let shards = rows.iter().map(|row| row.try_get::<_, i32>(0)).collect::<Result<Vec<_>, _>>()?;
    Ok(shards.into_iter().filter_map(|shard| i16::try_from(shard).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_shared_evenly_and_completely() {
        for count in 1..=70u128 {
            let living: Vec<Uuid> = (1..=count).map(Uuid::from_u128).collect();
            let shares: Vec<Shards> = living.iter().map(|me| wanted(*me, &living)).collect();
            let mut all = Shards::default();
            for share in &shares {
                assert!(all.without(*share) == all, "two of {count} workers want the same shard");
                all = all.union(*share);
            }
            assert_eq!(all.iter().count(), usize::from(SHARDS));
            let sizes: Vec<usize> = shares.iter().map(|share| share.iter().count()).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }

    #[test]
    fn a_stranger_wants_nothing() {
        assert!(wanted(Uuid::from_u128(9), &[Uuid::from_u128(1)]).is_empty());
        assert!(wanted(Uuid::from_u128(9), &[]).is_empty());
    }
}
