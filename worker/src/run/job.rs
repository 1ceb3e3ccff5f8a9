//! What the engine asks of its session: one thing at a time, each with a deadline.
//!
//! One at a time because a session has one transaction: a read between a batch's BEGIN and COMMIT
//! would see rows that may yet roll back. And because everything that is read and written then has an
//! order, which is what the schedule's bookkeeping rests on.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::Shared;
use super::test::{self, Tested};
use crate::caution::Record;
use crate::channel::Channel;
use crate::clock::{Clock, DbTime};
use crate::cooldown::{self, Decided, Question};
use crate::directory::{self, Loaded, Request};
use crate::discover::{self, Discovery, ReadError, Snapshot};
use crate::journal;
use crate::ownership::{self, Fenced, HEARTBEAT, Holder, Roll, Silent};
use crate::schedule::{Ask, Fetched, Shards};
use crate::settle::{self, Intent, Log, Outcome, SettleError, Settled, Written};
use crate::statement::{Statements, reason};

/// How long Postgres may take to answer. Its own `statement_timeout` is shorter: this one is for a
/// connection that goes nowhere, which a heartbeat finds within 10 s.
pub const DEADLINE: Duration = Duration::from_secs(8);
const _: () = assert!(HEARTBEAT.as_secs() + DEADLINE.as_secs() < 10);

/// The session that owns this worker's shards of one database.
#[derive(Debug)]
pub struct Database {
    /// The session.
    pub client: Client,
    /// Its prepared statements.
    pub statements: Statements,
    /// The version of the schema that they were prepared for.
    pub schema: String,
}

/// Why the session is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Postgres ended it, or refused what must not be refused.
    #[error("{}", reason(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A read failed.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// The log was not written.
    #[error("{0}")]
    Log(#[from] SettleError),
    /// The answer did not come.
    #[error("no answer from postgres within {} s", DEADLINE.as_secs())]
    Silent,
    /// Other workers have declared this one dead.
    #[error("this worker was taken for dead by another")]
    Fenced,
    /// A pooler lends the session to others, or others' to this worker.
    #[error(
        "statements run in another session than the one that owns the shards: is there a pooler in between?"
    )]
    Astray,
    /// Locks it had are gone: somebody's code gave them away in this session, and which others is not known.
    #[error("locks of the session's were given away in it")]
    Unlocked,
    /// The schema is of another version than it was: whether this worker does with that one is to be seen, and its
    /// statements are to be prepared anew.
    #[error("the schema was updated")]
    Updated,
    /// It closed while nothing was asked of it.
    #[error("the connection closed")]
    Closed,
}

impl Lost {
    /// Whether it is because the schema was updated. Where a statement's result has another type since, Postgres
    /// says so before the next heartbeat does.
    pub fn is_of_an_update(&self) -> bool {
        match self {
            Self::Updated => true,
            Self::Database(error) | Self::Read(ReadError::Database(error)) => {
                error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED)
            }
            _ => false,
        }
    }
}

/// Why a channel is to be disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// What it answered says that there is none.
    Gone(String),
    /// It has only failed, for days.
    Fails,
}

impl Display for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(said) => f.write_str(said),
            Self::Fails => f.write_str("has only failed for five days"),
        }
    }
}

/// Something to ask.
#[derive(Debug)]
pub enum Job {
    /// Show a sign of life.
    Beat { worker: Uuid, owned: Shards, notified: bool, first: bool },
    /// End a silent worker.
    Fence(Silent),
    /// Take shards, and see where their channels begin. With `afresh`, reading begins here too.
    Lock { worker: Uuid, wanted: Shards, afresh: bool },
    /// Say who has shards that this worker should have.
    TellOfHolders(Shards),
    /// Hand over shards.
    Unlock { worker: Uuid, shards: Shards },
    /// Read what is new.
    Discover { last: Snapshot, owned: Shards, room: (usize, usize) },
    /// Read what waits.
    Refill { asks: Vec<Ask>, bytes: usize },
    /// Settle the cooldowns that these deliveries wait for.
    Cooldowns(Vec<Question>),
    /// Count attempts before they are made.
    Count(Vec<Intent>),
    /// Put on record that shards are worked with care no longer.
    Trust { worker: Uuid, shards: Shards },
    /// Write outcomes.
    Settle { outcomes: Arc<Vec<Outcome>>, log: Arc<Log>, written: Written },
    /// Read channels, projects and event types.
    Load(Request),
    /// Disable a channel.
    Disable { channel_id: i64, cause: Cause },
    /// Take configurations to be tested.
    TakeTests,
    /// Say what came of one.
    AnswerTest(Tested),
    /// Write the log's own records.
    Journal { worker: Uuid },
    /// Go.
    Leave { worker: Uuid, owned: Shards },
}

