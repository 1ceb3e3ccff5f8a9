//! Finding new work.

mod snapshot;
