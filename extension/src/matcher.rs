//! The subscriptions that an event of one type in one project can reach, compiled once a backend.
//!
//! Compiled matchers are kept by (type, project) and loaded when such an event is first met, so a
//! fresh connection does not pay for subscriptions it never meets. [`crate::relcache`] says when
//! they are out of date.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use klaxon_model::filter::Event;
use klaxon_model::glob::{Glob, GlobSet};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use pgrx::spi::OwnedPreparedStatement;

use crate::condition::Condition;
use crate::failure;
use crate::jsonb::JsonbPayload;
use crate::jsonpath::Truth;
use crate::relcache;
use crate::schema;
use crate::snapshot;

/// What a backend keeps before it starts anew: subscriptions in matchers, of some 250 bytes each, and the
/// matchers themselves. Enough for any one application, and a bound on the memory of one that meets
/// every project there is.
const KEPT: usize = 500_000;
/// What a project's name counts for that means nothing here: emitters make up as many as they like.
const MADE_UP: usize = 50;

/// A project's name and default branch. A row without either: a restore of a part left subscriptions
/// to a project that is not there.
const KNOWN: &str = "
    SELECT coalesce(p.name, p.slug), p.default_branch
    FROM (VALUES ($1)) AS e (slug) LEFT JOIN klaxon.project AS p ON p.slug OPERATOR(pg_catalog.=) e.slug
    WHERE p.slug IS NOT NULL
       OR EXISTS (SELECT FROM klaxon.subscription AS s WHERE s.project OPERATOR(pg_catalog.=) e.slug)";

/// Where one delivery would go.
pub struct Target {
    pub channel: i64,
    pub name: String,
    /// Why nothing is sent there.
    pub obstacle: Option<String>,
}

/// One subscription, compiled.
pub struct Subscription {
    pub id: i64,
    pub owner: Option<String>,
    pub digest: bool,
    /// Microseconds; 0 is none.
    pub cooldown_us: i64,
    /// Microseconds since 2000-01-01.
    muted_until: Option<i64>,
    pub in_app: bool,
    pub from_default: bool,
    pub targets: Vec<Target>,
    /// Why its owner hears of no event of this kind here.
    obstacle: Option<String>,
    condition: Rc<Condition>,
}

impl Subscription {
    /// Where something is sent.
    pub fn reachable(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().filter(|target| target.obstacle.is_none())
    }
}

/// Why a subscription hears nothing of an event.
pub enum Refusal {
    Obstacle(String),
    Muted(i64),
    Filter(String),
    /// `where` raised an error.
    Unknown,
}

/// All of one (type, project).
pub struct Matcher {
    default_branch: Option<String>,
    /// Whether the project is in `klaxon.project`.
    pub project_name: Option<String>,
    subscriptions: Vec<Subscription>,
    /// Task name globs, and which subscription each is of.
    globs: GlobSet,
    glob_of: Vec<usize>,
    /// Subscriptions without such a glob.
    rest: Vec<usize>,
}

/// An event as the matcher sees it.
pub struct Candidate<'a> {
    pub kind: &'a str,
    /// Microseconds since 2000-01-01.
    pub now: i64,
}

impl Matcher {
    /// Whether anything could match at all.
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// Calls `hit` for each subscription the event matches and `unknown` for each whose `where` raised.
    pub fn matches<'m>(
        &'m self,
        candidate: &Candidate<'_>,
        payload: &JsonbPayload,
        mut hit: impl FnMut(&'m Subscription),
        mut unknown: impl FnMut(&'m Subscription),
    ) {
        let mut judge = |index: usize| {
            let subscription = &self.subscriptions[index];
            match self.judge(subscription, candidate, payload) {
                Ok(()) => hit(subscription),
                Err(Refusal::Unknown) => unknown(subscription),
                Err(_) => {}
            }
        };
        self.rest.iter().copied().for_each(&mut judge);
        if !self.glob_of.is_empty() {
            use klaxon_model::payload::Payload as _;
            if let Some(task) = payload.text("task_name") {
                let mut matched = Vec::new();
                self.globs.matches(&task, &mut matched);
                matched.into_iter().map(|glob| self.glob_of[glob]).for_each(judge);
            }
        }
    }

    /// Every subscription that could be meant, with the first reason against it.
    pub fn explain<'m>(
        &'m self,
        candidate: &Candidate<'_>,
        payload: &JsonbPayload,
    ) -> impl Iterator<Item = (&'m Subscription, Result<(), Refusal>)> {
        self.subscriptions.iter().map(move |s| (s, self.judge(s, candidate, payload)))
    }

