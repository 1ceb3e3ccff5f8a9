//! The schedule against a model of the database: a map of rows, read as the worker's statements read it.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

fn at(seconds: i64) -> DbTime {
    DbTime::from_unix_micros(seconds * 1_000_000)
}

fn row(id: u128, channel_id: i64, due: i64) -> Pending {
    Pending {
        id: Uuid::from_u128(id),
        event_id: Some(Uuid::from_u128(id)),
        subscription_id: Some(1),
        channel_id,
        due_at: at(due),
        created_at: at(due),
        attempts: 0,
        interrupted: false,
        counted: false,
        replayed: false,
        event_type: "task.failed".to_owned(),
        project: None,
        cooldown_task: None,
        held_back: 0,
        held_for: None,
        event: Some(Happening {
            payload: RawValue::from_string("{}".to_owned()).unwrap(),
            occurred_at: at(due),
            severity: None,
        }),
    }
}

fn all_shards() -> Shards {
    (0..i16::from(SHARDS)).collect()
}

fn schedule(per_channel: usize, rows: usize) -> Schedule {
    let mut schedule = Schedule::new(Limits { per_channel, rows, bytes: 1 << 30 });
    schedule.own(all_shards());
    schedule
}

/// The rows that are pending, and where the next read of what is new begins.
#[derive(Default)]
struct Database {
    rows: BTreeMap<(i64, Place), Pending>,
    fresh: Vec<Uuid>,
    next_id: u128,
}

impl Database {
    fn insert(&mut self, channel_id: i64, due: i64) -> Pending {
        self.next_id += 1;
        let row = row(self.next_id, channel_id, due);
        self.rows.insert((channel_id, row.place()), row.clone());
        self.fresh.push(row.id);
        row
    }

    /// As `discover.sql` and, past the limit, `overflow.sql`.
    fn discover(&mut self, schedule: &mut Schedule, now: DbTime) {
        let ids = std::mem::take(&mut self.fresh);
        let fresh: Vec<_> = self.rows.values().filter(|row| ids.contains(&row.id)).cloned().collect();
        let (room, _) = schedule.room();
        if fresh.len() <= room {
            for row in fresh {
                schedule.offer(Fetched::Whole(Box::new(row)), now);
            }
        } else {
            for row in fresh {
                schedule.mark(row.channel_id, row.due_at, now);
            }
        }
    }

    /// As `refill.sql`.
    fn refill(&self, schedule: &mut Schedule, now: DbTime) {
        for ask in schedule.asks(now) {
            let from = (ask.channel_id, ask.from);
            let end = (ask.channel_id + 1, Place { due_at: DbTime::MIN, id: Uuid::nil() });
            let rows = self.rows.range(from..end).take(ask.room + 1);
            let rows = rows.map(|(_, row)| Fetched::Whole(Box::new(row.clone()))).collect();
            schedule.refill(ask.channel_id, rows, now);
        }
    }
}

fn channels_sent(schedule: &mut Schedule, now: DbTime, free: usize) -> Vec<i64> {
    let mut sent = Vec::new();
    while sent.len() < free
        && let Some(row) = schedule.next(now, free - sent.len())
    {
        sent.push(row.channel_id);
    }
    sent
}

