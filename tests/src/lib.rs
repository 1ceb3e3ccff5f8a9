//! What the black-box tests and the demo stand on: a private cluster, the real worker process, and
//! receivers that verify and refuse as real ones do.
//!
//! Every server is on loopback, on a port of its own, and ended by its process id. Waiting is for
//! signals: a recorded request, a line of a log, a notification. [`until::until`] is the one
//! place that polls, for conditions that only SQL can answer.

pub mod authority;
pub mod cluster;
pub mod collector;
pub mod counterpart;
pub mod database;
pub mod faketime;
pub mod history;
pub mod hostile;
pub mod http;
pub mod https;
pub mod limit;
pub mod mta;
pub mod name_server;
pub mod network;
pub mod notify_queue;
pub mod pooler;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod release;
pub mod scene;
pub mod signature;
pub mod smtp;
pub mod telegram_emulator;
pub mod until;
pub mod vendor;
pub mod worker;