    fn judge(
        &self,
        subscription: &Subscription,
        candidate: &Candidate<'_>,
        payload: &JsonbPayload,
    ) -> Result<(), Refusal> {
        if let Some(until) = subscription.muted_until
            && until > candidate.now
        {
            return Err(Refusal::Muted(until));
        }
        if let Some(obstacle) = &subscription.obstacle {
            return Err(Refusal::Obstacle(obstacle.clone()));
        }
        let event =
            Event { event_type: candidate.kind, default_branch: self.default_branch.as_deref(), payload };
        let condition = &*subscription.condition;
        condition.filters.check(&event).map_err(|mismatch| Refusal::Filter(mismatch.to_string()))?;
        let owner = subscription.owner.as_deref();
        match condition.predicate.as_ref().map(|p| p.holds(payload.datum(), owner)) {
            None | Some(Truth::True) => Ok(()),
            Some(Truth::False) => Err(Refusal::Filter("filter where: the predicate is false".into())),
            Some(Truth::Unknown) => Err(Refusal::Unknown),
        }
    }
}

#[derive(Default)]
struct Cache {
    generation: u64,
    types: Option<Rc<HashSet<String>>>,
    matchers: HashMap<String, HashMap<Option<String>, Rc<Matcher>>>,
    /// By what they say: the most of what a subscription takes, once for all matchers that it is in.
    conditions: HashMap<String, Rc<Condition>>,
    kept: usize,
    load: Option<Rc<OwnedPreparedStatement>>,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// The matcher of one type and project. Raises where there is no such type.
pub fn of(kind: &str, project: Option<&str>) -> Rc<Matcher> {
    kept(kind, project).unwrap_or_else(|| {
        let generation = relcache::generation();
        check_type(kind);
        let (matcher, size) = match load(kind, project) {
            Some(matcher) => {
                let size = 1 + matcher.subscriptions.len();
                (Rc::new(matcher), size)
            }
            // Whatever its name is, they hear of it who hear of all.
            None => (of(kind, None), MADE_UP),
        };
        keep(generation, kind, project, &matcher, size);
        matcher
    })
}

/// The same, where it is compiled already.
pub fn kept(kind: &str, project: Option<&str>) -> Option<Rc<Matcher>> {
    let generation = relcache::generation();
    CACHE.with_borrow_mut(|cache| {
        if cache.generation != generation {
            *cache = Cache { generation, load: cache.load.take(), ..Cache::default() };
        }
        // A borrowed Option<&str> cannot look an Option<String> up without one allocation; the
        // caller asks once per run of equal keys, not per event.
        cache.matchers.get(kind)?.get(&project.map(str::to_owned)).cloned()
    })
}

/// Keeps a matcher, unless something was invalidated while it was being compiled.
fn keep(generation: u64, kind: &str, project: Option<&str>, matcher: &Rc<Matcher>, size: usize) {
    if relcache::generation() != generation {
        return;
    }
    CACHE.with_borrow_mut(|cache| {
        cache.kept += size;
        if cache.kept > KEPT {
            cache.matchers.clear();
            // Those that this matcher shares stay shared.
            cache.conditions.retain(|_, condition| Rc::strong_count(condition) > 1);
            cache.kept = size;
        }
        cache
            .matchers
            .entry(kind.to_owned())
            .or_default()
            .insert(project.map(str::to_owned), Rc::clone(matcher));
    });
}

fn condition(filters: String) -> Rc<Condition> {
    if let Some(known) = CACHE.with_borrow(|cache| cache.conditions.get(&filters).cloned()) {
        return known;
    }
    let condition = Rc::new(Condition::compile(&filters));
    CACHE.with_borrow_mut(|cache| cache.conditions.insert(filters, Rc::clone(&condition)));
    condition
}

/// Raises, listing the types there are, where `kind` is none of them.
pub fn check_type(kind: &str) {
    let generation = relcache::generation();
    let types = CACHE.with_borrow(|cache| cache.types.clone().filter(|_| cache.generation == generation));
    let types = types.unwrap_or_else(|| {
        let types = Rc::new(load_types());
        CACHE.with_borrow_mut(|cache| {
            if cache.generation == generation && relcache::generation() == generation {
                cache.types = Some(Rc::clone(&types));
            }
        });
        types
    });
    if types.contains(kind) {
        return;
    }
    let mut names: Vec<&str> = types.iter().map(String::as_str).collect();
    names.sort_unstable();
    failure::raise(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("unknown event type \"{kind}\""),
        Some(format!("The event types are: {}.", names.join(", "))),
        "Correct the name, or INSERT the new type into klaxon.event_type.",
    )
}

fn load_types() -> HashSet<String> {
    schema::check();
    relcache::remember_subscription();
    relcache::bind_to_transaction();
    snapshot::latest(|| {
        Spi::connect(|client| {
            client
                .select("SELECT name FROM klaxon.event_type", None, &[])?
                .map(|row| row.get::<String>(1).map(Option::unwrap_or_default))
                .collect::<Result<_, _>>()
        })
    })
    .unwrap_or_else(|error| failure::internal(&error))
}

/// None where the project means nothing here: no row and no subscription names it.
fn load(kind: &str, project: Option<&str>) -> Option<Matcher> {
    schema::check();
    relcache::remember_subscription();
    relcache::bind_to_transaction();
    snapshot::latest(|| Spi::connect(|client| read(client, kind, project)))
        .unwrap_or_else(|error| failure::internal(&error))
}

fn read(client: &spi::SpiClient<'_>, kind: &str, project: Option<&str>) -> spi::Result<Option<Matcher>> {
    let (project_name, default_branch) = match project {
        None => (None, None),
        Some(slug) => {
            let found = client.select(KNOWN, Some(1), &[slug.into()])?.first();
            if found.is_empty() {
                return Ok(None);
            }
            found.get_two::<String, String>()?
        }
    };
    let mut subscriptions = Vec::new();
    let plan = match CACHE.with_borrow(|cache| cache.load.clone()) {
        Some(plan) => plan,
        None => {
            let text = PgOid::BuiltIn(PgBuiltInOids::TEXTOID);
            let plan = Rc::new(client.prepare(include_str!("sql/load_matcher.sql"), &[text, text])?.keep());
            CACHE.with_borrow_mut(|cache| cache.load = Some(Rc::clone(&plan)));
            plan
        }
    };
    for row in client.select(&*plan, None, &[kind.into(), project.into()])? {
        if let Some(subscription) = compile(kind, &row)? {
            subscriptions.push(subscription);
        }
    }
    Ok(Some(assemble(subscriptions, project_name, default_branch)))
}

fn assemble(
    subscriptions: Vec<Subscription>,
    project_name: Option<String>,
    default_branch: Option<String>,
) -> Matcher {
    let mut globs: Vec<Glob> = Vec::new();
    let mut glob_of = Vec::new();
    let mut rest = Vec::new();
    for (index, subscription) in subscriptions.iter().enumerate() {
        match subscription.condition.filters.task_name_pattern() {
            Some(glob) => {
                globs.push(glob.clone());
                glob_of.push(index);
            }
            None => rest.push(index),
        }
    }
    Matcher { default_branch, project_name, subscriptions, globs: GlobSet::new(globs), glob_of, rest }
}

/// A row of `load_matcher.sql`; `None` where none of its globs means this type.
fn compile(kind: &str, row: &spi::SpiHeapTupleData<'_>) -> spi::Result<Option<Subscription>> {
    let events: Vec<String> = row["events"].value()?.unwrap_or_default();
    let meant =
        |pattern: &String| pattern == kind || Glob::new(pattern).is_ok_and(|glob| glob.is_match(kind));
    if !events.iter().any(meant) {
        return Ok(None);
    }
    let condition = condition(row["filters"].value()?.unwrap_or_default());
    let ids: Vec<i64> = row["ids"].value()?.unwrap_or_default();
    let names: Vec<String> = row["names"].value()?.unwrap_or_default();
    let obstacles: Vec<Option<String>> = row["obstacles"].value()?.unwrap_or_default();
    let targets = ids
        .into_iter()
        .zip(names)
        .zip(obstacles)
        .map(|((channel, name), obstacle)| Target { channel, name, obstacle })
        .collect();
    Ok(Some(Subscription {
        id: row["id"].value()?.unwrap_or_default(),
        owner: row["owner"].value()?,
        digest: row["digest"].value()?.unwrap_or_default(),
        cooldown_us: row["cooldown_us"].value()?.unwrap_or_default(),
        muted_until: row["muted_until"].value::<TimestampWithTimeZone>()?.map(microseconds),
        in_app: row["in_app"].value()?.unwrap_or_default(),
        from_default: row["from_default"].value()?.unwrap_or_default(),
        targets,
        obstacle: row["obstacle"].value::<String>()?.or_else(|| condition.broken.clone()),
        condition,
    }))
}

/// Microseconds since 2000-01-01, infinities at the ends.
fn microseconds(time: TimestampWithTimeZone) -> i64 {
    i64::from(time)
}
