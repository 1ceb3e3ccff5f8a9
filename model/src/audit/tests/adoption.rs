//! Logs that another deployment began.

use super::super::FindingKind::*;
use super::*;

const OWN: [u8; 16] = [8; 16];

fn append(rows: &mut Vec<Row>, record: Record<'static>, key_number: u8) {
    let (seq, previous) = rows
        .last()
        .map_or((1, GENESIS), |row| (row.record.seq + 1, row.mac.clone().unwrap().try_into().unwrap()));
    let record = Record { seq, key_id: leak(key(key_number).id()), chain: OWN, ..record };
    let mac = key(key_number).seal(&record, &previous, &mut Vec::new());
    rows.push(Row { record, body: None, mac: Some(mac.to_vec()) });
}

fn adoption(rows: &[Row], former: u8) -> Record<'static> {
    let last = rows.last().unwrap();
    let adoption = Adoption {
        deployment: None,
        chain: super::super::verify::uuid_text(&last.record.chain),
        seq: last.record.seq,
        mac: hex::encode(last.mac.as_ref().unwrap()),
        key_id: key(former).id().to_owned(),
    };
    Record { kind: "adoption", detail: Some(leak(&adoption.detail())), ..record(0) }
}

/// Rows 1 to 6 of another deployment under key 1, adopted by key 2 with row 7, and 8 to 10.
fn adopted() -> Vec<Row> {
    let mut rows = chain(6);
    let record_of_it = adoption(&rows, 1);
    append(&mut rows, record_of_it, 2);
    for seq in 8..=10 {
        append(&mut rows, record(seq), 2);
    }
    rows
}

type Judged = (Verdict, Vec<(FindingKind, i64)>, Option<(i64, i64)>);

/// What is found, and which rows are not ours.
fn judge(rows: &[Row], keys: &[u8], checkpoint: Option<Checkpoint>) -> Judged {
    let adoptions = rows
        .iter()
        .filter(|row| row.record.kind == "adoption")
        .filter_map(|row| Adoption::read(row.record.seq, row.record.detail?))
        .collect();
    let keys = keys.iter().map(|n| key(*n)).collect();
    let mut verifier = Verifier::new(keys, OWN, checkpoint, adoptions);
    for row in rows {
        verifier.push(&row.record, row.body.as_deref(), row.mac.as_deref());
    }
    let not_ours = verifier.not_ours();
    let (verdict, findings) = verifier.finish(head(rows));
    (verdict, findings.into_iter().map(|finding| (finding.kind, finding.seq)).collect(), not_ours)
}

#[test]
fn what_was_before_is_another_deployments_or_verified_by_its_key() {
    let rows = adopted();
    assert_eq!(judge(&rows, &[2], None), (Verdict::Unanchored, vec![], Some((1, 6))));
    assert_eq!(judge(&rows, &[2, 1], None), (Verdict::Unanchored, vec![], None));

    let mut edited = rows.clone();
    edited[3].record.status = Some("sent");
    assert_eq!(judge(&edited, &[2, 1], None).1, [(Altered, 4)]);
    assert_eq!(judge(&edited, &[2], None).1, [], "not for us to say");
    // What can be said without a key is.
    edited[4].body = Some("nothing happened".into());
    edited.remove(1);
    assert_eq!(judge(&edited, &[2], None).1, [(Missing, 2), (Altered, 5)]);
    // The last of them is what the adoption's record follows.
    let mut last = rows.clone();
    last[5].mac = Some(vec![1; 32]);
    assert_eq!(judge(&last, &[2], None).1, [(Foreign, 1), (Altered, 7)]);
}

#[test]
fn the_same_keys_make_no_row_of_a_copy_one_of_the_original() {
    let mut rows = chain(6);
    let record_of_it = adoption(&rows, 1);
    append(&mut rows, record_of_it, 1);
    append(&mut rows, record(8), 1);
    assert_eq!(judge(&rows, &[1], None).1, []);
    let original = chain(8);
    let mut mixed = rows.clone();
    mixed[7] = original[7].clone();
    assert_eq!(judge(&mixed, &[1], None).1, [(Foreign, 8), (Forked, 8)][..1]);
}

