//! The schedule by itself: what is sent and read in which order, and within which bounds.

mod care;
mod database;
mod random;

use std::time::Duration;

use serde_json::value::RawValue;

use self::database::Database;
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
            traceparent: None,
        }),
    }
}

fn schedule(per_channel: usize, rows: usize) -> Schedule {
    let mut schedule = Schedule::new(Limits { per_channel, in_flight: 256, rows, bytes: 1 << 30 });
    schedule.own(Shards::all());
    schedule
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

/// Sends what may be sent beside what is in flight.
fn fill(schedule: &mut Schedule, now: DbTime, in_flight: &mut Vec<Ticket>) {
    while let Some(row) = schedule.next(now, 256 - in_flight.len()) {
        in_flight.push(row.ticket());
    }
}

#[test]
fn channels_that_answer_at_once_get_all_but_a_reserve_until_they_hang() {
    let (mut schedule, mut in_flight) = (schedule(256, 40_000), Vec::new());
    for id in 0..20_000 {
        schedule.offer(Fetched::Whole(Box::new(row(id, i64::try_from(id).unwrap() % 4, 0))), at(1));
    }
    fill(&mut schedule, at(1), &mut in_flight);
    assert_eq!(in_flight.len(), 128, "half, of four that have not answered yet");
    for _ in 0..3 {
        for ticket in std::mem::take(&mut in_flight) {
            schedule.finished(&ticket, Some(Health::Answers), at(1));
        }
        fill(&mut schedule, at(1), &mut in_flight);
    }
    assert_eq!(in_flight.len(), 248, "all but the reserve");

    for (id, channel_id) in (30_000..).zip(10..14) {
        schedule.offer(Fetched::Whole(Box::new(row(id, channel_id, 0))), at(2));
    }
    let before = in_flight.len();
    fill(&mut schedule, at(2), &mut in_flight);
    let newcomers = in_flight[before..].iter().filter(|ticket| ticket.channel_id >= 10).count();
    assert_eq!(newcomers, 4, "each has its turn while the others hang");
    for ticket in in_flight.drain(..8) {
        schedule.finished(&ticket, Some(Health::Lags), at(9));
    }
    fill(&mut schedule, at(9), &mut in_flight);
    assert_eq!(in_flight.len(), before + 4 - 8, "and what hangs gets no more than any other");
}

#[test]
fn few_in_flight_have_a_reserve_too() {
    let alone = |in_flight| {
        let mut schedule =
            Schedule::new(Limits { per_channel: in_flight, in_flight, rows: 4096, bytes: 1 << 30 });
        schedule.own(Shards::all());
        for id in 0..1_000 {
            schedule.offer(Fetched::Whole(Box::new(row(id, 1, 0))), at(1));
        }
        let mut flying = Vec::new();
        for _ in 0..2 {
            for ticket in std::mem::take(&mut flying) {
                schedule.finished(&ticket, Some(Health::Answers), at(1));
            }
            while let Some(row) = schedule.next(at(1), in_flight - flying.len()) {
                flying.push(row.ticket());
            }
        }
        flying.len()
    };
    let sizes = [1, 2, 4, 8, 15, 16, 32, 64, 128, 256, 512];
    assert_eq!(sizes.map(alone), [1, 2, 3, 6, 12, 12, 28, 60, 124, 248, 496]);
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
