//! The engine of one database: what it knows, and the loop that turns.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_postgres::Notification;
use uuid::Uuid;

use super::flight::{self, Landing};
use super::job::{self, Answer, DEADLINE, Database, Doing, Job, Lost};
use super::queue::Outcomes;
use super::{DRAIN_MARGIN, Shared};
use crate::channel::Project;
use crate::clock::{Clock, DbTime};
use crate::directory::{Directory, Found, Route};
use crate::discover::{News, Snapshot};
use crate::ownership::{self, HEARTBEAT, Roll};
use crate::schedule::{Fetched, Hold, Limits, Pending, SHARDS, Schedule, Shards};
use crate::settle::{Log, Outcome, Settled, Written};

/// The engine of one database. It outlives its sessions: what is on its way, and what came of it, is
/// still known when the next one begins.
pub struct Engine {
    shared: Arc<Shared>,
    worker: Uuid,
    log: Arc<Log>,
    schedule: Schedule,
    directory: Directory,
    clock: Clock,
    flights: JoinSet<Landing>,
    outcomes: Outcomes,
    written: Written,
    turn: Turn,
    session: State,
}

/// What belongs to the session, and ends with it.
#[derive(Debug, Default)]
struct State {
    /// Shards whose locks it holds.
    locked: Shards,
    /// Shards it should hold, going by the last roll.
    wanted: Shards,
    /// Whether locks are to be tried for.
    lock_due: bool,
    silent: Vec<Uuid>,
    disable: VecDeque<(i64, String)>,
    snapshot: Option<Snapshot>,
    news: bool,
    notified: bool,
    read_at: Option<Instant>,
    beat_at: Option<Instant>,
    draining: Option<Instant>,
}

/// Whose turn it is, so that none of the three can keep the session from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Discover,
    Refill,
    Settle,
}

