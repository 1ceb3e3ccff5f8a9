//! Watched tables: the trigger that turns their rows into events, and the functions that set it up.
//!
//! What a query over somebody's table may do is that somebody's: it runs with the rights of the
//! watcher's creator, or of the table's owner where the query is ours, in the restricted context that
//! Postgres uses for index expressions. Only what it returned is written with the extension's.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::OwnedPreparedStatement;
use pgrx::{PgRelation, Spi};

use crate::failure;
use crate::identity::{as_owner, has_rights_of, principal, role_of_name, run_as};
use crate::subtransaction::{Caught, attempt};

mod check;
pub mod setup;

const WATCHER: &str = "
    SELECT kind, created_by, on_error, insert_query, update_query, delete_query, tick_query, target::pg_catalog.oid
    FROM klaxon.watcher WHERE id OPERATOR(pg_catalog.=) $1";
const EMIT: &str = "SELECT klaxon.emit_watched($1, $2, $3, $4, $5, $6)";
const RECORD: &str =
    "INSERT INTO klaxon.watcher_error (watcher_id, row, sqlstate, message) VALUES ($1, $2, $3, $4)";
/// What the clock meets it meets every second: once in ten minutes is enough to know.
const RECORD_ONCE: &str = "
    INSERT INTO klaxon.watcher_error (watcher_id, sqlstate, message)
    SELECT $1::bigint, $2::pg_catalog.text, $3::pg_catalog.text WHERE NOT EXISTS (
        SELECT FROM klaxon.watcher_error AS e
        WHERE e.failed_at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) '10 min'::pg_catalog.interval)
          AND e.watcher_id OPERATOR(pg_catalog.=) $1 AND e.message OPERATOR(pg_catalog.=) $3)";
const ROW: &str = "
    SELECT pg_catalog.left(s.r::text, 1000)
    FROM (SELECT pg_catalog.row_number() OVER () AS n, klaxon_row AS r FROM klaxon_new AS klaxon_row) AS s
    WHERE s.n OPERATOR(pg_catalog.=) $1";
/// Rows of one statement that are looked for one by one. Finding each costs a few passes over the
/// statement's rows, and a writer must not wait for thousands of them.
const BLAMED: usize = 100;

/// A watcher, as its row says.
struct Watcher {
    id: i64,
    kind: String,
    created_by: String,
    fails: bool,
    insert_query: String,
    update_query: String,
    delete_query: Option<String>,
    tick_query: Option<String>,
    target: pg_sys::Oid,
}

/// What its query returned, by column.
#[derive(Default)]
struct Found {
    types: Vec<String>,
    projects: Vec<Option<String>>,
    payloads: Vec<String>,
    keys: Vec<Option<String>>,
    agains: Vec<bool>,
}

/// AFTER INSERT, UPDATE or DELETE, once a statement.
#[pg_trigger]
pub fn watched<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByRust>>, PgTriggerError> {
    let id = trigger.extra_args()?.first().and_then(|text| text.parse::<i64>().ok());
    let by = principal();
    // A trigger that a dump brought without its watcher has nothing to do.
    if let Some(watcher) = id.and_then(|id| as_owner(|| Watcher::read(id))) {
        let query = match trigger.trigger_data().tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_UPDATE => &watcher.update_query,
            pg_sys::TRIGGER_EVENT_DELETE => watcher.delete_query.as_ref().unwrap_or(&watcher.insert_query),
            _ => &watcher.insert_query,
        };
        watcher.pass(&by, query, trigger);
    }
    Ok(None)
}

/// Emits what a watcher's clock query finds, with the rights of the extension's owner. Returns the SQLSTATE of what it
/// raised: the message may quote a row, which is not everybody's to read.
#[pg_extern(volatile, strict)]
pub fn poll_watcher(id: i64) -> Option<String> {
    let by = principal();
    let watcher = as_owner(|| Watcher::read(id))?;
    watcher.look(&by, watcher.tick_query.as_ref()?)
}

impl Watcher {
    fn read(id: i64) -> Option<Self> {
        let found = Spi::connect(|client| -> spi::Result<Option<Self>> {
            let rows = client.select(WATCHER, Some(1), &[id.into()])?;
            let Some(row) = rows.into_iter().next() else { return Ok(None) };
            Ok(Some(Self {
                id,
                kind: row.get::<String>(1)?.unwrap_or_default(),
                created_by: row.get::<String>(2)?.unwrap_or_default(),
                fails: row.get::<&str>(3)? == Some("fail"),
                insert_query: row.get::<String>(4)?.unwrap_or_default(),
                update_query: row.get::<String>(5)?.unwrap_or_default(),
                delete_query: row.get::<String>(6)?,
                tick_query: row.get::<String>(7)?,
                target: row.get::<pg_sys::Oid>(8)?.unwrap_or(pg_sys::InvalidOid),
            }))
        });
        found.unwrap_or_else(|error| failure::internal(&error))
    }

