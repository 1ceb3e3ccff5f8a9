//! What is delivered, and where to.

use std::sync::Arc;
use std::time::Duration;

use klaxon_model::event_type::Severity;
use klaxon_model::traceparent::Traceparent;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::config::Settings;
use crate::form::Server;

/// A channel, opened.
#[derive(Debug)]
pub struct Channel {
    /// `channel.id`.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its settings, or why they do not open.
    pub settings: Result<Settings, String>,
}

/// A project, as messages show it.
#[derive(Debug)]
pub struct Project {
    /// `project.slug`.
    pub slug: String,
    /// What people call it.
    pub name: Option<String>,
    /// Base of its links.
    pub url: Option<String>,
}

/// One attempt to be.
#[derive(Debug)]
pub struct Delivery {
    /// The delivery id: the same on every attempt.
    pub id: Uuid,
    /// The event; `None` for a digest, which is of many.
    pub event_id: Option<Uuid>,
    /// Its type, or [`DIGEST`].
    pub event_type: String,
    /// How bad it is.
    pub severity: Option<Severity>,
    /// The type it ends.
    pub resolves: Option<String>,
    /// Its project, where that is known.
    pub project: Option<Arc<Project>>,
    /// Counts from 1.
    pub attempt: i32,
    /// When it happened, in microseconds since the Unix epoch.
    pub occurred_at: i64,
    /// When this attempt is made, likewise, by the database's clock: receivers refuse what is signed for
    /// another time than theirs, and a worker's host may be off.
    pub made_at: i64,
    /// The payload as Postgres prints it.
    pub payload: Box<RawValue>,
    /// Events a cooldown held back before it.
    pub held_back: i64,
    /// How long those were collected, where that is known.
    pub held_for: Option<Duration>,
    /// What a receiver may call the parent of what it does, where the event or the attempt is traced.
    pub traceparent: Option<Traceparent>,
}

/// The type of a digest: its payload is what `klaxon.digest_payload` makes of its events, and no
/// application's.
pub const DIGEST: &str = "digest";

impl Delivery {
    /// Whether it is a digest.
    #[must_use]
    pub fn is_digest(&self) -> bool {
        self.event_id.is_none() && self.event_type == DIGEST
    }
}

/// What the worker's own configuration adds.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Base of links where a project has no url.
    pub site_url: Option<String>,
    /// The worker's own mail server.
    pub smtp: Option<Smtp>,
}

/// The worker's own mail server.
#[derive(Clone, Debug)]
pub struct Smtp {
    /// The server.
    pub server: Server,
    /// The sender's address.
    pub from: Option<String>,
    /// The sender's name.
    pub from_name: String,
}
