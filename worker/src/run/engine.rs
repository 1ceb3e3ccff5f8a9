//! The engine of one database: what it knows, and the loop that turns.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_postgres::Notification;
use uuid::Uuid;

use super::careful::Cautious;
use super::flight::{self, Landing, Plan};
use super::job::{self, Answer, Cause, DEADLINE, Database, Doing, Lost};
use super::queue::Outcomes;
use super::test::Tested;
use super::{DRAIN_MARGIN, Shared};
use crate::caution::Caution;
use crate::channel::Project;
use crate::clock::{Clock, DbTime};
use crate::cooldown::Waiting;
use crate::directory::{Directory, Found, Route};
use crate::discover::Snapshot;
use crate::metrics;
use crate::ownership::{HEARTBEAT, Silent};
use crate::schedule::{Hold, Limits, Pending, Schedule, Shards};
use crate::settle::{Log, Outcome, Written};

/// The engine of one database. It outlives its sessions: what is on its way, and what came of it, is
/// still known when the next one begins.
pub struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) worker: Uuid,
    /// The database, as people are told of it.
    name: String,
    pub(super) log: Arc<Log>,
    pub(super) schedule: Schedule,
    pub(super) directory: Directory,
    pub(super) clock: Clock,
    flights: JoinSet<Landing>,
    /// Tests of configurations, beside the deliveries.
    pub(super) tests: JoinSet<Tested>,
    /// What waits for a cooldown to be settled.
    pub(super) waiting: Waiting,
    pub(super) outcomes: Outcomes,
    /// Shards that are worked with care, and what of them waits for its attempt to be counted.
    pub(super) caution: Caution,
    pub(super) cautious: Vec<Cautious>,
    pub(super) written: Written,
    pub(super) turn: Turn,
    /// Whether it had a session before this one.
    served: bool,
    pub(super) session: State,
}

/// What belongs to the session, and ends with it.
#[derive(Debug, Default)]
pub struct State {
    /// Shards whose locks it holds.
    pub locked: Shards,
    /// Shards it should hold, going by the last roll.
    pub wanted: Shards,
    /// Whether locks are to be tried for.
    pub lock_due: bool,
    /// Since when some are missing, or since people were told of it.
    pub missing_since: Option<Instant>,
    /// Whether the worker had none before it.
    pub first: bool,
    pub silent: Vec<Silent>,
    /// Whether the log has records of its own to take, and since when they may be.
    pub journal: bool,
    pub journal_at: Option<Instant>,
    /// Whether configurations wait to be tested, and what came of those that were.
    pub tests: bool,
    pub tested: VecDeque<Tested>,
    /// Channels that are to be disabled, and why.
    pub disable: BTreeMap<i64, Cause>,
    /// Those that could not be yet: asked again after the next heartbeat.
    pub still_enabled: BTreeMap<i64, Cause>,
    /// Channels of what was held back, or is not where it was read because somebody has moved it.
    pub unfound: BTreeSet<i64>,
    pub snapshot: Option<Snapshot>,
    pub news: bool,
    pub notified: bool,
    pub hearing: Hearing,
    pub read_at: Option<Instant>,
    pub beat_at: Option<Instant>,
    pub draining: Option<Instant>,
    /// Has the clock tick.
    pub tick: Arc<Notify>,
}

/// Whether notifications arrive: the worker notifies itself when it begins to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hearing {
    /// It does not know yet.
    #[default]
    Unknown,
    /// Not known at the first heartbeat, which was then.
    Waiting(Instant),
    /// None has arrived for long enough to say so.
    Deaf,
    /// One has.
    Proved,
}

/// How long its own notification may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whose turn it is, so that none of the five can keep the session from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Discover,
    Refill,
    Cooldowns,
    Count,
    Settle,
}

impl Turn {
    /// Whose it is after that.
    pub fn next(self) -> Self {
        match self {
            Self::Discover => Self::Refill,
            Self::Refill => Self::Cooldowns,
            Self::Cooldowns => Self::Count,
            Self::Count => Self::Settle,
            Self::Settle => Self::Discover,
        }
    }
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(shared: Arc<Shared>, worker: Uuid, name: String) -> Self {
        let now = Instant::now();
        Self {
            worker,
            name,
            log: Arc::new(Log::new(worker, Arc::clone(&shared.keyring))),
            schedule: Schedule::new(Limits::new(shared.per_channel, shared.concurrency)),
            directory: Directory::new(now),
            // Shows nothing as due until the database has said what time it is.
            clock: Clock::new(DbTime::MIN, now),
            flights: JoinSet::new(),
            tests: JoinSet::new(),
            waiting: Waiting::default(),
            outcomes: Outcomes::default(),
            caution: Caution::new(shared.concurrency, shared.per_channel),
            served: false,
            cautious: Vec::new(),
            written: Written::default(),
            turn: Turn::Discover,
            session: State::default(),
            shared,
        }
    }

