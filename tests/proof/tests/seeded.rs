//! Mistakes that the checker must find: a proof that cannot fail proves nothing.

use stateright::{Checker as _, HasDiscoveries, Model as _};

use klaxon_proof::property::{
    COUNTED_FIRST, DRAINS, NOTHING_HIDES, NOTHING_IS_LOST, ONCE, ONE_SENDS, ONLY_COMMITTED, ONLY_DEATHS,
    ONLY_KILLERS, ONLY_OWNERS, TRIED,
};
use klaxon_proof::{Bug, Klaxon, Wakeup};

const TWO_WORKERS: Klaxon = Klaxon {
    rows: 1,
    shards: 1,
    workers: 2,
    faults: 1,
    wakeup: Wakeup::Poll,
    retries: false,
    overflows: false,
    poison: false,
    bug: None,
};

const ONE_WORKER: Klaxon = Klaxon { rows: 2, workers: 1, faults: 0, ..TWO_WORKERS };

/// The checker finds that `property` does not hold with `bug`: and, the algorithm being as it is otherwise,
/// only because of that.
fn finds(bug: Bug, bounds: Klaxon, property: &'static str) {
    let check = |bug| {
        let finished = HasDiscoveries::AllOf([property].into());
        let model = Klaxon { bug, ..bounds.clone() };
        model.checker().threads(2).finish_when(finished).spawn_bfs().join()
    };
    let found = check(Some(bug)).assert_any_discovery(property);
    println!("{bug:?}: {property:?} is broken in {} steps", found.into_actions().len());
    check(None).assert_no_discovery(property);
}

#[test]
fn a_cursor_by_id() {
    finds(Bug::CursorById, ONE_WORKER, NOTHING_HIDES);
    finds(Bug::CursorById, ONE_WORKER, NOTHING_IS_LOST);
}

#[test]
fn forgetting_what_was_in_progress() {
    finds(Bug::ForgetsInProgress, ONE_WORKER, NOTHING_HIDES);
    finds(Bug::ForgetsInProgress, ONE_WORKER, NOTHING_IS_LOST);
}

#[test]
fn a_first_snapshot_after_the_scan() {
    finds(Bug::SnapshotAfterScan, ONE_WORKER, NOTHING_IS_LOST);
}

#[test]
fn no_scan_of_shards_that_are_taken_over() {
    finds(Bug::NoScan, ONE_WORKER, NOTHING_HIDES);
    finds(Bug::NoScan, TWO_WORKERS, NOTHING_IS_LOST);
}

#[test]
fn listening_after_the_first_read() {
    finds(Bug::ListensLate, Klaxon { wakeup: Wakeup::Hints, ..ONE_WORKER }, NOTHING_IS_LOST);
}

#[test]
fn reading_what_is_not_committed() {
    finds(Bug::ReadsUncommitted, ONE_WORKER, ONLY_COMMITTED);
}

#[test]
fn settling_without_the_lock() {
    finds(Bug::SettlesUnowned, TWO_WORKERS, ONLY_OWNERS);
}

#[test]
fn settling_whatever_the_row_says() {
    finds(Bug::SettlesUnguarded, TWO_WORKERS, ONCE);
}

#[test]
fn handing_over_what_is_on_its_way() {
    finds(Bug::HandsOverUndrained, TWO_WORKERS, ONE_SENDS);
}

#[test]
fn reading_again_what_is_on_its_way() {
    let bounds = Klaxon { overflows: true, ..ONE_WORKER };
    finds(Bug::ForgetsFlights, bounds, ONE_SENDS);
}

/// The server need not notice that a connection is gone: the session it had keeps the shards.
#[test]
fn leaving_ones_former_session_alone() {
    finds(Bug::LeavesFormerSession, Klaxon { workers: 1, ..TWO_WORKERS }, NOTHING_IS_LOST);
}

#[test]
fn taking_in_shards_while_draining() {
    finds(Bug::TakesInWhileDraining, Klaxon { workers: 1, ..TWO_WORKERS }, DRAINS);
}

const POISON: Klaxon = Klaxon { rows: 2, workers: 3, faults: 0, poison: true, ..TWO_WORKERS };

/// Sent before it is counted, it ends one worker after another.
#[test]
fn counting_attempts_once_they_are_made() {
    finds(Bug::CountsLate, POISON, COUNTED_FIRST);
    finds(Bug::CountsLate, POISON, NOTHING_IS_LOST);
}

/// What was on its way beside the one is taken for another.
#[test]
fn taking_care_of_many_at_once() {
    finds(Bug::CareAllAtOnce, POISON, ONLY_KILLERS);
}

#[test]
fn giving_up_what_was_not_tried() {
    finds(Bug::GivesUpUntried, POISON, TRIED);
}

#[test]
fn giving_shards_up_without_saying_so() {
    finds(Bug::GivesUpInSilence, Klaxon { shards: 2, ..POISON }, ONLY_DEATHS);
}
