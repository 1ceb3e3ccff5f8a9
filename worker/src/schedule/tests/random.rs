//! The schedule under whatever happens in whatever order.

use proptest::prelude::*;

use super::database::Database;
use super::*;

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
    Care(u8),
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
        1 => (0u8..32).prop_map(Step::Care),
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens in whatever order: each row is on its way at most once at a time, the bounds
    /// hold, a shard with something due is not idle, and in the end every row has been delivered.
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
                Step::Care(shards) => schedule.take_care((0..5).filter(|shard| shards & (1 << shard) != 0).collect()),
                Step::LoseSession => {
                    schedule.disown(Shards::all());
                    waiting.drain(..).for_each(|row| schedule.put_down(row, now));
                    take(&mut schedule, &database, Shards::all(), now);
                }
                Step::Finish { .. } | Step::Settle { .. } | Step::Decide { .. } => {}
            }
            prop_assert!(schedule.rows <= rows, "{} rows in memory", schedule.rows);
            let idle = schedule.idle(now);
            for row in in_flight.iter().chain(&ended).chain(&waiting) {
                prop_assert!(!idle.contains(row.ticket().shard()), "{} is on its way", row.id);
            }
            for row in database.rows.values().filter(|row| row.due_at <= now && !database.fresh.contains(&row.id)) {
                prop_assert!(!idle.contains(shard_of(row.channel_id)), "{} is due", row.id);
            }
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