#[test]
fn nobody_adopts_without_a_key_of_ours() {
    // Records of a chain that is ours are declared somebody else's, and written anew.
    let mut rows = chain(6);
    for row in &mut rows {
        row.record.chain = OWN;
    }
    let mut own = Vec::new();
    for row in rows {
        append(&mut own, row.record, 2);
    }
    assert_eq!(judge(&own, &[2], None).1, []);
    let mut forged = chain(4);
    let record_of_it = adoption(&forged, 1);
    append(&mut forged, record_of_it, 3);
    forged.extend(own[5..].iter().cloned());
    let found = judge(&forged, &[2], None).1;
    assert_eq!(found, [(Foreign, 1), (WrongKey, 5), (Altered, 6)]);

    // A retired key adopts nothing from under the one that followed it.
    let mut rows = own.clone();
    let record_of_it = adoption(&rows, 2);
    append(&mut rows, record_of_it, 1);
    let found = judge(&rows, &[2, 1], None).1;
    assert_eq!(found, [(Foreign, 1), (WrongKey, 7)]);
}

#[test]
fn a_record_that_is_gone_accounts_for_nothing() {
    let mut rows = adopted();
    rows.remove(6);
    let found = judge(&rows, &[2, 1], None).1;
    assert_eq!(found[0], (Foreign, 1));
    assert!(found.contains(&(Missing, 7)));
}

#[test]
fn a_copy_of_a_copy_holds_two_of_them() {
    let mut rows = adopted();
    for row in &mut rows[6..] {
        row.record.chain = OWN;
    }
    let record_of_it = adoption(&rows, 2);
    let record_of_it = Record { ..record_of_it };
    append(&mut rows, record_of_it, 3);
    append(&mut rows, record(12), 3);
    assert_eq!(judge(&rows, &[3], None), (Verdict::Unanchored, vec![], Some((1, 10))));
    assert_eq!(judge(&rows, &[3, 2], None), (Verdict::Unanchored, vec![], Some((1, 6))));
    assert_eq!(judge(&rows, &[3, 2, 1], None), (Verdict::Unanchored, vec![], None));
}

#[test]
fn what_was_before_may_have_been_pruned() {
    // By whoever had it: rows 1 to 3, with the record of it at row 13 of theirs.
    let mut rows = chain(12);
    let mac = hex::encode(rows[2].mac.as_ref().unwrap());
    let prune = leak(&format!(r#"{{"through": 3, "mac": "{mac}"}}"#));
    append(&mut rows, Record { kind: "prune", detail: Some(prune), ..record(13) }, 1);
    rows[12].record.chain = CHAIN;
    let previous = rows[11].mac.clone().unwrap().try_into().unwrap();
    rows[12].mac = Some(key(1).seal(&rows[12].record, &previous, &mut Vec::new()).to_vec());
    let record_of_it = adoption(&rows, 1);
    append(&mut rows, record_of_it, 2);
    append(&mut rows, record(15), 2);
    rows.drain(..3);
    assert_eq!(judge(&rows, &[2], None), (Verdict::Unanchored, vec![], Some((4, 13))));
    assert_eq!(judge(&rows, &[2, 1], None), (Verdict::Unanchored, vec![], None));

    // By whoever adopted it: a part of what was before, all of it, and its record as well.
    for through in [3usize, 6, 7] {
        let mut rows = adopted();
        let mac = hex::encode(rows[through - 1].mac.as_ref().unwrap());
        let prune = leak(&format!(r#"{{"through": {through}, "mac": "{mac}"}}"#));
        append(&mut rows, Record { kind: "prune", detail: Some(prune), ..record(11) }, 2);
        rows.drain(..through);
        let left = (through < 6).then_some((4, 6));
        assert_eq!(judge(&rows, &[2], None), (Verdict::Unanchored, vec![], left), "{through}");
        assert_eq!(judge(&rows, &[2, 1], None).1, [], "{through}");
    }
}

#[test]
fn a_checkpoint_of_the_former_chain_reaches_as_far_as_that() {
    let rows = adopted();
    let of = |seq: usize| {
        let mac: Tag = rows[seq - 1].mac.clone().unwrap().try_into().unwrap();
        Checkpoint::sign(&key(1), CHAIN_TEXT, rows[seq - 1].record.seq, &mac, "2026-01-01T00:00:00Z")
    };
    assert_eq!(judge(&rows, &[2, 1], Some(of(4))).0, Verdict::Clean);
    assert_eq!(judge(&rows, &[2, 1], Some(of(9))).1, [(BadCheckpoint, 9)]);
}
