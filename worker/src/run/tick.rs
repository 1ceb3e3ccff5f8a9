//! What happens because time passes: agents that fell silent, digests that are due, tasks that are slow.
//!
//! On a session of its own: what watched tables run when they are looked at is other people's code, and takes as
//! long as it likes. No delivery waits for it, and the session whose locks own the shards does not meet it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Error};

use crate::database::{Session, Target, describe};
use crate::statement::reason;

/// What is klaxon's own, each in a transaction of its own, so that one's failure is not the others'.
const OWN: [&str; 2] = ["SELECT klaxon.expire_agents()", "SELECT klaxon.gather_digests()"];
/// The same about once a minute: they read the whole of what they tidy.
const TIDYING: [&str; 3] =
    ["SELECT klaxon.tidy_cooldowns()", "SELECT klaxon.tidy_tests()", "SELECT klaxon.tidy_watchers()"];
/// Below a minute, in which the heartbeat has the clock tick at least once.
const UNTIDY: Duration = Duration::from_secs(50);
/// For what is klaxon's own, which is bounded but may be much.
const OWN_LIMITS: &str = "SET jit = off; SET statement_timeout = '20s'; SET lock_timeout = '5s'";
/// For what is not.
const WATCHED_LIMITS: &str = "SET statement_timeout = '5s'; SET lock_timeout = '1s'";
/// Session-level locks outlive what took them: those that other people's code took are given back.
const GIVE_BACK: &str = "SELECT pg_advisory_unlock_all()";
/// Where the server can, it ends a statement whose client has gone: code may catch the cancel of a `statement_timeout`.
const ORPHANS_END: &str = "SET client_connection_check_interval = '2s'";
/// How long Postgres may take to answer: more than its own `statement_timeout`.
const DEADLINE: Duration = Duration::from_secs(25);
/// The same of a watched table.
const PATIENCE: Duration = Duration::from_secs(8);
/// After a session that was lost, or was not to be had.
const PAUSE: Duration = Duration::from_secs(5);
/// What is klaxon's own is looked at again where watched tables have taken this long.
const LONG: Duration = Duration::from_secs(1);
/// How long a watched table is left alone after its first failure in a row, and at most.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(300);

/// Its session. It ends at once, whatever the server does on it.
struct Link {
    client: Client,
    connection: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The clock of one database.
struct Clock {
    target: Target,
    rests: HashMap<i64, Rest>,
    tidied_at: Option<Instant>,
}

/// How a watched table is left alone.
#[derive(Clone, Copy)]
struct Rest {
    until: Instant,
    /// Failures in a row.
    failures: u32,
    /// Whether it took long the last time, and succeeded.
    slow: bool,
}

/// Has the clock tick whenever told to.
pub async fn keep(target: Target, tick: Arc<Notify>) {
    let mut clock = Clock { target, rests: HashMap::new(), tidied_at: None };
    let mut session = None;
    loop {
        tick.notified().await;
        if let Err(error) = clock.tick(&mut session).await {
            let error = format!("{error:#}");
            tracing::warn!(database = clock.target.name(), error, "the clock did not tick");
            session = None;
            sleep(PAUSE).await;
        }
    }
}

impl Clock {
    /// Looks at everything once. An error is the end of the session.
    async fn tick(&mut self, session: &mut Option<Link>) -> anyhow::Result<()> {
        let client = match session {
            Some(link) => &link.client,
            None => {
                let Session { client, connection, .. } = self.target.connect().await?;
                let client = &session.insert(Link { client, connection }).client;
                if let Err(error) = ask(client, PATIENCE, client.batch_execute(ORPHANS_END)).await? {
                    tracing::debug!(reason = reason(&error), "the server does not end what nobody waits for");
                }
                client
            }
        };
        self.look_after_own(client).await?;
        let polled = "SELECT id, target FROM klaxon.polled_watchers()";
        let mut tables = Vec::new();
        match ask(client, DEADLINE, client.query(polled, &[])).await? {
            Ok(rows) => {
                for row in rows {
                    tables.push((row.try_get(0)?, row.try_get(1)?));
                }
            }
            Err(error) => tracing::warn!(
                database = self.target.name(),
                reason = reason(&error),
                "watched tables were not looked at"
            ),
        }
        self.rests.retain(|id, _| tables.iter().any(|(table, _)| table == id));
        let mut looked_at = Instant::now();
        for (id, table) in turn(&self.rests, tables, looked_at) {
            self.look_at(client, id, &table).await?;
            if looked_at.elapsed() > LONG {
                self.look_after_own(client).await?;
                looked_at = Instant::now();
            }
        }
        Ok(())
    }

