mod adoption;
mod attack;

use proptest::prelude::*;

use super::*;

const CHAIN: [u8; 16] = [7; 16];
const CHAIN_TEXT: &str = "07070707-0707-0707-0707-070707070707";

/// A row as the table holds it.
#[derive(Clone)]
struct Row {
    record: Record<'static>,
    body: Option<String>,
    mac: Option<Vec<u8>>,
}

fn key(n: u8) -> Key {
    Key::new([n; 32])
}

fn record(seq: i64) -> Record<'static> {
    Record {
        seq,
        kind: "attempt",
        delivery_id: Some([seq as u8; 16]),
        attempt: Some(1),
        event_id: Some([9; 16]),
        event_type: Some("run.failed"),
        project: Some("billing"),
        subscription_id: Some(1),
        channel_id: Some(2),
        channel_name: Some("ops"),
        channel_kind: Some("webhook"),
        status: Some("failed"),
        response_code: Some(500),
        error: Some("HTTP 500"),
        duration_ms: Some(12),
        attempted_at: 1_000_000 + seq,
        worker: Some([3; 16]),
        detail: None,
        chain: CHAIN,
        key_id: "",
        body_hash: None,
    }
}

/// A chain of `rows` under key 1, each with a body.
fn chain(rows: i64) -> Vec<Row> {
    extend(&mut Vec::new(), 1..=rows, 1)
}

