//! The vocabulary that both halves of pg_klaxon share: pure, and free of Postgres and of I/O.
//!
//! | module | says |
//! |---|---|
//! | [`event_type`] | which events there are, and how a name of one looks |
//! | [`payload`] | how fields of a payload are read, whatever it is stored as |
//! | [`glob`] | globs as Python's `fnmatch` reads them |
//! | [`filter`] | what else must hold of an event that a subscription names |
//! | [`seal`] | secrets sealed to the worker's public key |
//! | [`signature`] | how a webhook's receiver knows it is us |
//! | [`traceparent`] | where in a trace an event was emitted |
//! | [`version`] | which schema, library and worker go together |
//! | [`audit`] | the record of an attempt, its canonical bytes and the chain of them |

#![warn(missing_docs)]

pub mod audit;
pub mod event_type;
pub mod filter;
pub mod glob;
pub mod payload;
pub mod seal;
pub mod signature;
pub mod traceparent;
pub mod version;
