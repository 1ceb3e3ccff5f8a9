//! Where in a trace a session emits.

use klaxon_model::traceparent::Traceparent;
use pgrx::prelude::*;

use crate::setting;

/// The setting `klaxon.traceparent`, where it is one: the default of `event.traceparent`. What is none is no
/// error, for an application must not fail because of how it is traced.
#[pg_extern(stable, parallel_safe)]
pub fn traceparent() -> Option<String> {
    let given = setting::TRACEPARENT.get()?.into_string().ok()?;
    given.parse::<Traceparent>().is_ok().then_some(given)
}
