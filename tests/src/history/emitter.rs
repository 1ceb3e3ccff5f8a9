//! A client that makes transactions, and finds out what became of each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Error, NoTls};
use uuid::Uuid;

use super::ledger::Ledger;
use super::plan::{End, Kind, Plan, Step};

/// How long a client goes on trying to connect: a crashed server is up again long before that.
const AWAY: Duration = Duration::from_secs(120);
/// The table in which each transaction leaves a mark: whether it was committed can be seen by that even after
/// a crash, when its number may be another's.
pub const MARKS: &str =
    "CREATE TABLE IF NOT EXISTS public.mark (name text); GRANT SELECT, INSERT ON public.mark TO PUBLIC";

/// `application_name` of the sessions, by which faults find them.
pub const APPLICATION: &str = "history";

/// The client.
pub struct Emitter {
    /// The way to the database, which has a table of [`MARKS`].
    pub way: Config,
    /// What is written down.
    pub ledger: Arc<Ledger>,
    /// Its number.
    pub number: usize,
    /// What it does.
    pub rng: Rng,
    /// How long it sleeps when it sleeps long.
    pub nap: Duration,
    /// Whether its role may choose how workers are woken.
    pub chooses: bool,
}

/// A transaction that is not known to have ended.
#[derive(Default)]
struct Open {
    xid: Option<String>,
    /// The events, by the savepoint that they came after.
    levels: Vec<Vec<(Uuid, Kind)>>,
    undone: Vec<Uuid>,
    savepoints: usize,
}

enum Ended {
    Committed,
    RolledBack,
}

