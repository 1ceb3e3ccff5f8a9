//! Shards that are worked with care.

use super::*;

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

#[test]
fn a_shard_is_idle_once_nothing_of_it_is_due_or_on_its_way() {
    let idle = |schedule: &Schedule, now: i64| schedule.idle(at(now)).contains(1);
    let mut schedule = schedule(16, 1_000);
    assert!(idle(&schedule, 1));
    schedule.mark(1, at(10), at(1));
    assert!(idle(&schedule, 9) && !idle(&schedule, 10), "what is of the future is not due");
    schedule.wake(at(10));
    let asks = schedule.asks(at(10));
    assert!(!idle(&schedule, 10), "it is being read");
    schedule.refill(asks[0].channel_id, vec![Fetched::Whole(Box::new(row(1, 1, 10)))], at(10));
    assert!(!idle(&schedule, 10), "it is in memory");
    let first = send(&mut schedule, 10).remove(0);
    assert!(!idle(&schedule, 10), "it is on its way");
    schedule.finished(&first, Some(Health::Answers), at(10));
    assert!(!idle(&schedule, 10), "it is not settled");
    schedule.settled(&first, Some(at(30)), at(10));
    assert!(idle(&schedule, 10) && !idle(&schedule, 30), "it is tried again later");
    // Another channel of the shard; and a channel that stands still has not therefore nothing left.
    schedule.offer(Fetched::Whole(Box::new(row(2, 65, 10))), at(10));
    schedule.hold(65, Hold::Disabled, at(10));
    assert!(!idle(&schedule, 10));
    // Of what is another worker's nothing is known.
    schedule.disown(Shards::all());
    assert!(schedule.idle(at(30)).is_empty());
}