#[test]
fn channels_take_turns_and_stay_within_their_bound() {
    let mut schedule = schedule(2, 100);
    for id in 0..9 {
        schedule.offer(Fetched::Whole(Box::new(row(id, i64::try_from(id).unwrap() % 3, 0))), at(1));
    }
    assert_eq!(channels_sent(&mut schedule, at(1), 100), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn channels_that_hang_leave_room_for_one_that_does_not() {
    let mut schedule = schedule(16, 4096);
    let mut id = 0;
    for channel_id in 0..200 {
        for _ in 0..20 {
            id += 1;
            schedule.offer(Fetched::Whole(Box::new(row(id, channel_id, 0))), at(1));
        }
    }
    let mut free = 256;
    while schedule.next(at(1), free).is_some() {
        free -= 1;
        if free == 0 {
            break;
        }
    }
    // Two hundred hang; the last slots go one at a time, and a newcomer's row still has memory.
    schedule.offer(Fetched::Whole(Box::new(row(9_999, 500, 0))), at(1));
    let mut alive = 0;
    for _ in 0..200 {
        if schedule.next(at(1), 1).is_some_and(|row| row.channel_id == 500) {
            alive += 1;
        }
    }
    assert_eq!(alive, 1);
}

#[test]
fn one_channel_gets_most_of_the_memory() {
    let mut schedule = schedule(16, 4096);
    schedule.mark(7, at(0), at(1));
    let asks = schedule.asks(at(1));
    assert_eq!(asks, [Ask { channel_id: 7, from: Place::first_at(at(0)), room: PAGE }]);
    assert!(schedule.asks(at(1)).is_empty(), "asked already");
}

#[test]
fn a_channel_with_nothing_in_memory_is_read_before_those_with_much() {
    let mut schedule = schedule(16, 100);
    let mut database = Database::default();
    for _ in 0..10 {
        database.insert(1, 0);
    }
    database.discover(&mut schedule, at(1));
    schedule.mark(1, at(0), at(1));
    schedule.mark(2, at(0), at(1));
    let asked: Vec<_> = schedule.asks(at(1)).iter().map(|ask| ask.channel_id).collect();
    assert_eq!(asked, [2, 1]);
}

#[test]
fn rows_of_the_future_cost_no_memory_and_one_alarm() {
    let mut schedule = schedule(16, 100);
    for id in 0..50 {
        schedule.offer(Fetched::Whole(Box::new(row(id, 1, 60 + i64::try_from(id).unwrap()))), at(1));
    }
    assert_eq!(schedule.rows, 0);
    assert_eq!(schedule.next_alarm(), Some(at(60)));
    schedule.wake(at(59));
    assert!(!schedule.is_hungry());
    schedule.wake(at(60));
    assert_eq!(schedule.asks(at(60)).len(), 1);
}

#[test]
fn an_open_breaker_empties_its_queue_and_probes_with_one() {
    let mut schedule = schedule(16, 100);
    let mut database = Database::default();
    for _ in 0..30 {
        database.insert(1, 0);
    }
    database.discover(&mut schedule, at(1));
    for _ in 0..10 {
        let sent = schedule.next(at(1), 1).unwrap();
        schedule.finished(&sent.ticket(), Some(Health::Fails), at(1));
        database.rows.remove(&(1, sent.place()));
        schedule.settled(&sent.ticket(), None, at(1));
    }
    assert_eq!((schedule.rows, schedule.next(at(1), 16).is_some()), (0, false));
    assert_eq!(schedule.next_alarm(), Some(at(31)));
    schedule.wake(at(31));
    database.refill(&mut schedule, at(31));
    assert_eq!(channels_sent(&mut schedule, at(31), 16).len(), 1);
}

#[test]
fn a_disabled_channel_waits_in_the_database() {
    let mut schedule = schedule(16, 100);
    let mut database = Database::default();
    for _ in 0..5 {
        database.insert(1, 0);
    }
    database.discover(&mut schedule, at(1));
    let row = schedule.next(at(1), 16).unwrap();
    schedule.put_back(row, Hold::Disabled, at(1));
    assert_eq!((schedule.rows, schedule.is_quiet()), (0, true));
    assert!(schedule.next(at(1), 16).is_none() && !schedule.is_hungry());
    assert_eq!(schedule.held().collect::<Vec<_>>(), [(1, Hold::Disabled)]);
    schedule.resume(1, at(2));
    database.refill(&mut schedule, at(2));
    assert_eq!(channels_sent(&mut schedule, at(2), 256).len(), 5);
}

#[test]
fn an_unresolved_channel_keeps_its_queue() {
    let mut schedule = schedule(16, 100);
    for id in 0..5 {
        schedule.offer(Fetched::Whole(Box::new(row(id, 1, 0))), at(1));
    }
    let row = schedule.next(at(1), 16).unwrap();
    schedule.put_back(row, Hold::Unresolved, at(1));
    assert!(schedule.next(at(1), 16).is_none());
    schedule.resume(1, at(1));
    assert_eq!(channels_sent(&mut schedule, at(1), 256).len(), 5);
}

#[test]
fn a_shard_given_up_is_drained_first() {
    let mut schedule = schedule(16, 100);
    for id in 0..5 {
        schedule.offer(Fetched::Whole(Box::new(row(id, 3, 0))), at(1));
    }
    let sent = schedule.next(at(1), 1).unwrap();
    schedule.disown([3].into_iter().collect());
    assert!(schedule.next(at(1), 16).is_none());
    assert!(!schedule.is_drained(3));
    schedule.finished(&sent.ticket(), Some(Health::Answers), at(1));
    assert!(!schedule.is_drained(3), "not yet settled");
    schedule.settled(&sent.ticket(), Some(at(9)), at(1));
    assert!(schedule.is_drained(3) && schedule.next_alarm().is_none());
    assert_eq!((schedule.rows, schedule.bytes, schedule.lanes.len()), (0, 0, 0));
}

#[test]
fn slow_channels_give_up_memory_they_do_not_use() {
    let mut schedule = schedule(1, 64);
    let mut id = 0;
    for channel_id in 0..40 {
        for _ in 0..40 {
            id += 1;
            schedule.offer(Fetched::Whole(Box::new(row(id, channel_id, 0))), at(1));
        }
    }
    let rows = schedule.lanes.get(&0).map(|lane| lane.queue.len());
    assert!(rows > Some(8), "the first took much: {rows:?}");
    schedule.mark(50, at(0), at(1));
    assert!(schedule.asks(at(1)).iter().any(|ask| ask.channel_id == 50));
    assert_eq!(schedule.lanes.get(&0).map(|lane| lane.queue.len()), Some(1));
}

#[derive(Clone, Debug)]
enum Step {
    Insert { channel_id: i64, due_in: i64 },
    Discover,
    Refill,
    Send,
    Wait,
    Decide { pick: prop::sample::Index, passes: bool },
    Finish { pick: prop::sample::Index, healthy: bool },
    Settle { pick: prop::sample::Index, retry_in: Option<i64> },
    Pass(i64),
    GiveUp(i16),
    LoseSession,
}

fn step() -> impl Strategy<Value = Step> {
    let pick = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0i64..5, -20i64..20).prop_map(|(channel_id, due_in)| Step::Insert { channel_id, due_in }),
        3 => Just(Step::Discover),
        3 => Just(Step::Refill),
        6 => Just(Step::Send),
        3 => Just(Step::Wait),
        3 => (pick(), any::<bool>()).prop_map(|(pick, passes)| Step::Decide { pick, passes }),
        5 => (pick(), prop::bool::weighted(0.7)).prop_map(|(pick, healthy)| Step::Finish { pick, healthy }),
        5 => (pick(), prop::option::weighted(0.3, 0i64..30)).prop_map(|(pick, retry_in)| Step::Settle { pick, retry_in }),
        2 => (0i64..40).prop_map(Step::Pass),
        1 => (0i16..5).prop_map(Step::GiveUp),
        1 => Just(Step::LoseSession),
    ]
}

