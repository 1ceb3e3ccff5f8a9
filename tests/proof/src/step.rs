//! What may happen next, and what it changes: transactions, sessions and faults here, what workers do in
//! [`crate::worker`].

use stateright::{Model, Property};

use crate::state::{Process, ROWS, Registered, Row, SESSIONS, Session, State, Transaction, WORKERS};
use crate::{Klaxon, Wakeup, property, worker};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A transaction writes its row, and with it gets an id.
    Begin(usize),
    Commit(usize),
    Abort(usize),
    /// A session that was to end ends.
    Ends(usize),
    /// Ten seconds without a sign of life from one that cannot give any, or two where its session has ended.
    FallsSilent(usize),
    Start(usize),
    Continue(usize),
    Does(usize, worker::Action),
    Fault(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill(usize),
    /// SIGSTOP.
    Stop(usize),
    /// SIGTERM.
    Drain(usize),
    /// The server ends the worker's session, in the middle of whatever it does.
    Terminate(usize),
    /// The worker gives up its connection, and the server does not hear of it.
    BlackHole(usize),
}

impl Model for Klaxon {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { faults: self.faults, ..State::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_some() {
            return;
        }
        self.surroundings(state, actions);
        for worker in 0..self.workers {
            let does = |action| actions.push(Action::Does(worker, action));
            self.worker_actions(state, worker, does);
        }
        if state.faults > 0 {
            (0..self.workers).for_each(|worker| faults(state, worker, actions));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = *before;
        match action {
            Action::Begin(xid) => state.transactions[xid] = Transaction::Running,
            Action::Commit(xid) => {
                state.transactions[xid] = Transaction::Committed;
                state.rows[xid] = Row::Pending { attempts: 0 };
                if self.wakeup == Wakeup::Hints {
                    state.sessions.iter_mut().for_each(|session| session.hint |= session.listening);
                }
            }
            Action::Abort(xid) => state.transactions[xid] = Transaction::Aborted,
            Action::Ends(session) => state.end_session(session),
            Action::FallsSilent(worker) => {
                if let Some(registered) = &mut state.registered[worker] {
                    registered.silent = true;
                }
            }
            Action::Start(worker) | Action::Continue(worker) => state.workers[worker].process = Process::Up,
            Action::Does(worker, action) => self.work(&mut state, worker, action),
            Action::Fault(fault) => {
                state.faults -= 1;
                befall(self, &mut state, fault);
            }
        }
        // A step that changes nothing is none.
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        property::all(self)
    }
}

impl Klaxon {
    fn surroundings(&self, state: &State, actions: &mut Vec<Action>) {
        for xid in 0..self.rows {
            match state.transactions[xid] {
                Transaction::NotBegun if xid == 0 || state.transactions[xid - 1] != Transaction::NotBegun => {
                    actions.push(Action::Begin(xid));
                }
                Transaction::Running => actions.extend([Action::Commit(xid), Action::Abort(xid)]),
                _ => {}
            }
        }
        let ending = |session: &usize| state.sessions[*session].alive && state.sessions[*session].ending;
        actions.extend((0..SESSIONS).filter(ending).map(Action::Ends));
        for worker in 0..self.workers {
            match state.workers[worker].process {
                // All alike until they start: in order.
                Process::NotStarted
                    if worker == 0 || state.workers[worker - 1].process != Process::NotStarted =>
                {
                    actions.push(Action::Start(worker));
                }
                Process::Stopped => actions.push(Action::Continue(worker)),
                _ => {}
            }
            let speaks = matches!(state.workers[worker].process, Process::Up | Process::Draining)
                && state.workers[worker].session.is_some_and(|session| state.sessions[session].alive);
            if !speaks && matches!(state.registered[worker], Some(Registered { silent: false, .. })) {
                actions.push(Action::FallsSilent(worker));
            }
        }
    }
}

fn faults(state: &State, worker: usize, actions: &mut Vec<Action>) {
    let Some(session) = state.workers[worker].session else { return };
    let process = state.workers[worker].process;
    if matches!(process, Process::Up | Process::Draining) {
        actions.extend([Fault::Kill(worker), Fault::Stop(worker)].map(Action::Fault));
    }
    if state.sessions[session].alive {
        if process == Process::Up {
            actions.extend([Fault::Drain(worker), Fault::BlackHole(worker)].map(Action::Fault));
        }
        actions.push(Action::Fault(Fault::Terminate(worker)));
    }
}

fn befall(model: &Klaxon, state: &mut State, fault: Fault) {
    match fault {
        Fault::Kill(worker) => state.kill(worker),
        Fault::Stop(worker) => state.workers[worker].process = Process::Stopped,
        Fault::Drain(worker) => {
            let knows = &mut state.workers[worker];
            knows.process = Process::Draining;
            knows.disown(knows.owned, |row| model.shard(row));
        }
        Fault::Terminate(worker) => {
            if let Some(session) = state.workers[worker].session {
                state.end_session(session);
            }
        }
        Fault::BlackHole(worker) => {
            state.forgive(worker);
            state.workers[worker].lose_session();
        }
    }
}

impl State {
    /// A session that is nobody's any more: its number is given out again.
    pub fn new_session(&mut self, listening: bool) -> usize {
        let known = |session: usize| {
            (0..WORKERS).any(|worker| {
                self.workers[worker].session == Some(session)
                    || self.registered[worker].is_some_and(|registered| registered.session == session)
            })
        };
        let session = (0..SESSIONS)
            .find(|session| !self.sessions[*session].alive && !known(*session))
            .expect("no more sessions than there can be for so many faults");
        self.sessions[session] = Session { alive: true, listening, ..Session::default() };
        session
    }

    /// Whether a row can be read.
    pub fn is_visible(&self, row: usize) -> bool {
        row < ROWS && matches!(self.rows[row], Row::Pending { .. })
    }
}
