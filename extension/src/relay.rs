//! Wake-ups without `NOTIFY` in application transactions, which would commit one at a time behind its
//! database-wide lock.
//!
//! With the library in `shared_preload_libraries`, a commit sets a bit in shared memory and a latch;
//! this background worker turns however many commits into one `NOTIFY` at once, and then into at most
//! one every [`PAUSE`]. What it loses when it or the server restarts is a hint: the worker polls.

use std::cell::Cell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init};

use crate::setting;
use crate::wakeup::{self, Signal};

/// Between one `NOTIFY` and the next: what bounds the rate, and what the second of two commits waits.
const PAUSE: Duration = Duration::from_millis(2);
/// Until a relay that ended is started again.
const RESTART: Duration = Duration::from_secs(1);
/// Until what Postgres refused to notify is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What backends and the relay share.
struct Shared {
    /// A bit for each [`Signal`] that was committed and not yet fired.
    pending: AtomicU32,
    /// The relay's latch; null while it does not run. Latches lie in shared memory, at one address in
    /// every process.
    latch: AtomicPtr<pg_sys::Latch>,
    /// The database it notifies in.
    database: AtomicU32,
}

// SAFETY: nothing but atomics.
#[allow(unsafe_code)]
unsafe impl PGRXSharedMemory for Shared {}

impl Default for Shared {
    fn default() -> Self {
        Self {
            pending: AtomicU32::new(0),
            latch: AtomicPtr::new(std::ptr::null_mut()),
            database: AtomicU32::new(0),
        }
    }
}

// SAFETY: nobody else's shared memory has this name.
#[allow(unsafe_code)]
static SHARED: PgAtomic<Shared> = unsafe { PgAtomic::new(c"klaxon relay") };

thread_local! {
    /// What this transaction's commit is to set.
    static WANTED: Cell<u32> = const { Cell::new(0) };
}

/// Whether the library was loaded with the server: only then is there shared memory.
#[allow(unsafe_code)]
pub fn is_preloading() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Reserves the shared memory and registers the background worker; from `_PG_init`.
// The macro asks for features of pgrx's that are no features of ours.
#[allow(unsafe_code, unexpected_cfgs)]
pub fn install() {
    pg_shmem_init!(SHARED);
    BackgroundWorkerBuilder::new("klaxon relay")
        .set_library("pg_klaxon")
        .set_function("klaxon_relay_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(RESTART))
        .load();
    // SAFETY: registered for the life of every backend, which inherits it; it neither allocates nor
    // raises, as callbacks at this point must not.
    unsafe { pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut()) };
}

/// Whether the relay runs, and in this database.
#[allow(unsafe_code)]
pub fn serves_this_database() -> bool {
    if !setting::is_preloaded() {
        return false;
    }
    let shared = SHARED.get();
    // SAFETY: reads a variable of this backend.
    let here = unsafe { pg_sys::MyDatabaseId }.to_u32();
    !shared.latch.load(Ordering::Acquire).is_null() && shared.database.load(Ordering::Relaxed) == here
}

/// Has this transaction's commit fire a signal.
pub fn at_commit(signal: Signal) {
    WANTED.set(WANTED.get() | bit(signal));
}

fn bit(signal: Signal) -> u32 {
    1 << signal as u32
}

#[allow(unsafe_code)]
unsafe extern "C-unwind" fn transaction_ended(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    match event {
        // By now others see what was committed.
        pg_sys::XactEvent::XACT_EVENT_COMMIT => {
            let wanted = WANTED.replace(0);
            if wanted != 0 {
                fire(wanted);
            }
        }
        // What is prepared is committed by any session at any time: the poll finds it.
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => WANTED.set(0),
        _ => {}
    }
}

#[allow(unsafe_code)]
fn fire(wanted: u32) {
    let shared = SHARED.get();
    let before = shared.pending.fetch_or(wanted, Ordering::AcqRel);
    // Bits that were set before: whoever set them set the latch too, and the relay takes them together.
    if before & wanted != wanted {
        let latch = shared.latch.load(Ordering::Acquire);
        if !latch.is_null() {
            // SAFETY: a latch in shared memory, which outlives its process; setting that of a process
            // that has ended wakes nobody, or somebody for nothing.
            unsafe { pg_sys::SetLatch(latch) };
        }
    }
}

/// The background worker.
#[pg_guard]
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
pub extern "C-unwind" fn klaxon_relay_main(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    let database = setting::relay_database();
    BackgroundWorker::connect_worker_to_spi(Some(&database), None);
    // A hint need not be durable: its transaction writes a commit record, which nobody waits for.
    set(c"synchronous_commit", c"off");
    let shared = SHARED.get();
    // SAFETY: all of it is this process's own; the callback is run at its orderly end.
    unsafe {
        pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0));
        shared.database.store(pg_sys::MyDatabaseId.to_u32(), Ordering::Relaxed);
        shared.latch.store(pg_sys::MyLatch, Ordering::Release);
    }
    let mut is_refused = false;
    loop {
        // Looked at before the first wait: commits may have found the relay of before.
        let pending = shared.pending.swap(0, Ordering::AcqRel);
        let goes_on = match notify(pending) {
            Ok(()) => {
                if pending != 0 {
                    is_refused = false;
                    std::thread::sleep(PAUSE);
                }
                shared.pending.load(Ordering::Acquire) != 0 || BackgroundWorker::wait_latch(None)
            }
            Err(said) => {
                // Once: it may last.
                if !is_refused {
                    warning!("klaxon relay cannot notify: {said}; workers find by polling what is committed");
                }
                is_refused = true;
                shared.pending.fetch_or(pending, Ordering::AcqRel);
                BackgroundWorker::wait_latch(Some(RETRY))
            }
        };
        if !goes_on {
            break;
        }
        if BackgroundWorker::sighup_received() {
            // SAFETY: the main loop of a background worker is where Postgres wants it.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
            if setting::relay_database() != database {
                break;
            }
        }
    }
    // With status 0 it would not be started again, and a stopping server starts none.
    // SAFETY: ends this process, running its callbacks.
    unsafe { pg_sys::proc_exit(1) };
}

/// Notifies of these signals. What Postgres refuses, as it does while its queue is full, does not end the relay:
/// without one, transactions would notify themselves, and be refused.
///
/// # Errors
/// What it said.
#[allow(unsafe_code)]
fn notify(pending: u32) -> Result<(), String> {
    if pending == 0 {
        return Ok(());
    }
    PgTryBuilder::new(|| {
        BackgroundWorker::transaction(|| {
            Signal::ALL.into_iter().filter(|signal| pending & bit(*signal) != 0).for_each(wakeup::notify);
        });
        Ok(())
    })
    .catch_others(|error| match &error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
            let said = report.message().to_owned();
            // SAFETY: the error has been taken off Postgres' stack of them; this releases what the transaction held,
            // as the main loop of a backend does it.
            unsafe { pg_sys::AbortCurrentTransaction() };
            Err(said)
        }
        CaughtError::RustPanic { .. } => error.rethrow(),
    })
    .execute()
}

#[allow(unsafe_code)]
fn set(name: &CStr, value: &CStr) {
    // SAFETY: both are copied.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

#[allow(unsafe_code)]
unsafe extern "C-unwind" fn leave(_code: i32, _argument: pg_sys::Datum) {
    SHARED.get().latch.store(std::ptr::null_mut(), Ordering::Release);
}
