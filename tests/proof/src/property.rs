//! What must hold in every state, and what must happen in some, lest the rest be true of nothing.

use stateright::Property;

use crate::Klaxon;
use crate::state::{Job, Memory, Process, Row, State, Transaction, Wrong};

pub const NOTHING_HIDES: &str = "what is pending is known to its owner, marked, or new to its snapshot";
pub const NOTHING_IS_LOST: &str = "without more faults everything is delivered";
pub const ONE_SENDS: &str = "nothing is sent again unless something happened to its sender";
pub const ONLY_COMMITTED: &str = "nothing is sent that has not committed";
pub const ONLY_OWNERS: &str = "nothing is settled but by the owner's session";
pub const DRAINS: &str = "a worker that was told to stop sends nothing more";
pub const ONCE: &str = "no attempt is logged twice";
pub const COUNTED_FIRST: &str = "where an owner has ended, an attempt is counted before it is made";
pub const TRIED: &str = "nothing is given up that was not tried with care";
pub const ONLY_KILLERS: &str = "nothing is given up but what ends workers";
pub const ONLY_DEATHS: &str = "who gives its shards up is not taken for dead";

pub fn all(model: &Klaxon) -> Vec<Property<Klaxon>> {
    let mut properties = vec![
        Property::always(NOTHING_HIDES, |model: &Klaxon, state| model.nothing_hides(state)),
        Property::always(NOTHING_IS_LOST, |model: &Klaxon, state| model.recovers(state)),
        Property::always(ONE_SENDS, |_, state: &State| state.wrong != Some(Wrong::SentAgainForNothing)),
        Property::always(ONLY_COMMITTED, |_, state: &State| state.wrong != Some(Wrong::SentUncommitted)),
        Property::always(ONLY_OWNERS, |_, state: &State| state.wrong != Some(Wrong::SettledByStranger)),
        Property::always(DRAINS, |_, state: &State| state.wrong != Some(Wrong::SentWhileDraining)),
        Property::always(ONCE, |_, state: &State| state.wrong != Some(Wrong::LoggedTwice)),
    ];
    if model.poison {
        properties.extend([
            Property::always(COUNTED_FIRST, |_, state: &State| state.wrong != Some(Wrong::SentUncounted)),
            Property::always(TRIED, |_, state: &State| state.wrong != Some(Wrong::GivenUpUntried)),
            Property::always(ONLY_KILLERS, |_, state: &State| state.wrong != Some(Wrong::GivenUpInnocent)),
            Property::always(ONLY_DEATHS, |_, state: &State| state.wrong != Some(Wrong::DeathOfTheLiving)),
            Property::sometimes("what ends workers is given up", |_, state: &State| {
                state.rows[0] == Row::Dead
            }),
        ]);
    }
    if model.rows > 1 {
        properties.push(Property::sometimes("a commit comes late, behind the cursor", late_commit));
    }
    if model.faults > 0 {
        properties.extend([
            Property::sometimes("a worker whose session has ended still sends", |_, state: &State| {
                state.workers.iter().any(|worker| {
                    worker.session.is_some_and(|session| !state.sessions[session].alive)
                        && worker.memory.iter().any(|memory| matches!(memory, Memory::Flying(_)))
                })
            }),
            Property::sometimes("the answer to a COMMIT is lost", |_, state: &State| {
                state.workers.iter().any(|worker| {
                    matches!(worker.job, Job::Settling { settled, .. } if !settled.is_empty())
                        && worker.session.is_some_and(|session| !state.sessions[session].alive)
                })
            }),
        ]);
    }
    if model.faults > 0 && model.workers > 1 {
        properties.push(Property::sometimes("a delivery is on its way twice", |_, state: &State| {
            (0..state.rows.len()).any(|row| {
                let sending =
                    |worker: &&crate::state::Worker| matches!(worker.memory[row], Memory::Flying(_));
                state.workers.iter().filter(sending).count() > 1
            })
        }));
    }
    // Of what ends its senders there is no outcome.
    if model.faults > 0 && model.workers > 1 && model.rows > usize::from(model.poison) {
        properties.push(Property::sometimes(
            "an outcome comes late, of what another has settled",
            |_, state: &State| {
                state.workers.iter().any(|worker| {
                    (0..state.rows.len()).any(|row| {
                        matches!(worker.memory[row], Memory::Landed { .. }) && state.rows[row] == Row::Settled
                    })
                })
            },
        ));
    }
    if model.shards > 1 && model.workers > 1 {
        properties.push(Property::sometimes("a shard is handed over while work waits in it", handed_over));
    }
    properties
}

fn late_commit(_: &Klaxon, state: &State) -> bool {
    state.workers.iter().any(|worker| {
        worker.snapshot.is_some_and(|snapshot| {
            !worker.owned.is_empty()
                && snapshot.in_progress.iter().any(|xid| state.transactions[xid] == Transaction::Committed)
        })
    })
}

/// One has locked and not yet scanned what another, which lives, had before it.
fn handed_over(model: &Klaxon, state: &State) -> bool {
    state.workers.iter().any(|taker| {
        let Job::Scanning { got, .. } = taker.job else { return false };
        let waits = |shard| (0..model.rows).any(|row| model.shard(row) == shard && state.is_visible(row));
        let giver = |worker: &crate::state::Worker| {
            worker.process == Process::Up && !worker.locked.is_empty() && worker.session != taker.session
        };
        got.iter().any(waits) && state.workers.iter().any(giver)
    })
}

impl Klaxon {
    /// The invariant that discovery rests on.
    fn nothing_hides(&self, state: &State) -> bool {
        state.workers.iter().all(|worker| {
            let Some(snapshot) = worker.snapshot else { return true };
            (0..self.rows).all(|row| {
                !state.is_visible(row)
                    || !worker.owned.contains(self.shard(row))
                    || worker.memory[row] != Memory::Unknown
                    || worker.marked.contains(self.shard(row))
                    || snapshot.is_new(row)
            })
        })
    }
}