fn extend(chain: &mut Vec<Row>, seqs: std::ops::RangeInclusive<i64>, key_number: u8) -> Vec<Row> {
    let key = key(key_number);
    let mut previous = chain.last().map_or(GENESIS, |row| row.mac.clone().unwrap().try_into().unwrap());
    for seq in seqs {
        let body = format!("body {seq}");
        let record = Record { body_hash: Some(body_hash(&body)), key_id: leak(key.id()), ..record(seq) };
        previous = key.seal(&record, &previous, &mut Vec::new());
        chain.push(Row { record, body: Some(body), mac: Some(previous.to_vec()) });
    }
    chain.clone()
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn head(rows: &[Row]) -> Option<(i64, Tag)> {
    rows.last().map(|row| (row.record.seq, row.mac.clone().unwrap().try_into().unwrap()))
}

fn verify_with(
    rows: &[Row],
    keys: Vec<Key>,
    checkpoint: Option<Checkpoint>,
    head: Option<(i64, Tag)>,
) -> (Verdict, Vec<(FindingKind, i64)>) {
    let mut verifier = Verifier::new(keys, CHAIN, checkpoint, Vec::new());
    for row in rows {
        verifier.push(&row.record, row.body.as_deref(), row.mac.as_deref());
    }
    let (verdict, findings) = verifier.finish(head);
    (verdict, findings.into_iter().map(|finding| (finding.kind, finding.seq)).collect())
}

fn verify(rows: &[Row]) -> (Verdict, Vec<(FindingKind, i64)>) {
    verify_with(rows, vec![key(1)], None, None)
}

fn checkpoint(rows: &[Row]) -> Checkpoint {
    let (seq, mac) = head(rows).unwrap();
    Checkpoint::sign(&key(1), CHAIN_TEXT, seq, &mac, "2026-01-01T00:00:00Z")
}

#[test]
fn a_whole_chain_is_clean_up_to_a_checkpoint() {
    let rows = chain(20);
    assert_eq!(verify(&rows), (Verdict::Unanchored, vec![]));
    let anchor = checkpoint(&rows[..10]);
    assert_eq!(verify_with(&rows, vec![key(1)], Some(anchor), head(&rows)), (Verdict::Clean, vec![]));
    assert_eq!(verify(&[]), (Verdict::Unanchored, vec![]));
}

#[test]
fn each_attack_is_named_at_its_row() {
    use FindingKind::*;
    let whole = chain(20);

    let mut edited = whole.clone();
    edited[6].record.status = Some("sent");
    assert_eq!(verify(&edited).1, [(Altered, 7)]);

    let mut body = whole.clone();
    body[6].body = Some("nothing happened".into());
    assert_eq!(verify(&body).1, [(Altered, 7)]);

    let mut blanked = whole.clone();
    blanked[6].body = None;
    assert_eq!(verify(&blanked).1, []);

    let mut deleted = whole.clone();
    deleted.drain(6..8);
    assert_eq!(verify(&deleted).1, [(Missing, 7)]);

    let mut swapped = whole.clone();
    swapped.swap(6, 7);
    swapped[6].record.seq = 7;
    swapped[7].record.seq = 8;
    let found = verify(&swapped).1;
    assert!(found.contains(&(Altered, 7)) && found.contains(&(Altered, 8)), "{found:?}");

    let mut inserted = whole.clone();
    inserted.push(Row { record: Record { seq: 21, ..whole[19].record }, ..whole[19].clone() });
    assert_eq!(verify(&inserted).1, [(Altered, 21)]);

    let mut twice = whole.clone();
    twice.insert(7, whole[6].clone());
    assert_eq!(verify(&twice).1, [(Duplicate, 7)]);

    let mut foreign = whole.clone();
    foreign[6].record.chain = [8; 16];
    assert_eq!(verify(&foreign).1, [(Foreign, 7)]);

    let mut bare = whole.clone();
    bare[6].mac = None;
    assert_eq!(verify(&bare).1[0], (Unsealed, 7));

    let mut other = whole.clone();
    other[6].record.key_id = "0000000000000000";
    assert_eq!(verify(&other).1, [(WrongKey, 7)]);

    let mut beheaded = whole.clone();
    beheaded.remove(0);
    assert_eq!(verify(&beheaded).1, [(Missing, 1)]);
}

#[test]
fn a_cut_tail_shows_against_the_head_and_a_checkpoint() {
    let whole = chain(20);
    let cut = &whole[..15];
    assert_eq!(verify(cut).0, Verdict::Unanchored);
    assert_eq!(
        verify_with(cut, vec![key(1)], None, head(&whole)),
        (Verdict::Tampered, vec![(FindingKind::Truncated, 16)])
    );
    assert_eq!(
        verify_with(cut, vec![key(1)], Some(checkpoint(&whole)), None),
        (Verdict::Tampered, vec![(FindingKind::Truncated, 16)])
    );
    // A backup agrees with itself.
    assert_eq!(
        verify_with(cut, vec![key(1)], Some(checkpoint(&whole)), head(cut)),
        (Verdict::Rewound, vec![(FindingKind::Rewound, 16)])
    );
}

#[test]
fn a_history_that_went_another_way_is_forked() {
    let whole = chain(20);
    let mut other = chain(10);
    other[9].record.status = Some("sent");
    let mac =
        key(1).seal(&other[9].record, &whole[8].mac.clone().unwrap().try_into().unwrap(), &mut Vec::new());
    other[9].mac = Some(mac.to_vec());
    extend(&mut other, 11..=20, 1);
    assert_eq!(verify(&other).0, Verdict::Unanchored);
    let found = verify_with(&other, vec![key(1)], Some(checkpoint(&whole[..10])), head(&other));
    assert_eq!(found, (Verdict::Rewound, vec![(FindingKind::Forked, 10)]), "a backup that was gone on from");
    let found = verify_with(&other, vec![key(1)], Some(checkpoint(&whole[..10])), None);
    assert_eq!(found, (Verdict::Tampered, vec![(FindingKind::Forked, 10)]), "without its own head");
    other[14].record.status = Some("dead");
    let found = verify_with(&other, vec![key(1)], Some(checkpoint(&whole[..10])), head(&other));
    assert_eq!(
        found,
        (Verdict::Tampered, vec![(FindingKind::Forked, 10), (FindingKind::Altered, 15)]),
        "and changed since"
    );
}

#[test]
fn a_key_is_valid_in_its_range_alone() {
    let mut rows = chain(5);
    let detail = leak(&format!("{{\"key_id\": \"{}\"}}", key(2).id()));
    let rotation = Record { kind: "rotation", detail: Some(detail), key_id: leak(key(1).id()), ..record(6) };
    let previous: Tag = rows[4].mac.clone().unwrap().try_into().unwrap();
    let mac = key(1).seal(&rotation, &previous, &mut Vec::new());
    rows.push(Row { record: rotation, body: None, mac: Some(mac.to_vec()) });
    let rotated = extend(&mut rows, 7..=9, 2);
    assert_eq!(verify_with(&rotated, vec![key(2), key(1)], None, None), (Verdict::Unanchored, vec![]));

    let mut relapse = rotated.clone();
    extend(&mut relapse, 10..=10, 1);
    assert_eq!(verify_with(&relapse, vec![key(2), key(1)], None, None).1, [(FindingKind::WrongKey, 10)]);
}

#[test]
fn a_checkpoint_is_signed() {
    let rows = chain(3);
    let json = serde_json::to_string(&checkpoint(&rows)).unwrap();
    assert!(Checkpoint::read(&json, &[key(2), key(1)]).is_ok());
    assert_eq!(Checkpoint::read(&json, &[key(2)]), Err(CheckpointError::Signature));
    let moved = json.replace("\"seq\":3", "\"seq\":2");
    assert_eq!(Checkpoint::read(&moved, &[key(1)]), Err(CheckpointError::Signature));
    assert!(matches!(Checkpoint::read("{}", &[key(1)]), Err(CheckpointError::Unreadable(_))));
}

#[test]
fn an_absent_field_is_not_an_empty_one_and_fields_do_not_run_together() {
    let tag = |record: Record<'_>| key(1).seal(&record, &GENESIS, &mut Vec::new());
    let base = record(1);
    let variants = [
        tag(base),
        tag(Record { error: None, ..base }),
        tag(Record { error: Some(""), ..base }),
        tag(Record { channel_name: Some("opsw"), channel_kind: Some("ebhook"), ..base }),
        tag(Record { project: Some("billingrun"), ..base }),
        tag(Record { attempt: None, ..base }),
        tag(Record { attempt: Some(0), ..base }),
    ];
    for (i, one) in variants.iter().enumerate() {
        assert!(variants[i + 1..].iter().all(|other| one != other), "variant {i}");
    }
}

#[test]
fn keys_read_back_and_have_names() {
    let made = Key::generate();
    let read = Key::from_base64(&made.to_base64()).unwrap();
    assert_eq!((read.id(), read.mac(b"x")), (made.id(), made.mac(b"x")));
    assert_eq!(made.id().len(), 16);
    assert!(Key::from_base64("AAAA").is_err());
    assert_eq!(format!("{made:?}"), format!("Key({})", made.id()));
}

/// A key can be neither printed nor serialised, and leaves nothing behind.
mod key_type {
    use std::fmt::Display;

    use serde::Serialize;
    use sha2::Sha256;
    use static_assertions::{assert_impl_all, assert_not_impl_any};
    use zeroize::{ZeroizeOnDrop, Zeroizing};

    use super::Key;

    assert_not_impl_any!(Key: Display, Serialize, Copy, AsRef<[u8]>);
    assert_impl_all!(Key: ZeroizeOnDrop);
    // What it is made of: the state of HMAC is two of this hash's.
    assert_impl_all!(Sha256: ZeroizeOnDrop);
    assert_impl_all!(Zeroizing<[u8; 32]>: ZeroizeOnDrop);
}

proptest! {
    #[test]
    fn any_changed_column_is_found_at_its_row(at in 0usize..12, column in 0usize..16, text in "[a-z]{0,6}", number in 100i32..200) {
        let mut rows = chain(12);
        let text = leak(&format!("changed {text}"));
        let record = &mut rows[at].record;
        match column {
            0 => record.kind = "config",
            1 => record.delivery_id = Some([200; 16]),
            2 => record.attempt = Some(number),
            3 => record.event_id = None,
            4 => record.event_type = Some(text),
            5 => record.project = None,
            6 => record.subscription_id = Some(number.into()),
            7 => record.channel_id = Some(number.into()),
            8 => record.channel_name = Some(text),
            9 => record.channel_kind = Some(text),
            10 => record.status = Some("dead"),
            11 => record.response_code = Some(number),
            12 => record.error = Some(text),
            13 => record.duration_ms = Some(number),
            14 => record.attempted_at += i64::from(number),
            _ => record.worker = None,
        }
        let seq = record.seq;
        prop_assert_eq!(verify(&rows).1, vec![(FindingKind::Altered, seq)]);
    }
}