    /// What the clock finds. It aborts nobody's statement, whatever `on_error` says. Returns the SQLSTATE of what is
    /// recorded.
    fn look(&self, by: &str, query: &str) -> Option<String> {
        let relation = relation(self.target)?;
        let query = query.replace("{target}", &name_of(&relation));
        let caught = match self.role(&relation) {
            Ok(role) => attempt(|| self.run(by, role, &query, None, None)).err()?,
            Err(gone) => gone,
        };
        let arguments: [DatumWithOid<'_>; 3] =
            [self.id.into(), caught.sqlstate().into(), caught.message.as_str().into()];
        as_owner(|| Spi::run_with_args(RECORD_ONCE, &arguments))
            .unwrap_or_else(|error| failure::internal(&error));
        Some(caught.sqlstate())
    }

    /// Everything at once; and where that raises, row by row, to know which it is and emit the others.
    fn pass(&self, by: &str, query: &str, trigger: &PgTrigger<'_>) {
        let Some(relation) = relation(self.target) else { return };
        let query = query.replace("{target}", &name_of(&relation));
        let role = match self.role(&relation) {
            Ok(role) => role,
            Err(gone) => return self.refuse(&gone, None),
        };
        if !is_paired(trigger) {
            let lost = "rows of OLD and NEW cannot be paired: a trigger of a partition dropped rows that moved to it";
            return self.refuse(&Caught::invalid(lost.to_owned()), None);
        }
        let trigger = Some(trigger);
        let run = |rows| attempt(|| self.run(by, role, &query, rows, trigger));
        let Err(whole) = run(None) else { return };
        let count = attempt(|| run_as(role, || count_rows(trigger))).unwrap_or_default();
        // Where it fails on no row at all it is the query that is broken, and no row is to blame.
        if count == 0 || run(Some((0, 0))).is_err() {
            return self.refuse(&whole, None);
        }
        let mut blamed = 0;
        let mut failed = vec![((1, count), whole)];
        while let Some(((first, last), caught)) = failed.pop() {
            if first == last || blamed == BLAMED {
                let row = (first == last)
                    .then(|| attempt(|| run_as(role, || row_text(trigger, first))).ok().flatten())
                    .flatten();
                let place = if first == last { format!("{first}") } else { format!("{first} to {last}") };
                self.refuse(&caught, Some(self.row_named(&relation, row, &place)));
                blamed += usize::from(first == last);
                continue;
            }
            // Both halves before either is looked into, so that what is sound is told of in order.
            let middle = first + (last - first) / 2;
            let halves = [(first, middle), (middle + 1, last)];
            let results: Vec<_> = halves.into_iter().map(|rows| (rows, run(Some(rows)))).collect();
            failed.extend(results.into_iter().rev().filter_map(|(rows, r)| r.err().map(|e| (rows, e))));
        }
    }

    /// The row, for the error that a writer sees only where it may see rows of the table.
    fn row_named(&self, relation: &PgRelation, row: Option<String>, place: &str) -> String {
        match row {
            Some(row) if !self.fails || check::may_read(relation) => row,
            _ => format!("number {place} of the statement"),
        }
    }

    /// Who evaluates. A table's types have code of its owner's (casts, domains, output functions),
    /// which must not run with more rights than the owner has: a creator who could become the owner
    /// is taken for it.
    fn role(&self, relation: &PgRelation) -> Result<pg_sys::Oid, Caught> {
        let owner = owner_of(relation);
        if self.kind != "custom" {
            return Ok(owner);
        }
        match role_of_name(&self.created_by) {
            Some(by) => Ok(if has_rights_of(by, owner) { owner } else { by }),
            None => {
                let gone = format!("role \"{}\", who made it, does not exist", self.created_by);
                Err(Caught::invalid(gone))
            }
        }
    }

    fn run(
        &self,
        by: &str,
        role: pg_sys::Oid,
        query: &str,
        rows: Option<(i64, i64)>,
        trigger: Option<&PgTrigger<'_>>,
    ) {
        let found = run_as(role, || evaluate(query, rows, trigger));
        if !found.types.is_empty() {
            as_owner(|| found.emit(by)).unwrap_or_else(|error| failure::internal(&error));
        }
    }

    /// Aborts the writer's statement, or writes down what was skipped.
    fn refuse(&self, caught: &Caught, row: Option<String>) {
        if self.fails {
            failure::raise(
                caught.code,
                format!("watcher {}: {}", self.id, caught.message),
                row.map(|row| format!("The row is {row}.")),
                "UPDATE klaxon.watcher SET on_error = 'skip' has such rows skipped and recorded instead.",
            );
        }
        let state = caught.sqlstate();
        let arguments: [DatumWithOid<'_>; 4] =
            [self.id.into(), row.into(), state.into(), caught.message.as_str().into()];
        as_owner(|| Spi::run_with_args(RECORD, &arguments)).unwrap_or_else(|error| failure::internal(&error));
    }
}

impl Found {
    fn emit(self, by: &str) -> spi::Result<()> {
        Spi::run_with_args(
            EMIT,
            &[
                by.into(),
                self.types.into(),
                self.projects.into(),
                self.payloads.into(),
                self.keys.into(),
                self.agains.into(),
            ],
        )
    }
}

fn evaluate(query: &str, rows: Option<(i64, i64)>, trigger: Option<&PgTrigger<'_>>) -> Found {
    let (first, last) = rows.unzip();
    with_transition_tables(trigger, |client| {
        let mut found = Found::default();
        let plan = plan(client, query)?;
        for row in client.update(&*plan, None, &[first.into(), last.into()])? {
            // A payload that is null is none: the event carries nothing.
            found.types.push(row.get::<String>(2)?.unwrap_or_default());
            found.projects.push(row.get::<String>(3)?);
            found.payloads.push(row.get::<String>(4)?.unwrap_or_else(|| "{}".to_owned()));
            found.keys.push(row.get::<String>(5)?);
            found.agains.push(row.get::<bool>(6)?.unwrap_or_default());
        }
        Ok(found)
    })
}

/// Whether an UPDATE has as many rows of OLD as of NEW: they are paired by their numbers. It has fewer of
/// NEW where a row that moves to another partition is dropped by a BEFORE INSERT trigger there.
#[allow(unsafe_code)]
fn is_paired(trigger: &PgTrigger<'_>) -> bool {
    let data = trigger.trigger_data();
    if data.tg_oldtable.is_null() || data.tg_newtable.is_null() {
        return true;
    }
    // SAFETY: Postgres keeps both until the trigger returns; counting moves no read pointer.
    unsafe {
        pg_sys::tuplestore_tuple_count(data.tg_oldtable) == pg_sys::tuplestore_tuple_count(data.tg_newtable)
    }
}

thread_local! {
    /// Planned once a backend: planning takes longer than a row does. Postgres plans anew by itself
    /// where a table has changed, and a watcher that has changed has another query.
    static PLANS: RefCell<HashMap<String, Rc<OwnedPreparedStatement>>> = RefCell::default();
}

/// Plans a backend keeps before it starts anew.
const KEPT: usize = 256;

fn plan(client: &spi::SpiClient<'_>, query: &str) -> spi::Result<Rc<OwnedPreparedStatement>> {
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(query).cloned()) {
        return Ok(plan);
    }
    let number = PgOid::BuiltIn(PgBuiltInOids::INT8OID);
    let plan = Rc::new(client.prepare(query, &[number, number])?.keep());
    PLANS.with_borrow_mut(|plans| {
        if plans.len() >= KEPT {
            plans.clear();
        }
        plans.insert(query.to_owned(), Rc::clone(&plan));
    });
    Ok(plan)
}

fn count_rows(trigger: Option<&PgTrigger<'_>>) -> i64 {
    with_transition_tables(trigger, |client| {
        client.select("SELECT pg_catalog.count(*) FROM klaxon_new", None, &[])?.first().get_one::<i64>()
    })
    .unwrap_or_default()
}

fn row_text(trigger: Option<&PgTrigger<'_>>, number: i64) -> Option<String> {
    with_transition_tables(trigger, |client| {
        client.select(ROW, Some(1), &[number.into()])?.first().get_one::<String>()
    })
}

#[allow(unsafe_code)]
fn with_transition_tables<T>(
    trigger: Option<&PgTrigger<'_>>,
    work: impl FnOnce(&mut spi::SpiClient<'_>) -> spi::Result<T>,
) -> T {
    // As a query that may write: only such a one sees what the statement wrote.
    Spi::connect_mut(|client| {
        if let Some(trigger) = trigger {
            // SAFETY: within an SPI connection of the trigger's own call, whose data outlive it.
            unsafe {
                pg_sys::SPI_register_trigger_data(std::ptr::from_ref(trigger.trigger_data()).cast_mut());
            }
        }
        work(client)
    })
    .unwrap_or_else(|error| failure::internal(&error))
}

#[allow(unsafe_code)]
fn relation(oid: pg_sys::Oid) -> Option<PgRelation> {
    // SAFETY: opening takes the lock that reading the relation's row needs; a dropped one is null.
    unsafe {
        let relation = pg_sys::try_relation_open(oid, pg_sys::AccessShareLock as _);
        (!relation.is_null()).then(|| PgRelation::from_pg_owned(relation))
    }
}

fn name_of(relation: &PgRelation) -> String {
    format!("{}.{}", spi::quote_identifier(relation.namespace()), spi::quote_identifier(relation.name()))
}

#[allow(unsafe_code)]
fn owner_of(relation: &PgRelation) -> pg_sys::Oid {
    // SAFETY: rd_rel is set for every open relation.
    unsafe { (*relation.rd_rel).relowner }
}
