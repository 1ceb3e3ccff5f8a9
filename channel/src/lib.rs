//! The kinds of channel, each whole in one file: what its configuration may say, what is sent for a
//! message, and what the answers mean. Pure: the database checks configurations with it, the worker
//! renders and reads with it, and neither Postgres nor the network is known here.
//!
//! | module | says |
//! |---|---|
//! | [`kind`] | which kinds there are, a row and a file each |
//! | [`config`] | what is checked when a configuration is written, and opened before it is used |
//! | [`form`] | what a kind is asked for: a request or mail, and the meaning of its answer |
//! | [`delivery`] | what is delivered, and where to |
//! | [`title`] | what happened, in a line a person understands |
//! | [`message`] | what every kind says, before it says it in its own form |
//! | [`sample`] | payloads such as applications send |
//! | [`template`] | a channel's own words |
//! | [`text`] | texts of payloads, made fit to be shown |
//! | [`digest`] | many events in one message |
//! | [`answer`] | the tables of answers |

#![warn(missing_docs)]

pub mod answer;
pub mod config;
pub mod delivery;
pub mod digest;
pub mod form;
pub mod kind;
pub mod message;
pub mod sample;
pub mod template;
pub mod text;
pub mod title;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vendor_tests;
