//! Finding what kills workers: an attempt that may do so is counted before it is made.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::engine::Engine;
use super::flight;
use crate::backoff;
use crate::channel::Project;
use crate::clock::DbTime;
use crate::directory::Route;
use crate::schedule::{INTERRUPTED, Pending};
use crate::settle::{Attempt, End, Intent, Outcome};

/// A delivery that is sent as soon as its attempt is counted.
#[derive(Debug)]
pub struct Cautious {
    /// The row.
    pub row: Pending,
    delay: Duration,
    route: Arc<Route>,
    project: Option<Arc<Project>>,
    permit: OwnedSemaphorePermit,
}

impl Cautious {
    /// What is to be counted.
    pub fn intent(&self) -> Intent {
        let Pending { id, channel_id, due_at, attempts, .. } = self.row;
        Intent { id, channel_id, due_at, attempts, delay: self.delay }
    }
}

impl Engine {
    /// Care is no longer to be taken where nothing is left that can have ended a worker: whatever did was due,
    /// and still is.
    pub(super) fn look_around(&mut self, now: Instant) {
        let time = self.clock.at(now);
        let careful = self.caution.shards(time);
        if !careful.is_empty() {
            let idle = self.schedule.idle(time);
            self.caution.nothing_left(careful.iter().filter(|shard| idle.contains(*shard)).collect());
        }
    }

    /// Begins and ends to work shards with care as their time comes.
    pub(super) fn take_care(&mut self, now: Instant) {
        let shards = self.caution.shards(self.clock.at(now));
        let before = self.schedule.careful();
        if shards == before {
            return;
        }
        let (begun, ended) = (shards.without(before), before.without(shards));
        if begun.is_empty() {
            tracing::info!(worker = %self.worker, shards = ended.iter().count(), "ceases to work shards with care");
        } else {
            tracing::warn!(
                worker = %self.worker,
                shards = begun.iter().count(),
                "workers keep ending in shards, works them with care"
            );
        }
        self.schedule.take_care(shards);
    }

    /// Whether an attempt at `row` may be what ends workers. One that did is suspect wherever it is.
    pub(super) fn is_suspect(&self, row: &Pending) -> bool {
        row.interrupted || self.schedule.careful().contains(row.ticket().shard())
    }

    /// Has the attempt counted before it is made; or gives the row up, where the worker ended during the
    /// last one.
    pub(super) fn be_careful(
        &mut self,
        mut row: Pending,
        route: Arc<Route>,
        project: Option<Arc<Project>>,
        permit: OwnedSemaphorePermit,
        time: DbTime,
    ) {
        let schedule = flight::retry_schedule(&row, &route);
        if row.interrupted && usize::try_from(row.attempts).is_ok_and(|attempts| attempts > schedule.len()) {
            row.counted = true;
            let error = Some(INTERRUPTED.to_owned());
            let attempt = Attempt { code: None, error, body: None, duration_ms: 0, seen: false };
            let (ticket, name) = (row.ticket(), Arc::clone(&route.name));
            tracing::error!(
                channel = %route.name.name,
                delivery = %row.id,
                attempts = row.attempts,
                "workers ended whenever they sent this delivery: given up"
            );
            self.schedule.finished(&ticket, None, time);
            let end = End::Dead("the worker ended during its attempts");
            self.outcomes.push(Outcome::of_attempt(row, ticket, name, attempt, end));
            return;
        }
        let delay = backoff::retry_delay(schedule, row.attempt(), None, fastrand::f64()).unwrap_or_default();
        self.cautious.push(Cautious { row, delay, route, project, permit });
    }

    /// Sends what has been counted of the first so many. What is not as it was read is looked at again.
    pub(super) fn counted(&mut self, asked: usize, due: &HashMap<Uuid, DbTime>, now: Instant) {
        let time = self.clock.at(now);
        let rest = self.cautious.split_off(asked.min(self.cautious.len()));
        for Cautious { mut row, route, project, permit, .. } in std::mem::replace(&mut self.cautious, rest) {
            if let Some(due_at) = due.get(&row.id) {
                (row.attempts, row.due_at, row.counted) = (row.attempt(), *due_at, true);
                self.launch(row, route, project, permit);
            } else {
                let ticket = row.ticket();
                self.schedule.finished(&ticket, None, time);
                self.schedule.settled(&ticket, Some(DbTime::MIN), time);
            }
        }
    }
}
