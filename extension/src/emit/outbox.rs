//! Writing the outbox. The table's CHECKs hold by what is written, and its one trigger is for rows of other
//! transactions.

use std::ffi::CStr;

use pgrx::prelude::*;

use super::table::{Layout, Table};
use crate::relcache::{self, Learnt};

/// Shards of the outbox.
const SHARDS: i64 = 64;

/// What is written, in the order in which it is.
const COLUMNS: [&CStr; 16] = [
    c"id",
    c"event_id",
    c"event_type",
    c"project",
    c"subscription_id",
    c"channel_id",
    c"shard",
    c"cooldown_task",
    c"due_at",
    c"created_at",
    c"xid",
    c"attempts",
    c"replayed",
    c"held_back",
    c"held_for",
    c"last_error",
];

thread_local! {
    static LAYOUT: Learnt<Layout<16>> = const { Learnt::nothing() };
}

/// One delivery to be.
pub struct Delivery<'a> {
    pub event: [u8; 16],
    pub kind: &'a str,
    pub project: Option<&'a str>,
    pub subscription: i64,
    pub channel: i64,
    /// The task whose cooldown the worker has yet to settle, as [`super::write::window`] names it.
    pub cooldown_task: Option<&'a str>,
}

/// The outbox, open for writing.
pub struct Outbox(Table<16>);

/// Which of the outbox's shards a channel's deliveries are in.
pub fn shard(channel: i64) -> i16 {
    // Identities count up, so the remainder spreads them evenly.
    channel.rem_euclid(SHARDS) as i16
}

impl Outbox {
    #[allow(unsafe_code)]
    pub fn open() -> Self {
        // SAFETY: inside a transaction, and in a memory context that outlives the call that emits.
        unsafe {
            let relation = pg_sys::table_open(relcache::oid(c"outbox"), pg_sys::RowExclusiveLock as _);
            let layout = LAYOUT.with(|known| known.of((*relation).rd_id, || Layout::of(relation, COLUMNS)));
            Self(Table::of(relation, &layout))
        }
    }

    #[allow(unsafe_code)]
    pub fn insert(&mut self, delivery: &Delivery<'_>) {
        let id = uuid::Uuid::now_v7();
        // SAFETY: the values are of their columns' types. Those passed by reference are in the row's memory or in
        // this frame.
        unsafe {
            self.0.insert(|| {
                let now = Some(pg_sys::Datum::from(pg_sys::GetCurrentTransactionStartTimestamp()));
                [
                    Some(pg_sys::Datum::from(id.as_bytes().as_ptr())),
                    Some(pg_sys::Datum::from(delivery.event.as_ptr())),
                    delivery.kind.into_datum(),
                    delivery.project.into_datum(),
                    delivery.subscription.into_datum(),
                    delivery.channel.into_datum(),
                    shard(delivery.channel).into_datum(),
                    delivery.cooldown_task.into_datum(),
                    now,
                    now,
                    Some(pg_sys::Datum::from(pg_sys::GetTopFullTransactionId().value)),
                    0_i32.into_datum(),
                    false.into_datum(),
                    0_i64.into_datum(),
                    None,
                    None,
                ]
            });
        }
    }

    pub fn close(self) {
        self.0.close();
    }
}
