//! The algorithm, within bounds that are exhausted.

use std::time::Instant;

use stateright::{Checker as _, Model as _};

use klaxon_proof::{Klaxon, Wakeup};

fn prove(what: &str, model: Klaxon) {
    let began = Instant::now();
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!(
        "{what}: {} states, {} steps, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    checker.assert_properties();
}

const SMALLEST: Klaxon = Klaxon {
    rows: 1,
    shards: 1,
    workers: 1,
    faults: 0,
    wakeup: Wakeup::Poll,
    retries: false,
    overflows: false,
    poison: false,
    bug: None,
};

/// Every order of three commits and aborts, against one worker's reads and two faults.
#[test]
fn discovery_by_polling() {
    prove("discovery by polling", Klaxon { rows: 3, faults: 2, ..SMALLEST });
}

/// The same by notification alone; and a read may bring too much at any moment.
#[test]
fn discovery_by_hints() {
    prove(
        "discovery by hints",
        Klaxon { rows: 3, faults: 1, wakeup: Wakeup::Hints, overflows: true, ..SMALLEST },
    );
}

/// Attempts fail and are made again, with three faults.
#[test]
fn retries() {
    prove("retries", Klaxon { rows: 2, faults: 3, retries: true, ..SMALLEST });
}

/// Two workers share, and one is lost or leaves.
#[test]
fn ownership() {
    prove("ownership", Klaxon { rows: 2, shards: 2, workers: 2, faults: 1, ..SMALLEST });
}

/// One delivery, and everything that two faults can do to who settles it.
#[test]
fn settling() {
    prove("settling", Klaxon { rows: 1, workers: 2, faults: 2, retries: true, ..SMALLEST });
}

/// As [`settling`], with a third worker to come.
#[test]
fn succession() {
    prove("succession", Klaxon { rows: 1, workers: 3, faults: 1, ..SMALLEST });
}

/// What ends every worker that sends it, beside what does not: one is lost by not knowing, one by finding it, and
/// the third gives it up. And with a fault of another kind in it.
#[test]
fn poison() {
    prove("poison", Klaxon { rows: 2, workers: 3, poison: true, ..SMALLEST });
}

#[test]
fn poison_and_a_fault() {
    prove("poison and a fault", Klaxon { rows: 1, workers: 3, faults: 1, poison: true, ..SMALLEST });
}

#[test]
#[ignore = "takes minutes: make proof"]
fn settling_with_three_faults() {
    prove("settling, three faults", Klaxon { rows: 1, workers: 2, faults: 3, retries: true, ..SMALLEST });
}

#[test]
#[ignore = "takes minutes: make proof"]
fn two_deliveries_with_two_faults() {
    prove("two deliveries, two faults", Klaxon { rows: 2, workers: 2, faults: 2, ..SMALLEST });
}
