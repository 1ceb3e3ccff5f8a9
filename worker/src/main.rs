//! `klaxon`, the worker of pg_klaxon.

mod backoff;
mod circuit;
mod clock;
mod discover;
mod schedule;

fn main() {}