    /// The worker's id.
    pub fn worker(&self) -> Uuid {
        self.worker
    }

    /// Whether it has had a session.
    pub fn has_served(&self) -> bool {
        self.served
    }

    /// Serves until told to stop and everything on its way is settled or its time is up, or until the
    /// session is lost.
    ///
    /// # Errors
    ///
    /// The session is lost: nothing waits in memory any more, and what is on its way is still known.
    pub async fn serve(
        &mut self,
        database: Arc<Database>,
        mut notifications: UnboundedReceiver<Notification>,
        tick: Arc<Notify>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<(), Lost> {
        let first = !std::mem::replace(&mut self.served, true);
        self.session = State { news: true, first, tick, ..State::default() };
        self.directory.clear();
        let result = self.turn_over(&database, &mut notifications, shutdown).await;
        self.schedule.disown(Shards::all());
        let cautious = std::mem::take(&mut self.cautious).into_iter().map(|one| one.row);
        for row in self.waiting.clear().into_iter().chain(cautious).collect::<Vec<_>>() {
            self.schedule.put_down(row, self.clock.at(Instant::now()));
        }
        self.outcomes.session_lost();
        metrics::engine(&self.name, 0, self.schedule.open_circuits(self.clock.at(Instant::now())));
        result
    }

    async fn turn_over(
        &mut self,
        database: &Arc<Database>,
        notifications: &mut UnboundedReceiver<Notification>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<(), Lost> {
        let mut doing: Option<Doing> = None;
        let permits = Arc::clone(&self.shared.permits);
        loop {
            let now = Instant::now();
            if *shutdown.borrow() && self.session.draining.is_none() {
                self.drain(now);
            }
            self.schedule.wake(self.clock.at(now));
            self.take_care(now);
            let starving = self.dispatch(now);
            if doing.is_none()
                && let Some(job) = self.choose(now)
            {
                doing = Some(job::begin(Arc::clone(database), Arc::clone(&self.shared), job));
            }
            let wake_at = self.wake_at(now, doing.is_some());
            tokio::select! {
                biased;
                answer = answer(&mut doing) => {
                    doing = None;
                    match answer? {
                        Answer::Left => return Ok(()),
                        answer => self.take_in(answer, Instant::now())?,
                    }
                }
                Some(landing) = self.flights.join_next(), if !self.flights.is_empty() => {
                    let mut landing = Some(landing);
                    while let Some(landed) = landing {
                        // Flights catch their panics, and nobody aborts them.
                        if let Ok(landed) = landed {
                            self.land(landed, Instant::now());
                        }
                        landing = self.flights.try_join_next();
                    }
                }
                Some(tested) = self.tests.join_next(), if !self.tests.is_empty() => {
                    // As with flights.
                    self.session.tested.extend(tested.ok());
                }
                notification = notifications.recv() => {
                    self.hear(notification.ok_or(Lost::Closed)?);
                    while let Ok(notification) = notifications.try_recv() {
                        self.hear(notification);
                    }
                }
                _ = permits.acquire(), if starving => {}
                _ = shutdown.changed(), if self.session.draining.is_none() => {}
                () = sleep_until(wake_at.into()) => {}
            }
        }
    }

    /// Sends whatever may be sent. Says whether there was more than there are permits for.
    fn dispatch(&mut self, now: Instant) -> bool {
        let time = self.clock.at(now);
        if self.outcomes.is_full() {
            return false;
        }
        while let Ok(permit) = Arc::clone(&self.shared.permits).try_acquire_owned() {
            let free = self.shared.permits.available_permits() + 1;
            let Some(row) = self.schedule.next(time, free) else { return false };
            let (found, project) = self.directory.find(row.channel_id, row.project.as_deref());
            match found {
                Found::NotYet => self.schedule.put_back(row, Hold::Unresolved, time),
                Found::Missing => self.give_up(row, "channel deleted", None, time),
                Found::Route(route) if !route.enabled => self.schedule.put_back(row, Hold::Disabled, time),
                Found::Route(route) => match flight::unfit(&row, &route, time) {
                    Some((reason, note)) => self.give_up(row, reason, note, time),
                    None if row.cooldown_task.is_some() => self.wait(row, &route, time),
                    None if self.is_suspect(&row) => self.be_careful(row, route, project, permit, time),
                    None => self.launch(row, route, project, permit),
                },
            }
        }
        self.schedule.is_ready()
    }

    pub(super) fn launch(
        &mut self,
        row: Pending,
        route: Arc<Route>,
        project: Option<Arc<Project>>,
        permit: OwnedSemaphorePermit,
    ) {
        let meaning = self.directory.meaning(&row.event_type).cloned().unwrap_or_default();
        let courier = Arc::clone(&self.shared.courier);
        let step = self.shared.tracer.step(&row);
        let plan = Plan { project, meaning, step, now: self.clock.at(Instant::now()) };
        self.flights.spawn(flight::fly(courier, route, row, plan, permit));
    }

    /// Lets a row wait for its cooldown, and those behind it that wait for one too: a flood would else be
    /// decided on a handful at a time.
    fn wait(&mut self, row: Pending, route: &Route, time: DbTime) {
        let channel_id = row.channel_id;
        self.waiting.push(row);
        while let Some(row) = self.schedule.next_of(channel_id, time, |row| row.cooldown_task.is_some()) {
            match flight::unfit(&row, route, time) {
                Some((reason, note)) => self.give_up(row, reason, note, time),
                None => self.waiting.push(row),
            }
        }
    }

    fn give_up(&mut self, row: Pending, reason: &'static str, note: Option<String>, time: DbTime) {
        let trace_id = self.shared.tracer.step(&row).trace_id();
        tracing::warn!(delivery = %row.id, channel_id = row.channel_id, reason, note, trace_id, "delivery given up");
        self.schedule.finished(&row.ticket(), None, time);
        self.outcomes.push(Outcome::given_up(row, reason, note));
    }

    fn land(&mut self, landing: Landing, now: Instant) {
        let ticket = landing.ticket();
        let time = self.clock.at(now);
        let verdicts = landing.judge(time, fastrand::f64());
        self.schedule.finished(&ticket, Some(verdicts.health), time);
        if let Some(reason) = verdicts.disable {
            self.schedule.hold(ticket.channel_id, Hold::Disabled, time);
            self.session.disable.insert(ticket.channel_id, Cause::Gone(reason));
        }
        if let Some(span) = verdicts.span {
            self.shared.tracer.export(span);
        }
        self.outcomes.push(verdicts.outcome);
    }

    /// Says what it owns and leaves alone, to whoever measures.
    pub(super) fn measure(&self, now: Instant) {
        let circuits = self.schedule.open_circuits(self.clock.at(now));
        metrics::engine(&self.name, self.session.locked.iter().count(), circuits);
    }

    fn hear(&mut self, notification: Notification) {
        self.session.notified = true;
        if self.session.hearing != Hearing::Proved {
            self.session.hearing = Hearing::Proved;
            tracing::info!(worker = %self.worker, "notifications arrive");
        }
        match notification.channel() {
            "klaxon_config" => self.directory.invalidate(),
            _ => self.session.news = true,
        }
    }

    /// Says once of a session that its notifications do not arrive. Whatever there is, is found by looking.
    pub(super) fn listen(&mut self, now: Instant) {
        self.session.hearing = match self.session.hearing {
            Hearing::Unknown => Hearing::Waiting(now),
            Hearing::Waiting(since) if now >= since + PATIENCE => {
                tracing::warn!(
                    worker = %self.worker,
                    poll_interval_ms = u64::try_from(self.shared.poll_interval.as_millis()).unwrap_or(u64::MAX),
                    "no notification arrives, so work is found by polling: is there a pooler in between?"
                );
                Hearing::Deaf
            }
            known => known,
        };
    }

    /// Stops taking in work; what is on its way may finish.
    fn drain(&mut self, now: Instant) {
        tracing::info!(worker = %self.worker, in_flight = self.flights.len(), "draining");
        self.session.draining = Some(now + self.shared.attempt_timeout + DRAIN_MARGIN);
        self.session.lock_due = false;
        self.schedule.disown(self.schedule.owned());
    }

    /// When to turn again if nothing happens. While the session is `busy` there is nothing to turn for:
    /// its answer does.
    fn wake_at(&self, now: Instant, busy: bool) -> Instant {
        let draining = self.session.draining;
        if busy {
            return draining.filter(|until| *until > now).unwrap_or(now + DEADLINE);
        }
        let beat = self.session.beat_at.map_or(now, |at| at + HEARTBEAT);
        let reading = draining.is_none() && !self.schedule.owned().is_empty();
        let poll = self.session.read_at.filter(|_| reading).map(|at| at + self.shared.poll_interval);
        let alarm = self.schedule.next_alarm().map(|at| self.clock.instant(at));
        [poll, alarm, self.waiting.wake_at(), self.outcomes.wake_at(now), draining]
            .into_iter()
            .flatten()
            .fold(beat, Instant::min)
    }
}

async fn answer(doing: &mut Option<Doing>) -> Result<Answer, Lost> {
    match doing {
        Some(doing) => doing.await,
        None => pending().await,
    }
}