/// As a new owner begins: `first_due.sql` over the shards it has just locked.
fn take(schedule: &mut Schedule, database: &Database, shards: Shards, now: DbTime) {
    schedule.own(shards);
    let mut last = None;
    for (channel_id, place) in database.rows.keys() {
        if last.replace(*channel_id) != Some(*channel_id) && shards.contains(shard_of(*channel_id)) {
            schedule.mark(*channel_id, place.due_at, now);
        }
    }
}

/// Everything that may be sent now.
fn send(schedule: &mut Schedule, now: i64) -> Vec<Ticket> {
    std::iter::from_fn(|| schedule.next(at(now), 100)).map(|row| row.ticket()).collect()
}

#[test]
fn a_careful_shard_sends_one_at_a_time_until_it_is_settled_and_each_channel_in_its_turn() {
    let mut schedule = schedule(16, 1_000);
    let careful: Shards = [1].into_iter().collect();
    schedule.take_care(careful);
    // Two channels of the careful shard, one of another.
    for (id, channel_id) in [(1, 1), (2, 1), (3, 65), (4, 65), (5, 2), (6, 2)] {
        schedule.offer(Fetched::Whole(Box::new(row(id, channel_id, 0))), at(1));
    }
    let (mut channels, mut others) = (Vec::new(), 0);
    for _ in 0..4 {
        let sent = send(&mut schedule, 1);
        let (cautious, free): (Vec<_>, Vec<_>) = sent.into_iter().partition(|ticket| ticket.shard() == 1);
        others += free.len();
        assert_eq!(cautious.len(), 1, "one at a time");
        schedule.finished(&cautious[0], Some(Health::Answers), at(1));
        assert!(send(&mut schedule, 1).is_empty(), "it has come back, and is not settled");
        assert!(!schedule.is_ready(), "the engine would turn for nothing");
        schedule.settled(&cautious[0], None, at(1));
        channels.push(cautious[0].channel_id);
    }
    assert_eq!((channels, others), (vec![1, 65, 1, 65], 2));
    assert!(send(&mut schedule, 1).is_empty());
}