impl Turn {
    fn next(self) -> Self {
        match self {
            Self::Discover => Self::Refill,
            Self::Refill => Self::Settle,
            Self::Settle => Self::Discover,
        }
    }
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(shared: Arc<Shared>, worker: Uuid) -> Self {
        let now = Instant::now();
        Self {
            worker,
            log: Arc::new(Log::new(worker, shared.audit_key.clone())),
            schedule: Schedule::new(Limits::new(shared.per_channel)),
            directory: Directory::new(now),
            // Shows nothing as due until the database has said what time it is.
            clock: Clock::new(DbTime::MIN, now),
            flights: JoinSet::new(),
            outcomes: Outcomes::default(),
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
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<(), Lost> {
        self.session = State { news: true, ..State::default() };
        self.directory.clear();
        let result = self.turn_over(&database, &mut notifications, shutdown).await;
        self.schedule.disown((0..i16::from(SHARDS)).collect());
        self.outcomes.session_lost();
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
                    None => self.launch(row, route, project, permit),
                },
            }
        }
        self.schedule.is_ready()
    }

    fn launch(
        &mut self,
        row: Pending,
        route: Arc<Route>,
        project: Option<Arc<Project>>,
        permit: OwnedSemaphorePermit,
    ) {
        let meaning = self.directory.meaning(&row.event_type).cloned().unwrap_or_default();
        let courier = Arc::clone(&self.shared.courier);
        self.flights.spawn(flight::fly(courier, route, row, project, meaning, permit));
    }

    fn give_up(&mut self, row: Pending, reason: &'static str, note: Option<String>, time: DbTime) {
        tracing::warn!(delivery = %row.id, channel_id = row.channel_id, reason, note, "delivery given up");
        self.schedule.finished(&row.ticket(), None, time);
        self.outcomes.push(Outcome::given_up(row, reason, note));
    }

    fn land(&mut self, landing: Landing, now: Instant) {
        let ticket = landing.ticket();
        let verdicts = landing.judge(fastrand::f64());
        self.schedule.finished(&ticket, Some(verdicts.health), self.clock.at(now));
        if let Some(reason) = verdicts.disable {
            self.schedule.hold(ticket.channel_id, Hold::Disabled, self.clock.at(now));
            self.session.disable.push_back((ticket.channel_id, reason));
        }
        self.outcomes.push(verdicts.outcome);
    }

    fn hear(&mut self, notification: Notification) {
        self.session.notified = true;
        match notification.channel() {
            "klaxon_config" => self.directory.invalidate(),
            _ => self.session.news = true,
        }
    }

    /// What to ask of the session next.
    fn choose(&mut self, now: Instant) -> Option<Job> {
        if let Some(until) = self.session.draining
            && (now >= until || (self.schedule.is_quiet() && self.outcomes.is_empty()))
        {
            return Some(Job::Leave { worker: self.worker, owned: self.session.locked });
        }
        if let Some(request) = self.directory.request(now) {
            return Some(Job::Load(request));
        }
        if self.session.beat_at.is_none_or(|at| now >= at + HEARTBEAT) {
            self.session.beat_at = Some(now);
            let notified = std::mem::take(&mut self.session.notified);
            return Some(Job::Beat { worker: self.worker, owned: self.session.locked, notified });
        }
        if let Some(worker) = self.session.silent.pop() {
            return Some(Job::Fence(worker));
        }
        let surplus = self.session.locked.without(self.schedule.owned());
        let drained: Shards = surplus.iter().filter(|shard| self.schedule.is_drained(*shard)).collect();
        if !drained.is_empty() {
            return Some(Job::Unlock(drained));
        }
        if std::mem::take(&mut self.session.lock_due) {
            let wanted = self.session.wanted.without(self.session.locked);
            return Some(Job::Lock { wanted, afresh: self.session.locked.is_empty() });
        }
        if let Some((channel_id, reason)) = self.session.disable.pop_front() {
            return Some(Job::Disable { channel_id, reason });
        }
        for _ in 0..3 {
            let turn = self.turn;
            self.turn = turn.next();
            let job = match turn {
                Turn::Discover => self.discover(now),
                Turn::Refill => self.refill(now),
                Turn::Settle => self.settle(now),
            };
            if job.is_some() {
                return job;
            }
        }
        None
    }

    fn discover(&mut self, now: Instant) -> Option<Job> {
        let poll = self.session.read_at.is_none_or(|at| now >= at + self.shared.poll_interval);
        if !(self.session.news || poll) || self.schedule.owned().is_empty() || self.session.draining.is_some()
        {
            return None;
        }
        let last = self.session.snapshot.clone()?;
        (self.session.news, self.session.read_at) = (false, Some(now));
        Some(Job::Discover { last, owned: self.schedule.owned(), room: self.schedule.room() })
    }

    fn refill(&mut self, now: Instant) -> Option<Job> {
        if !self.schedule.is_hungry() {
            return None;
        }
        let asks = self.schedule.asks(self.clock.at(now));
        let (_, bytes) = self.schedule.room();
        (!asks.is_empty()).then_some(Job::Refill { asks, bytes })
    }

    fn settle(&mut self, now: Instant) -> Option<Job> {
        let outcomes = self.outcomes.next(self.session.locked, now)?;
        let written = std::mem::take(&mut self.written);
        Some(Job::Settle { outcomes, log: Arc::clone(&self.log), written })
    }

    /// Takes in what the session answered.
    fn take_in(&mut self, answer: Answer, now: Instant) -> Result<(), Lost> {
        match answer {
            Answer::Roll(roll) => self.call(roll)?,
            Answer::Fenced(worker, fenced) => {
                if let Some(fenced) = fenced {
                    tracing::warn!(%worker, host = fenced.host, ended = fenced.ended, "fenced a silent worker");
                }
            }
            Answer::Locked { shards, begins, start } => {
                if let Some((snapshot, clock)) = start {
                    (self.session.snapshot, self.clock) = (Some(snapshot), clock);
                }
                self.session.locked = self.session.locked.union(shards);
                self.schedule.own(shards);
                self.mark(begins, now);
                if !shards.is_empty() {
                    tracing::info!(
                        worker = %self.worker,
                        taken = shards.iter().count(),
                        owned = self.session.locked.iter().count(),
                        "owns shards"
                    );
                    (self.session.news, self.session.beat_at) = (true, None);
                }
            }
            Answer::Unlocked(shards) => {
                self.session.locked = self.session.locked.without(shards);
                self.session.beat_at = None;
                tracing::info!(worker = %self.worker, given = shards.iter().count(), "handed over shards");
            }
            Answer::News(discovery) => {
                (self.session.snapshot, self.clock) = (Some(discovery.snapshot), discovery.clock);
                match discovery.news {
                    News::Rows(rows) => {
                        let time = self.clock.at(now);
                        rows.into_iter().for_each(|row| self.schedule.offer(row, time));
                    }
                    News::Overflow(begins) => self.mark(begins, now),
                }
            }
            Answer::Rows { asks, rows, clock } => {
                self.clock = clock.unwrap_or(self.clock);
                let time = self.clock.at(now);
                let mut by_channel: HashMap<i64, Vec<Fetched>> = HashMap::with_capacity(asks.len());
                for row in rows {
                    by_channel.entry(row.channel_id()).or_default().push(row);
                }
                for ask in asks {
                    let rows = by_channel.remove(&ask.channel_id).unwrap_or_default();
                    self.schedule.refill(ask.channel_id, rows, time);
                }
            }
            Answer::Settled(result, written) => {
                self.written = written;
                match result {
                    Ok(settled) => self.settled(settled, now),
                    Err(error) => self.outcomes.refused(&error, now),
                }
            }
            Answer::Loaded(loaded) => {
                self.directory.apply(loaded);
                let held: Vec<_> = self.schedule.held().collect();
                for (channel_id, hold) in held {
                    let go = match self.directory.find(channel_id, None).0 {
                        Found::NotYet => false,
                        Found::Route(route) => route.enabled || hold == Hold::Unresolved,
                        Found::Missing => true,
                    };
                    if go {
                        self.schedule.resume(channel_id, self.clock.at(now));
                    }
                }
            }
            Answer::Disabled { channel_id, name, reason } => {
                if let Some(channel) = name {
                    tracing::warn!(channel, reason, "channel disabled");
                }
                self.directory.invalidate();
                self.schedule.hold(channel_id, Hold::Disabled, self.clock.at(now));
            }
            Answer::Left => {}
        }
        Ok(())
    }

    /// What a roll says this worker should own.
    fn call(&mut self, roll: Roll) -> Result<(), Lost> {
        if !roll.registered {
            return Err(Lost::Fenced);
        }
        self.clock = roll.clock.unwrap_or(self.clock);
        self.session.silent = roll.silent;
        if self.session.draining.is_some() {
            return Ok(());
        }
        let wanted = ownership::wanted(self.worker, &roll.living);
        self.session.wanted = wanted;
        let surplus = self.schedule.owned().without(wanted);
        if !surplus.is_empty() {
            self.schedule.disown(surplus);
        }
        let missing = wanted.without(self.session.locked);
        self.session.lock_due = !missing.is_empty();
        // What another worker now owns is that worker's to send and to settle.
        let others = self.outcomes.forget_others(wanted.union(self.session.locked));
        if !others.is_empty() {
            tracing::warn!(
                outcomes = others.len(),
                "shards went to another worker before their outcomes were settled"
            );
        }
        for outcome in others {
            self.schedule.settled(&outcome.ticket, None, DbTime::MIN);
        }
        Ok(())
    }

    fn mark(&mut self, begins: Vec<(i64, DbTime)>, now: Instant) {
        let time = self.clock.at(now);
        for (channel_id, due_at) in begins {
            self.schedule.mark(channel_id, due_at, time);
        }
    }

    fn settled(&mut self, settled: Settled, now: Instant) {
        self.clock = settled.clock;
        let time = self.clock.at(now);
        for outcome in self.outcomes.written(&settled) {
            // A row that is not as it was sent is somebody else's doing: it is looked at again.
            let stands = settled.rows.get(&outcome.ticket.id).copied().unwrap_or(Some(DbTime::MIN));
            self.schedule.settled(&outcome.ticket, stands, time);
        }
        let failing = "has only failed for five days".to_owned();
        self.session
            .disable
            .extend(settled.hopeless.into_iter().map(|channel_id| (channel_id, failing.clone())));
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
        [poll, alarm, self.outcomes.wake_at(), draining].into_iter().flatten().fold(beat, Instant::min)
    }
}

async fn answer(doing: &mut Option<Doing>) -> Result<Answer, Lost> {
    match doing {
        Some(doing) => doing.await,
        None => pending().await,
    }
}
