//! The fault suite: what happens to workers, to Postgres, to the network between them and to receivers in
//! production, and what then becomes of what was committed. Each case prints a row of the table in
//! `docs/reliability.md`; lost and phantom are 0 in every one, and what comes twice was in flight at a fault.
//!
//! `make test-faults` runs the long form, one case after another; without `KLAXON_FAULTS=full` each fault
//! happens a few times only.

mod clock;
mod ground;
mod network;
mod poison;
mod postgres;
mod receivers;
mod session;
mod table;
mod worker;

/// Whether this is the long form.
fn is_full() -> bool {
    std::env::var("KLAXON_FAULTS").is_ok_and(|form| form == "full")
}

/// The figure of the long form, or that of the short one.
fn times(full: usize, short: usize) -> usize {
    if is_full() { full } else { short }
}