/// What was answered.
#[derive(Debug)]
pub enum Answer {
    /// To a heartbeat.
    Roll(Roll),
    /// To a fence.
    Fenced(Uuid, Option<Fenced>),
    /// To a lock: what was free, where its channels begin, and where reading begins if afresh.
    Locked { records: Vec<Record>, begins: Vec<(i64, DbTime)>, start: Option<(Snapshot, Clock)> },
    /// To an unlock.
    Unlocked(Shards),
    /// To a read of what is new.
    News(Discovery),
    /// To a read of what waits.
    Rows { asks: Vec<Ask>, rows: Vec<Fetched>, clock: Option<Clock> },
    /// To cooldowns: what was decided, or why nothing was.
    Cooldowns(Result<Decided, tokio_postgres::Error>),
    /// To attempts to be counted: how many, and when those are due again that were.
    Counted { asked: usize, due: HashMap<Uuid, DbTime> },
    /// To a batch.
    Settled(Result<Settled, SettleError>, Written),
    /// To a load.
    Loaded(Loaded),
    /// To a disabling: the channel's name, if it was enabled until now.
    Disabled { channel_id: i64, name: Option<String>, cause: Cause },
    /// To a disabling that is to be asked for again.
    StillEnabled { channel_id: i64, cause: Cause },
    /// To a disabling of a channel that is not to be any more.
    Spared,
    /// To configurations to be tested.
    Tests(Vec<(Uuid, Channel)>),
    /// To what came of one.
    TestAnswered,
    /// To shards that are trusted.
    Trusted,
    /// To who has shards.
    ToldOfHolders,
    /// To the log's own records: whether there are more.
    Journaled(bool),
    /// To the last.
    Left,
}

/// A job that is being done.
pub type Doing = Pin<Box<dyn Future<Output = Result<Answer, Lost>> + Send>>;

/// Begins a job.
pub fn begin(database: Arc<Database>, shared: Arc<Shared>, job: Job) -> Doing {
    Box::pin(
        async move { timeout(DEADLINE, perform(&database, &shared, job)).await.map_err(|_| Lost::Silent)? },
    )
}

