//! What a transaction does, drawn before it does it.

use std::time::Duration;

use fastrand::Rng;
use serde_json::json;
use tokio_postgres::Client;

/// A type of event and a project, as the channels of a history tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// The event's type.
    pub name: &'static str,
    /// Its project.
    pub project: &'static str,
}

const NAMES: [&str; 4] = ["run.finished", "run.failed", "task.failed", "task.succeeded"];
/// The projects; the last is not registered.
pub const PROJECTS: [&str; 3] = ["alpha", "beta", "stray"];

/// What a transaction never draws: it is emitted to see whether what is emitted arrives. It is for
/// [`PROBES`] channels, made one after another and so of as many shards.
pub const PROBE: Kind = Kind { name: "perf.regression", project: "stray" };
/// Channels of a [`PROBE`].
pub const PROBES: usize = 4;
/// What is for one channel only, whose receiver may have manners of its own.
pub const ILL: Kind = Kind { name: "task.slow", project: "stray" };

/// The channels, what is subscribed for them, and of which project: none is all.
pub const CHANNELS: [(&str, &[&str], Option<&str>); 6 + PROBES] = [
    ("runs", &["run.*"], None),
    ("alpha", &["*"], Some("alpha")),
    ("failures", &["run.failed", "task.failed"], None),
    ("flaky", &["task.failed", "task.succeeded"], None),
    ("slow", &["run.finished"], Some("beta")),
    ("probe-1", &[PROBE.name], None),
    ("probe-2", &[PROBE.name], None),
    ("probe-3", &[PROBE.name], None),
    ("probe-4", &[PROBE.name], None),
    ("ill", &[ILL.name], None),
];

/// Makes a global channel at a path of its own, tried again soon and often, and a shared subscription.
///
/// # Panics
/// When the database refuses.
pub async fn subscribe(client: &Client, channel: &str, host: &str, events: &[&str], project: Option<&str>) {
    let config =
        json!({"url": format!("https://{host}/{channel}"), "retry_schedule": [1, 1, 2, 2, 5, 5, 10, 10]});
    client
        .execute(
            "INSERT INTO klaxon.channel (name, kind, config) VALUES ($1, 'webhook', $2)",
            &[&channel, &config],
        )
        .await
        .expect("the database takes it");
    client
        .execute(
            "SELECT klaxon.subscribe(ARRAY[$1::text], $2, project => $3, owner => NULL)",
            &[&channel, &events, &project],
        )
        .await
        .expect("the database takes it");
}

impl Kind {
    fn draw(rng: &mut Rng) -> Self {
        Self { name: NAMES[rng.usize(..NAMES.len())], project: PROJECTS[rng.usize(..PROJECTS.len())] }
    }

    /// The channels that are to hear of it.
    pub fn channels(self) -> impl Iterator<Item = &'static str> {
        CHANNELS
            .into_iter()
            .filter(move |(_, events, project)| {
                let named = |pattern: &&str| match pattern.strip_suffix('*') {
                    Some(prefix) => self.name.starts_with(prefix),
                    None => self.name == *pattern,
                };
                events.iter().any(named) && project.is_none_or(|project| project == self.project)
            })
            .map(|(channel, ..)| channel)
    }
}

/// One thing that a transaction does.
#[derive(Clone, Debug)]
pub enum Step {
    /// One event, by the function.
    Emit(Kind),
    /// Several in one statement.
    EmitMany(Kind, i64),
    /// One event, in a block that fails and is caught: it did not happen.
    Catch(Kind),
    /// A savepoint within those that there are.
    Savepoint,
    /// What came after the innermost savepoint is undone, and the savepoint stays.
    RollBackTo,
    /// The innermost savepoint is forgotten, and what came after it stays.
    Release,
    /// Time goes by.
    Sleep(Duration),
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// COMMIT.
    Commit,
    /// ROLLBACK.
    RollBack,
    /// A statement fails, and COMMIT says ROLLBACK.
    Fail,
    /// The client goes away.
    Abandon,
    /// PREPARE TRANSACTION, a while, and COMMIT PREPARED, or ROLLBACK PREPARED.
    Prepare {
        /// Which of the two.
        commit: bool,
        /// The while.
        after: Duration,
    },
}

/// A transaction.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `klaxon.wakeup`, for those who may say so.
    pub wakeup: &'static str,
    /// Its isolation level.
    pub isolation: &'static str,
    /// What it does.
    pub steps: Vec<Step>,
    /// How it ends.
    pub end: End,
}

impl Plan {
    /// Draws one that sleeps for `nap` now and then.
    pub fn draw(rng: &mut Rng, nap: Duration) -> Self {
        let short = |rng: &mut Rng| Duration::from_millis(rng.u64(1..60));
        let end = match rng.u32(..100) {
            ..60 => End::Commit,
            60..75 => End::RollBack,
            75..82 => End::Fail,
            82..85 => End::Abandon,
            _ => End::Prepare { commit: rng.u32(..4) > 0, after: short(rng) },
        };
        // A transaction that has notified cannot be prepared.
        let ways: &[&str] = match end {
            End::Prepare { .. } => &["relay", "poll"],
            _ => &["relay", "poll", "notify"],
        };
        let (mut steps, mut depth) = (vec![], 0);
        for _ in 0..rng.usize(1..8) {
            steps.push(match rng.u32(..100) {
                ..50 => Step::Emit(Kind::draw(rng)),
                50..55 => {
                    // Now and then more than a worker reads at once.
                    let flood = rng.u32(..120) == 0;
                    Step::EmitMany(
                        Kind::draw(rng),
                        if flood { rng.i64(1_200..2_000) } else { rng.i64(2..12) },
                    )
                }
                55..58 => Step::Catch(Kind::draw(rng)),
                58..75 => {
                    depth += 1;
                    Step::Savepoint
                }
                75..85 if depth > 0 => Step::RollBackTo,
                85..93 if depth > 0 => {
                    depth -= 1;
                    Step::Release
                }
                75..98 => Step::Sleep(short(rng)),
                _ => Step::Sleep(nap),
            });
        }
        Self {
            wakeup: ways[rng.usize(..ways.len())],
            isolation: ["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
                [rng.usize(..4)],
            steps,
            end,
        }
    }
}
