//! What somebody who owns the tables can do to them, and where it shows.

use proptest::prelude::*;

use super::super::FindingKind::*;
use super::*;

fn found(rows: &[Row]) -> Vec<(FindingKind, i64)> {
    verify_with(rows, vec![key(2), key(1)], None, head(rows)).1
}

fn mac_of(rows: &[Row], seq: i64) -> Tag {
    let row = rows.iter().find(|row| row.record.seq == seq).unwrap();
    row.mac.clone().unwrap().try_into().unwrap()
}

/// Appends a record of the log itself.
fn note(rows: &mut Vec<Row>, kind: &'static str, detail: &str, under: u8) {
    let (seq, previous) =
        (rows.last().unwrap().record.seq + 1, mac_of(rows, rows.last().unwrap().record.seq));
    let record = Record { kind, detail: Some(leak(detail)), key_id: leak(key(under).id()), ..record(seq) };
    let mac = key(under).seal(&record, &previous, &mut Vec::new());
    rows.push(Row { record, body: None, mac: Some(mac.to_vec()) });
}

/// Rows 1 to 5 under key 1, the rotation as row 6, 7 to 12 under key 2.
fn rotated() -> Vec<Row> {
    let mut rows = chain(5);
    note(&mut rows, "rotation", &format!(r#"{{"key_id": "{}"}}"#, key(2).id()), 1);
    extend(&mut rows, 7..=12, 2)
}

/// Rows of which those through `through` were pruned, with the record of it at row 13.
fn pruned(through: i64) -> Vec<Row> {
    let mut rows = chain(12);
    let mac = hex::encode(mac_of(&rows, through));
    note(&mut rows, "prune", &format!(r#"{{"through": {through}, "mac": "{mac}"}}"#), 1);
    let mut rows = extend(&mut rows, 14..=16, 1);
    rows.retain(|row| row.record.seq > through);
    rows
}

#[test]
fn a_mac_that_was_changed_is_one_finding() {
    for at in 0..12 {
        let mut rows = chain(12);
        let ends = head(&rows);
        rows[at].mac.as_mut().unwrap()[3] ^= 1;
        let seq = rows[at].record.seq;
        assert_eq!(verify_with(&rows, vec![key(1)], None, ends).1, [(Altered, seq)]);
        rows[at].mac = None;
        assert_eq!(verify_with(&rows, vec![key(1)], None, ends).1, [(Unsealed, seq)]);
        rows[at].mac = Some(vec![0; 31]);
        assert_eq!(verify_with(&rows, vec![key(1)], None, ends).1, [(Unsealed, seq)]);
    }
}

#[test]
fn rows_that_changed_places_are_both_found_and_no_other() {
    for at in 0..10 {
        let mut rows = chain(12);
        rows.swap(at, at + 1);
        let first = at as i64 + 1;
        rows[at].record.seq = first;
        rows[at + 1].record.seq = first + 1;
        assert_eq!(found(&rows), [(Altered, first), (Altered, first + 1)]);
    }
}

#[test]
fn a_forged_row_beside_the_real_one_is_the_only_finding() {
    let mut rows = chain(12);
    let forged =
        Row { record: Record { status: Some("sent"), ..rows[6].record }, body: None, mac: Some(vec![5; 32]) };
    rows.insert(6, forged.clone());
    assert_eq!(found(&rows), [(Altered, 7), (Duplicate, 7)]);
    rows.swap(6, 7);
    assert_eq!(found(&rows), [(Duplicate, 7)]);
    for seq in [0, -1, i64::MIN] {
        let mut rows = chain(3);
        rows.insert(0, Row { record: Record { seq, ..forged.record }, ..forged.clone() });
        assert_eq!(found(&rows), [(Foreign, seq)]);
    }
}

#[test]
fn a_row_past_the_end_is_found() {
    let mut rows = chain(12);
    let ends = head(&rows);
    rows.push(Row { record: Record { seq: 20, ..rows[11].record }, ..rows[11].clone() });
    assert_eq!(verify_with(&rows, vec![key(1)], None, ends).1, [(Forked, 12), (Missing, 13)]);
}

#[test]
fn a_rotation_is_whole_or_found_once() {
    assert_eq!(found(&rotated()), []);

    let mut edited = rotated();
    edited[5].record.detail = Some("{}");
    assert_eq!(found(&edited), [(Altered, 6)]);

    let mut disguised = rotated();
    disguised[5].record.kind = "attempt";
    assert_eq!(found(&disguised), [(Altered, 6)]);

    let mut deleted = rotated();
    deleted.remove(5);
    assert_eq!(found(&deleted), [(Missing, 6)]);

    let mut neighbours = rotated();
    neighbours.drain(4..7);
    assert_eq!(found(&neighbours), [(Missing, 5)]);
}

#[test]
fn a_retired_key_signs_nothing_more() {
    // Whoever has it and the tables can compute its MACs, and is found at each row.
    let mut rows = rotated();
    let forged = extend(&mut rows, 13..=14, 1);
    assert_eq!(found(&forged), [(WrongKey, 13), (WrongKey, 14)]);

    // A gap lets a newer key begin, never an older one.
    let mut rows = rotated();
    let mut forged = extend(&mut rows, 13..=15, 1);
    forged.remove(11);
    assert_eq!(found(&forged), [(Missing, 12), (WrongKey, 13), (WrongKey, 14), (WrongKey, 15)]);

    // A rotation that nothing vouches for names no key.
    let mut rows = rotated();
    rows.remove(11);
    note(&mut rows, "rotation", &format!(r#"{{"key_id": "{}"}}"#, key(1).id()), 1);
    assert_eq!(found(&rows), [(WrongKey, 12)]);
}

#[test]
fn a_key_that_begins_without_a_rotation_is_found() {
    let mut rows = chain(5);
    let rows = extend(&mut rows, 6..=8, 2);
    assert_eq!(found(&rows), [(WrongKey, 6)]);
}

#[test]
fn a_pruned_chain_begins_where_its_record_says() {
    for through in [1, 6, 11, 12] {
        let rows = pruned(through);
        assert_eq!(found(&rows), [], "{through}");

        // One row more than the record speaks of.
        let mut more = rows.clone();
        more.remove(0);
        match through {
            12 => {}
            // Then nothing vouches for the record either.
            11 => assert_eq!(found(&more), [(Missing, 1)]),
            _ => assert_eq!(found(&more), [(Missing, through + 1)]),
        }

        let mut edited = rows.clone();
        edited[0].record.status = Some("sent");
        assert_eq!(found(&edited)[..], [(Altered, through + 1)]);
    }
    let mut silent = pruned(6);
    silent.retain(|row| row.record.kind != "prune");
    assert_eq!(found(&silent), [(Missing, 1), (Missing, 13)]);
}

#[test]
fn a_prune_grants_no_more_than_it_removed() {
    // Everything before its record is gone, of which it removed the first six rows. What it says is
    // not believed, because the row that would vouch for it is gone too.
    let mut rows = pruned(6);
    rows.retain(|row| row.record.seq >= 13);
    assert_eq!(found(&rows), [(Missing, 1)]);
    let mut rows = pruned(6);
    rows.retain(|row| row.record.seq >= 12);
    assert_eq!(found(&rows), [(Missing, 7)]);
}

#[test]
fn a_second_prune_continues_the_first() {
    let mut rows = pruned(6);
    let mac = hex::encode(mac_of(&rows, 14));
    note(&mut rows, "prune", &format!(r#"{{"through": 14, "mac": "{mac}"}}"#), 1);
    assert_eq!(found(&rows), [], "written, and its rows not yet removed");
    rows.retain(|row| row.record.seq > 14);
    assert_eq!(found(&rows), []);
}

#[test]
fn a_checkpoint_anchors_what_it_can_still_see() {
    let whole = chain(12);
    let rows = pruned(6);
    for (at, expected) in
        [(3, (Verdict::Unanchored, vec![])), (6, (Verdict::Clean, vec![])), (9, (Verdict::Clean, vec![]))]
    {
        let anchor = checkpoint(&whole[..at]);
        assert_eq!(verify_with(&rows, vec![key(1)], Some(anchor), head(&rows)), expected, "row {at}");
    }
    let other = Checkpoint::sign(&key(1), CHAIN_TEXT, 6, &[1; 32], "2026-01-01T00:00:00Z");
    assert_eq!(verify_with(&rows, vec![key(1)], Some(other), head(&rows)).1, [(Forked, 6)]);
    let elsewhere = Checkpoint::sign(&key(1), "another", 9, &mac_of(&whole, 9), "2026-01-01T00:00:00Z");
    assert_eq!(verify_with(&rows, vec![key(1)], Some(elsewhere), head(&rows)).1, [(BadCheckpoint, 9)]);
}

#[test]
fn an_emptied_log_is_seen_from_outside_alone() {
    let whole = chain(12);
    let emptied = Some((0, GENESIS));
    assert_eq!(verify_with(&[], vec![key(1)], None, emptied), (Verdict::Unanchored, vec![]));
    assert_eq!(verify_with(&[], vec![key(1)], None, head(&whole)), (Verdict::Tampered, vec![(Truncated, 1)]));
    assert_eq!(
        verify_with(&[], vec![key(1)], Some(checkpoint(&whole)), emptied),
        (Verdict::Rewound, vec![(Rewound, 1)])
    );
}

#[test]
fn the_canonical_bytes_stay_what_they_are() {
    // What is in a database re-encodes to the same bytes under every later version.
    let record = Record { key_id: leak(key(1).id()), body_hash: Some(body_hash("body")), ..record(1) };
    let mut bytes = Vec::new();
    record.encode(&GENESIS, &mut bytes);
    // Computed with Python's struct, hashlib and hmac from the description of the encoding.
    let digest: Tag = Sha256::digest(&bytes).into();
    assert_eq!(hex::encode(digest), "43879b95b57be6f0cccabecdd43ed83edef4ab82aeaf89424805f729b0bb5a53");
    assert_eq!(
        hex::encode(key(1).mac(&bytes)),
        "a4268903fc1ea893082db1247d4ac620133e910776fbb39cbd12cd13b58b2430"
    );
}

type Fields = (Option<String>, Option<String>, Option<String>, Option<i32>, Option<i64>, Option<[u8; 16]>);

fn of_fields(fields: &Fields) -> Record<'_> {
    Record {
        event_type: fields.0.as_deref(),
        project: fields.1.as_deref(),
        channel_name: fields.2.as_deref(),
        attempt: fields.3,
        subscription_id: fields.4,
        event_id: fields.5,
        key_id: "",
        ..record(1)
    }
}

proptest! {
    #[test]
    fn no_two_records_have_the_same_bytes(
        one in any::<Fields>(),
        other in any::<Fields>(),
        // Alike but for where one field ends and the next begins.
        text in "[ab]{0,6}", at in 0usize..6, to in 0usize..6,
    ) {
        let bytes = |fields: &Fields| {
            let mut out = Vec::new();
            of_fields(fields).encode(&GENESIS, &mut out);
            out
        };
        prop_assert_eq!(bytes(&one) == bytes(&other), one == other);
        let split = |at: usize| {
            let at = at.min(text.len());
            (Some(text[..at].to_owned()), Some(text[at..].to_owned()), None, None, None, None)
        };
        prop_assert_eq!(bytes(&split(at)) == bytes(&split(to)), split(at) == split(to));
    }

    #[test]
    fn any_field_of_the_chain_itself_is_found_at_its_row(at in 0usize..12, field in 0usize..6, flip in 1u8..) {
        let mut rows = chain(12);
        let ends = head(&rows);
        let row = &mut rows[at];
        let expected = match field {
            0 => { row.record.chain[0] ^= flip; Foreign }
            1 => { row.record.key_id = leak(key(2).id()); if at == 0 { Altered } else { WrongKey } }
            2 => { row.record.key_id = "x"; WrongKey }
            3 => { row.record.body_hash = None; Altered }
            4 => { row.record.detail = Some("{}"); Altered }
            _ => { row.mac.as_mut().unwrap()[usize::from(flip) % 32] ^= flip; Altered }
        };
        let seq = row.record.seq;
        prop_assert_eq!(verify_with(&rows, vec![key(2), key(1)], None, ends).1, vec![(expected, seq)]);
    }

    #[test]
    fn any_rows_taken_out_are_missing(from in 0usize..12, many in 1usize..5) {
        let mut rows = chain(12);
        let ends = head(&rows);
        rows.drain(from..(from + many).min(12));
        let found = verify_with(&rows, vec![key(1)], None, ends).1;
        let kind = if from + many >= 12 { Truncated } else { Missing };
        prop_assert_eq!(found, vec![(kind, from as i64 + 1)]);
    }

    #[test]
    fn whatever_is_edited_together_is_found_at_every_row(rows_edited in prop::collection::btree_set(0usize..12, 1..12)) {
        let mut rows = chain(12);
        for at in &rows_edited {
            rows[*at].record.status = Some("sent");
        }
        let expected: Vec<_> = rows_edited.iter().map(|at| (Altered, *at as i64 + 1)).collect();
        prop_assert_eq!(found(&rows), expected);
    }

    #[test]
    fn a_forged_row_is_found_wherever_it_stands(seq in 1i64..30, mac in prop::array::uniform32(0u8..)) {
        let mut rows = chain(12);
        let ends = head(&rows);
        let forged = Row { record: Record { seq, ..rows[0].record }, body: None, mac: Some(mac.to_vec()) };
        let at = rows.iter().position(|row| row.record.seq > seq).unwrap_or(rows.len());
        rows.insert(at, forged);
        let verdict = verify_with(&rows, vec![key(1)], None, ends).0;
        prop_assert_eq!(verdict, Verdict::Tampered);
    }
}