async fn perform(database: &Database, shared: &Shared, job: Job) -> Result<Answer, Lost> {
    let Database { client, statements, schema } = database;
    Ok(match job {
        Job::Beat { worker, owned, notified, first } => {
            let roll = ownership::heartbeat(client, statements, worker, owned, notified, first).await?;
            if roll.schema.as_ref().is_some_and(|now| now != schema) {
                return Err(Lost::Updated);
            }
            Answer::Roll(roll)
        }
        Job::Fence(silent) => {
            Answer::Fenced(silent.worker, ownership::fence(client, statements, silent).await?)
        }
        Job::Lock { worker, wanted, afresh } => {
            let start = if afresh { Some(discover::start(client, statements).await?) } else { None };
            let records = ownership::lock(client, statements, worker, wanted).await?;
            let shards = records.iter().map(|record| record.shard).collect();
            let begins = discover::first_due(client, statements, shards).await?;
            Answer::Locked { records, begins, start }
        }
        Job::TellOfHolders(shards) => {
            for holder in ownership::holders(client, &statements.holders, shards).await? {
                let Holder { pid, role, shards } = holder;
                let what = "a session that is no worker's has the locks of shards: nobody delivers them";
                tracing::warn!(pid, role, shards, "{what}");
            }
            Answer::ToldOfHolders
        }
        Job::Unlock { worker, shards } => {
            if ownership::unlock(client, statements, worker, shards).await? != shards {
                return Err(Lost::Unlocked);
            }
            Answer::Unlocked(shards)
        }
        Job::Discover { last, owned, room } => {
            Answer::News(discover::discover(client, statements, &last, owned, room).await?)
        }
        Job::Refill { asks, bytes } => {
            let (rows, clock) = discover::refill(client, statements, &asks, bytes).await?;
            Answer::Rows { asks, rows, clock }
        }
        Job::Cooldowns(waiting) => match cooldown::settle(client, statements, &waiting).await {
            Err(error) if client.is_closed() => return Err(error.into()),
            result => Answer::Cooldowns(result),
        },
        Job::Count(intents) => {
            let due = settle::count(client, statements, &intents).await?;
            Answer::Counted { asked: intents.len(), due }
        }
        Job::Trust { worker, shards } => {
            ownership::trust(client, statements, worker, shards).await?;
            Answer::Trusted
        }
        Job::Settle { outcomes, log, mut written } => {
            let result = settle::settle(client, statements, &log, &outcomes, &mut written).await;
            match result {
                Err(SettleError::Database(error)) if client.is_closed() => return Err(error.into()),
                Err(missing @ SettleError::MissingKey(_)) => return Err(missing.into()),
                result => Answer::Settled(result, written),
            }
        }
        Job::Load(request) => {
            Answer::Loaded(directory::load(client, statements, &shared.keyring, request).await?)
        }
        Job::Disable { channel_id, cause } => {
            let (why, fails) = (cause.to_string(), cause == Cause::Fails);
            match client.query_one(&statements.disable, &[&channel_id, &why, &fails]).await {
                Err(error) if client.is_closed() => return Err(error.into()),
                Err(error) => {
                    tracing::error!(
                        channel_id,
                        reason = reason(&error),
                        "cannot disable a channel, trying again"
                    );
                    Answer::StillEnabled { channel_id, cause }
                }
                Ok(row) => match (row.try_get("name")?, row.try_get("enabled")?) {
                    (None, true) => {
                        tracing::debug!(channel_id, "a channel is locked, so it is disabled later");
                        Answer::StillEnabled { channel_id, cause }
                    }
                    (None, false) if fails => Answer::Spared,
                    (name, _) => Answer::Disabled { channel_id, name, cause },
                },
            }
        }
        Job::TakeTests => match test::take(client, statements, &shared.keyring).await {
            Err(error) if client.is_closed() => return Err(error.into()),
            Err(error) => {
                tracing::error!(reason = reason(&error), "tests were not taken");
                Answer::TestAnswered
            }
            Ok(tests) => Answer::Tests(tests),
        },
        Job::AnswerTest(tested) => match test::answer(client, statements, tested).await {
            Err(error) if client.is_closed() => return Err(error.into()),
            Err(error) => {
                tracing::error!(reason = reason(&error), "a test was not answered");
                Answer::TestAnswered
            }
            Ok(()) => Answer::TestAnswered,
        },
        Job::Journal { worker } => match journal::keep(client, &shared.keyring, worker).await {
            Ok(kept) => {
                if let (Some(path), Some(checkpoint)) = (&shared.checkpoint_file, &kept.checkpoint)
                    && let Err(error) = journal::keep_outside(path, checkpoint)
                {
                    tracing::error!(path = %path.display(), %error, "a checkpoint was not kept outside");
                }
                Answer::Journaled(kept.more)
            }
            Err(missing @ SettleError::MissingKey(_)) => return Err(missing.into()),
            Err(error) if client.is_closed() => return Err(error.into()),
            Err(error) => {
                tracing::error!(error = error.to_string(), "the log's own records were not written");
                Answer::Journaled(false)
            }
        },
        Job::Leave { worker, owned } => {
            client.execute(&statements.leave, &[&worker]).await?;
            ownership::unlock(client, statements, worker, owned).await?;
            Answer::Left
        }
    })
}