impl Emitter {
    /// Makes transactions until told to stop.
    ///
    /// # Panics
    /// When Postgres cannot be reached any more.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut session = self.connect().await;
        let mut made = 0;
        while !*stop.borrow() {
            let plan = Plan::draw(&mut self.rng, self.nap);
            let name = format!("history {} {made}", self.number);
            made += 1;
            if self.transact(&mut session, &plan, &name).await {
                session = self.connect().await;
            }
            let pause = Duration::from_millis(self.rng.u64(..40));
            tokio::select! {
                () = sleep(pause) => {}
                _ = stop.changed() => {}
            }
        }
    }

    async fn connect(&self) -> Client {
        let began = Instant::now();
        loop {
            if let Some(session) = self.try_connect().await {
                return session;
            }
            assert!(began.elapsed() < AWAY, "the server is away for good");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn try_connect(&self) -> Option<Client> {
        let (session, connection) = self.way.connect(NoTls).await.ok()?;
        // Whoever uses the session hears of its end.
        tokio::spawn(async move { drop(connection.await) });
        // It may be ended at once, like any other.
        session.batch_execute(&format!("SET application_name = '{APPLICATION}'")).await.ok()?;
        Some(session)
    }

    /// Makes one. Says whether the session is of no more use.
    async fn transact(&self, session: &mut Client, plan: &Plan, name: &str) -> bool {
        let mut open = Open { levels: vec![vec![]], ..Open::default() };
        let result = attempt(session, plan, name, self.chooses, &mut open).await;
        let mut unheard = false;
        let (ended, lost) = match result {
            Ok(ended) => (ended, plan.end == End::Abandon),
            Err(error) if is_lost(&error) => {
                unheard = true;
                (self.find_out(plan, name, open.xid.as_deref()).await, true)
            }
            // It may have been prepared, and what is refused then is only its end.
            Err(_) if matches!(plan.end, End::Prepare { .. }) => {
                let broken = session.batch_execute("ROLLBACK").await.is_err();
                (self.find_out(plan, name, open.xid.as_deref()).await, broken)
            }
            // Refused, as a serialisation failure is.
            Err(_) => (Ended::RolledBack, session.batch_execute("ROLLBACK").await.is_err()),
        };
        self.ledger.write(|entries| {
            entries.unheard += usize::from(unheard);
            entries.savepoints += open.savepoints;
            entries.rolled_back.extend(open.undone);
            let events = open.levels.into_iter().flatten();
            match ended {
                Ended::Committed => {
                    entries.transactions[0] += 1;
                    entries.prepared += usize::from(matches!(plan.end, End::Prepare { .. }));
                    entries.committed.extend(events);
                }
                Ended::RolledBack => {
                    entries.transactions[1] += 1;
                    for (id, _) in events {
                        entries.rolled_back.insert(id);
                        if unheard {
                            entries.unheard_of.insert(id);
                        }
                    }
                }
            }
        });
        lost
    }

    /// What became of a transaction whose session broke, as the server knows it.
    async fn find_out(&self, plan: &Plan, name: &str, xid: Option<&str>) -> Ended {
        let Some(xid) = xid else { return Ended::RolledBack };
        loop {
            let session = self.connect().await;
            let sql = "SELECT pg_catalog.pg_xact_status($1::text::xid8)";
            let status = session.query_typed(sql, &[(&xid, Type::TEXT)]).await;
            match status.map(|rows| rows[0].get::<_, Option<String>>(0)) {
                Ok(Some(status)) if status == "in progress" => {
                    // Its session has not ended yet, or it is prepared: then it is still ours to end.
                    if let End::Prepare { commit, .. } = plan.end {
                        let _ = session.batch_execute(&finish(commit, name)).await;
                    }
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
                Ok(None) => panic!("transaction {xid} is too old to be known"),
                // A number that the server has not given out, since it crashed.
                Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => {}
                // Ended, too.
                Err(_) => continue,
                Ok(_) => {}
            }
            let sql = "SELECT EXISTS (SELECT FROM public.mark AS m WHERE m.name = $1)";
            match session.query_typed(sql, &[(&name, Type::TEXT)]).await.map(|rows| rows[0].get(0)) {
                Ok(true) => return Ended::Committed,
                Ok(false) => return Ended::RolledBack,
                Err(_) => {}
            }
        }
    }
}

fn is_lost(error: &Error) -> bool {
    const ENDS: [SqlState; 3] =
        [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
    error.as_db_error().is_none_or(|said| ENDS.contains(said.code()))
}

fn finish(commit: bool, name: &str) -> String {
    format!("{} PREPARED '{name}'", if commit { "COMMIT" } else { "ROLLBACK" })
}

async fn attempt(
    session: &mut Client,
    plan: &Plan,
    name: &str,
    chooses: bool,
    open: &mut Open,
) -> Result<Ended, Error> {
    let wakeup = if chooses { format!("SET LOCAL klaxon.wakeup = '{}'", plan.wakeup) } else { String::new() };
    let begin = format!("BEGIN ISOLATION LEVEL {} READ WRITE; {wakeup}", plan.isolation);
    session.batch_execute(&begin).await?;
    let xid = session.query_typed("SELECT pg_catalog.pg_current_xact_id()::text", &[]).await?;
    open.xid = Some(xid[0].get(0));
    session.execute_typed("INSERT INTO public.mark VALUES ($1)", &[(&name, Type::TEXT)]).await?;
    for step in &plan.steps {
        take(session, step, open).await?;
    }
    match plan.end {
        End::Commit => {
            session.batch_execute("COMMIT").await?;
            Ok(Ended::Committed)
        }
        End::RollBack => {
            session.batch_execute("ROLLBACK").await?;
            Ok(Ended::RolledBack)
        }
        End::Fail => {
            let failed = session.batch_execute("SELECT 1 / 0").await;
            if let Err(error) = failed.as_ref()
                && is_lost(error)
            {
                failed?;
            }
            session.batch_execute("COMMIT").await?;
            Ok(Ended::RolledBack)
        }
        // The caller drops the session, and the server rolls back.
        End::Abandon => Ok(Ended::RolledBack),
        End::Prepare { commit, after } => {
            session.batch_execute(&format!("PREPARE TRANSACTION '{name}'")).await?;
            sleep(after).await;
            session.batch_execute(&finish(commit, name)).await?;
            Ok(if commit { Ended::Committed } else { Ended::RolledBack })
        }
    }
}

async fn take(session: &Client, step: &Step, open: &mut Open) -> Result<(), Error> {
    let depth = open.levels.len();
    match step {
        Step::Emit(kind) => {
            let sql = "SELECT klaxon.notify_event($1, '{\"title\": \"one\"}', $2)";
            let named = [(&kind.name as &(dyn ToSql + Sync), Type::TEXT), (&kind.project, Type::TEXT)];
            let rows = session.query_typed(sql, &named).await?;
            open.levels[depth - 1].push((rows[0].get(0), *kind));
        }
        Step::EmitMany(kind, count) => {
            let sql = "INSERT INTO klaxon.event (type, project, payload)
                       SELECT $1, $2, jsonb_build_object('title', n) FROM generate_series(1, $3::bigint) AS n RETURNING id";
            let many = [
                (&kind.name as &(dyn ToSql + Sync), Type::TEXT),
                (&kind.project, Type::TEXT),
                (count, Type::INT8),
            ];
            let rows = session.query_typed(sql, &many).await?;
            open.levels[depth - 1].extend(rows.iter().map(|row| (row.get(0), *kind)));
        }
        Step::Catch(kind) => {
            let Kind { name, project } = kind;
            session
                .batch_execute(&format!(
                    "DO $$ BEGIN
                         PERFORM klaxon.notify_event('{name}', project => '{project}');
                         RAISE division_by_zero;
                     EXCEPTION WHEN division_by_zero THEN NULL;
                     END $$"
                ))
                .await?;
        }
        Step::Savepoint => {
            session.batch_execute(&format!("SAVEPOINT s{depth}")).await?;
            open.levels.push(vec![]);
        }
        Step::RollBackTo => {
            session.batch_execute(&format!("ROLLBACK TO s{}", depth - 1)).await?;
            let undone: Vec<_> = open.levels[depth - 1].drain(..).map(|(id, _)| id).collect();
            open.savepoints += usize::from(!undone.is_empty());
            open.undone.extend(undone);
        }
        Step::Release => {
            session.batch_execute(&format!("RELEASE s{}", depth - 1)).await?;
            let kept = open.levels.pop().unwrap_or_default();
            open.levels[depth - 2].extend(kept);
        }
        Step::Sleep(time) => sleep(*time).await,
    }
    Ok(())
}