#[test]
fn care_ends_with_all_that_waited_being_sent() {
    let mut schedule = schedule(16, 1_000);
    schedule.take_care([1].into_iter().collect());
    for (id, channel_id) in [(1, 1), (2, 1), (3, 65)] {
        schedule.offer(Fetched::Whole(Box::new(row(id, channel_id, 0))), at(1));
    }
    assert_eq!(send(&mut schedule, 1).len(), 1);
    schedule.take_care(Shards::default());
    assert_eq!(send(&mut schedule, 1).len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens in whatever order: each row is on its way at most once at a time, the bounds
    /// hold, and in the end every row has been delivered.
    #[test]
    fn nothing_is_lost_and_nothing_sent_twice(steps in prop::collection::vec(step(), 1..300)) {
        let (rows, per_channel) = (12, 3);
        let mut schedule = schedule(per_channel, rows);
        let mut database = Database::default();
        let (mut now, mut in_flight, mut ended) = (at(1_000), Vec::<Pending>::new(), Vec::<Pending>::new());
        let mut waiting = Vec::<Pending>::new();
        let mut seconds = 1_000;
        for step in steps {
            match step {
                Step::Insert { channel_id, due_in } => { database.insert(channel_id, seconds + due_in); }
                Step::Discover => database.discover(&mut schedule, now),
                Step::Refill => database.refill(&mut schedule, now),
                Step::Send => {
                    if let Some(row) = schedule.next(now, 8usize.saturating_sub(in_flight.len())) {
                        prop_assert!(row.due_at <= now);
                        prop_assert!(database.rows.contains_key(&(row.channel_id, row.place())));
                        prop_assert!(in_flight.iter().chain(&ended).chain(&waiting).all(|other| other.id != row.id));
                        in_flight.push(row);
                    }
                }
                Step::Wait => {
                    let mut next = schedule.next(now, 8usize.saturating_sub(in_flight.len()));
                    while let Some(row) = next {
                        prop_assert!(row.due_at <= now);
                        prop_assert!(in_flight.iter().chain(&ended).chain(&waiting).all(|other| other.id != row.id));
                        next = schedule.next_of(row.channel_id, now, |row| row.id.as_u128() % 3 > 0);
                        waiting.push(row);
                    }
                }
                Step::Decide { pick, passes } if !waiting.is_empty() => {
                    let row = waiting.swap_remove(pick.index(waiting.len()));
                    if passes {
                        schedule.put_down(row, now);
                    } else {
                        database.rows.remove(&(row.channel_id, row.place()));
                        schedule.finished(&row.ticket(), None, now);
                        schedule.settled(&row.ticket(), None, now);
                    }
                }
                Step::Finish { pick, healthy } if !in_flight.is_empty() => {
                    let row = in_flight.swap_remove(pick.index(in_flight.len()));
                    let health = if healthy { Health::Answers } else { Health::Fails };
                    schedule.finished(&row.ticket(), Some(health), now);
                    ended.push(row);
                }
                Step::Settle { pick, retry_in } if !ended.is_empty() => {
                    let mut row = ended.swap_remove(pick.index(ended.len()));
                    database.rows.remove(&(row.channel_id, row.place()));
                    let ticket = row.ticket();
                    if let Some(retry_in) = retry_in {
                        row.due_at = at(seconds + retry_in);
                        database.rows.insert((row.channel_id, row.place()), row.clone());
                    }
                    schedule.settled(&ticket, retry_in.map(|_| row.due_at), now);
                }
                Step::Pass(by) => { seconds += by; now = at(seconds); schedule.wake(now); }
                Step::GiveUp(shard) => {
                    let shards: Shards = [shard].into_iter().collect();
                    schedule.disown(shards);
                    let mine = |row: &Pending| row.ticket().shard() == shard;
                    waiting.extract_if(.., |row| mine(row)).for_each(|row| schedule.put_down(row, now));
                    for row in in_flight.extract_if(.., |row| mine(row)) {
                        schedule.finished(&row.ticket(), None, now);
                        ended.push(row);
                    }
                    for row in ended.extract_if(.., |row| mine(row)) {
                        database.rows.remove(&(row.channel_id, row.place()));
                        schedule.settled(&row.ticket(), None, now);
                    }
                    prop_assert!(schedule.is_drained(shard));
                    take(&mut schedule, &database, shards, now);
                }
                Step::LoseSession => {
                    schedule.disown(all_shards());
                    waiting.drain(..).for_each(|row| schedule.put_down(row, now));
                    take(&mut schedule, &database, all_shards(), now);
                }
                Step::Finish { .. } | Step::Settle { .. } | Step::Decide { .. } => {}
            }
            prop_assert!(schedule.rows <= rows, "{} rows in memory", schedule.rows);
            for channel_id in 0..5 {
                let flying = in_flight.iter().filter(|row| row.channel_id == channel_id).count();
                prop_assert!(flying <= per_channel);
            }
        }
        waiting.drain(..).for_each(|row| schedule.put_down(row, now));
        // Everything heals: what is pending must all be found and sent.
        for _ in 0..500 {
            now = now.after(Duration::from_secs(10));
            schedule.wake(now);
            database.discover(&mut schedule, now);
            database.refill(&mut schedule, now);
            while let Some(row) = schedule.next(now, 8usize.saturating_sub(in_flight.len())) {
                in_flight.push(row);
            }
            for row in in_flight.drain(..) {
                schedule.finished(&row.ticket(), Some(Health::Answers), now);
                ended.push(row);
            }
            for row in ended.drain(..) {
                database.rows.remove(&(row.channel_id, row.place()));
                schedule.settled(&row.ticket(), None, now);
            }
        }
        prop_assert!(database.rows.is_empty(), "left: {:?}", database.rows.keys());
        prop_assert_eq!((schedule.rows, schedule.bytes, schedule.known.len()), (0, 0, 0));
        prop_assert!(schedule.is_quiet());
    }
}
