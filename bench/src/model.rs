//! What a fleet of workers delivers, from what one delivery costs: a formula, and a simulation of what the formula
//! leaves out: batches, whose turn it is, and what waits for what.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Deliveries a worker settles in one transaction at most, and outcomes that may wait meanwhile.
const BATCH: usize = 500;

/// What one delivery costs, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// CPU time of the worker.
    pub worker: f64,
    /// CPU time of Postgres, emitting aside.
    pub postgres: f64,
    /// Time for which it holds the end of the log, which is one a database; its part of the COMMIT included.
    pub log: f64,
}

/// Who delivers, and to whom.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    pub workers: usize,
    /// Deliveries in flight of each.
    pub in_flight: usize,
    /// Seconds until a receiver answers.
    pub answer: f64,
    /// CPU cores that the workers and Postgres share.
    pub cores: usize,
}

impl Fleet {
    /// Deliveries a second at most: by the receivers' time, by the cores, by the workers' sessions, of which each settles
    /// one batch at a time, or by the log.
    pub fn bound(self, costs: Costs) -> f64 {
        let slots = self.workers * self.usable();
        let receivers = slots as f64 / (self.answer + costs.worker);
        let cores = self.cores as f64 / (costs.worker + costs.postgres);
        let sessions = self.workers as f64 / (costs.postgres + costs.log);
        receivers.min(cores).min(sessions).min(costs.log.recip())
    }

    /// Deliveries in flight of a worker while its channels answer at once.
    fn usable(self) -> usize {
        self.in_flight - (self.in_flight / 32).max((self.in_flight / 4).min(4))
    }

    /// Deliveries a second of so many, from the first arrival to the last.
    pub fn simulate(self, costs: Costs, deliveries: usize) -> f64 {
        Simulation::new(self, costs, deliveries).run()
    }
}

/// What happens at a moment, in nanoseconds from the begin, to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Answered,
    Settled,
}

/// One worker.
#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    pending: usize,
    in_flight: usize,
    outcomes: usize,
    settles: bool,
}

struct Simulation {
    fleet: Fleet,
    costs: Costs,
    workers: Vec<Worker>,
    /// When each core is next free.
    cores: Vec<u64>,
    log_free: u64,
    events: BinaryHeap<Reverse<(u64, usize, Event)>>,
    arrivals: Vec<u64>,
}

impl Simulation {
    fn new(fleet: Fleet, costs: Costs, deliveries: usize) -> Self {
        let share = Worker { pending: deliveries / fleet.workers, ..Worker::default() };
        Self {
            fleet,
            costs,
            workers: vec![share; fleet.workers],
            cores: vec![0; fleet.cores],
            log_free: 0,
            events: BinaryHeap::new(),
            arrivals: Vec::new(),
        }
    }

    fn run(mut self) -> f64 {
        (0..self.workers.len()).for_each(|worker| self.send(worker, 0));
        while let Some(Reverse((now, worker, event))) = self.events.pop() {
            match event {
                Event::Answered => {
                    self.workers[worker].in_flight -= 1;
                    self.workers[worker].outcomes += 1;
                }
                Event::Settled => self.workers[worker].settles = false,
            }
            self.settle(worker, now);
            self.send(worker, now);
        }
        let (first, last) = (self.arrivals.iter().min(), self.arrivals.iter().max());
        let span = first.zip(last).map_or(0, |(first, last)| last - first);
        (self.arrivals.len() - 1) as f64 / (span as f64 / 1e9)
    }

    /// Sends whatever a worker may send.
    fn send(&mut self, worker: usize, now: u64) {
        while let Worker { pending: 1.., in_flight, outcomes: ..BATCH, .. } = self.workers[worker]
            && in_flight < self.fleet.usable()
        {
            self.workers[worker].pending -= 1;
            self.workers[worker].in_flight += 1;
            let sent = self.compute(now, self.costs.worker);
            self.arrivals.push(sent);
            self.events.push(Reverse((sent + nanoseconds(self.fleet.answer), worker, Event::Answered)));
        }
    }

    /// Begins to settle what came back, unless a batch is on its way: deleted in parallel, appended in turn.
    fn settle(&mut self, worker: usize, now: u64) {
        let Worker { outcomes: 1.., settles: false, .. } = self.workers[worker] else { return };
        let batch = self.workers[worker].outcomes.min(BATCH);
        self.workers[worker].outcomes -= batch;
        self.workers[worker].settles = true;
        let deleted = self.compute(now, self.costs.postgres * batch as f64);
        self.log_free = deleted.max(self.log_free) + nanoseconds(self.costs.log * batch as f64);
        self.events.push(Reverse((self.log_free, worker, Event::Settled)));
    }

    /// When the core that is free first has done so much.
    fn compute(&mut self, now: u64, seconds: f64) -> u64 {
        let core = self.cores.iter_mut().min().expect("a core");
        *core = (*core).max(now) + nanoseconds(seconds);
        *core
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs { worker: 25e-6, postgres: 20e-6, log: 10e-6 };

    /// The simulated rate, as a part of what the formula allows. So many that what still waits for the log when the
    /// last arrives is little.
    fn part(fleet: Fleet, costs: Costs) -> f64 {
        fleet.simulate(costs, 1_000_000) / fleet.bound(costs)
    }

    #[test]
    fn slow_receivers_bound_by_what_is_in_flight() {
        for workers in [1, 2, 4] {
            let fleet = Fleet { workers, in_flight: 64, answer: 0.05, cores: 2 };
            assert!((fleet.bound(COSTS) / (workers as f64 * 60.0 / 0.05) - 1.0).abs() < 0.01);
            let part = part(fleet, COSTS);
            assert!((0.9..1.02).contains(&part), "{workers}: {part}");
        }
    }

    #[test]
    fn fast_receivers_bound_by_the_cores() {
        let fleet = Fleet { workers: 2, in_flight: 64, answer: 0.0001, cores: 2 };
        assert!((fleet.bound(COSTS) - 2.0 / 45e-6).abs() < 1.0);
        let part = part(fleet, COSTS);
        assert!((0.9..1.02).contains(&part), "{part}");
    }

    #[test]
    fn one_worker_bounds_by_its_session() {
        let fleet = Fleet { workers: 1, in_flight: 256, answer: 0.001, cores: 16 };
        assert!((fleet.bound(COSTS) - 1.0 / 30e-6).abs() < 1.0);
        let part = part(fleet, COSTS);
        assert!((0.9..1.02).contains(&part), "{part}");
    }

    #[test]
    fn many_workers_bound_by_the_log() {
        let fleet = Fleet { workers: 16, in_flight: 256, answer: 0.001, cores: 64 };
        assert!((fleet.bound(COSTS) - 1e5).abs() < 1.0);
        let part = part(fleet, COSTS);
        assert!((0.9..1.02).contains(&part), "{part}");
        let costs = Costs { log: 5e-6, ..COSTS };
        assert!(
            fleet.simulate(costs, 100_000) > 1.5 * fleet.simulate(COSTS, 100_000),
            "half the time, more of them"
        );
    }
}