    async fn look_after_own(&mut self, client: &Client) -> anyhow::Result<()> {
        ask(client, DEADLINE, client.batch_execute(OWN_LIMITS)).await??;
        let untidy = self.tidied_at.is_none_or(|at| at.elapsed() >= UNTIDY);
        if untidy {
            self.tidied_at = Some(Instant::now());
        }
        for part in OWN.into_iter().chain(TIDYING.into_iter().filter(|_| untidy)) {
            if let Err(error) = ask(client, DEADLINE, client.batch_execute(part)).await? {
                let reason = reason(&error);
                tracing::warn!(database = self.target.name(), part, reason, "a part of the clock failed");
            }
        }
        ask(client, DEADLINE, client.batch_execute(WATCHED_LIMITS)).await??;
        Ok(())
    }

    /// Looks at one table. That it costs the session is the table's failure like any other.
    async fn look_at(&mut self, client: &Client, id: i64, table: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        let looked = poll(client, id).await;
        let failed = match &looked {
            Ok(failed) => failed.clone(),
            Err(error) => Some(format!("{error:#}")),
        };
        let failures = failed.as_ref().map_or(0, |_| self.rests.get(&id).map_or(0, |rest| rest.failures) + 1);
        let took = began.elapsed();
        let pause = pause(failures, took);
        self.rests.insert(id, Rest { until: Instant::now() + pause, failures, slow: took > LONG });
        if let Some(reason) = failed {
            let (database, seconds) = (self.target.name(), pause.as_secs());
            tracing::warn!(database, table, reason, seconds, "a watched table is left alone for a while");
        }
        looked.map(drop)
    }
}

/// The tables whose turn it is: those that are well, and of those that failed or took long the one that has waited
/// longest, so that however many there are, they hold up the others by no more than one does.
fn turn(rests: &HashMap<i64, Rest>, tables: Vec<(i64, String)>, now: Instant) -> Vec<(i64, String)> {
    let rest = |id: &i64| rests.get(id).copied().unwrap_or(Rest { until: now, failures: 0, slow: false });
    let rested = tables.into_iter().filter(|(id, _)| rest(id).until <= now);
    let (mut turn, ill): (Vec<_>, Vec<_>) =
        rested.partition(|(id, _)| rest(id).failures == 0 && !rest(id).slow);
    turn.extend(ill.into_iter().min_by_key(|(id, _)| rest(id).until));
    turn
}

/// Has one table looked at. Returns what came in between, if anything.
async fn poll(client: &Client, id: i64) -> anyhow::Result<Option<String>> {
    let looked = ask(client, PATIENCE, client.query_one("SELECT klaxon.poll_watcher($1)", &[&id])).await?;
    ask(client, PATIENCE, client.batch_execute(GIVE_BACK)).await??;
    match looked {
        Err(error) => Ok(Some(reason(&error))),
        Ok(row) => {
            let state: Option<String> = row.try_get(0)?;
            Ok(state.map(|state| format!("see klaxon.watcher_error ({state})")))
        }
    }
}

/// How long a table is left alone that has failed so often in a row; or, if it has not, for how long what takes long
/// lets the others have their turn.
fn pause(failures: u32, took: Duration) -> Duration {
    match failures {
        0 => took * 10,
        _ => (FIRST_REST * 2u32.saturating_pow(failures.min(10) - 1)).min(LONGEST_REST),
    }
}

/// What Postgres answers. An error of the outer kind is the end of the session, one of the inner kind a refusal.
async fn ask<T>(
    client: &Client,
    deadline: Duration,
    question: impl Future<Output = Result<T, Error>>,
) -> anyhow::Result<Result<T, Error>> {
    match timeout(deadline, question).await {
        Err(_) => bail!("no answer from postgres within {} s", deadline.as_secs()),
        Ok(Err(error)) if client.is_closed() || error.code().is_none() => Err(describe(error)),
        Ok(answer) => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_tables_that_fail_or_take_long_one_has_its_turn_with_those_that_are_well() {
        let now = Instant::now();
        let rest = |ago, failures, slow| Rest { until: now - Duration::from_secs(ago), failures, slow };
        let rests = HashMap::from([
            (1, rest(1, 0, true)),
            (2, rest(3, 0, true)),
            (3, rest(2, 1, false)),
            (4, rest(0, 0, false)),
            (5, Rest { until: now + PAUSE, failures: 0, slow: false }),
        ]);
        let tables = (1..=6).map(|id| (id, String::new())).collect();
        let ids: Vec<i64> = turn(&rests, tables, now).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [4, 6, 2]);
    }

    #[test]
    fn a_table_that_fails_is_left_alone_for_twice_as_long_each_time() {
        let pauses: Vec<u64> = (1..=9).map(|failures| pause(failures, LONG).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(pause(u32::MAX, LONG), LONGEST_REST);
        assert_eq!(pause(0, Duration::from_millis(20)), Duration::from_millis(200));
    }
}
