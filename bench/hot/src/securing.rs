//! Signatures, the chain of the log, and seals.

use std::hint::black_box;

use klaxon_model::audit::{GENESIS, Key, Record, Tag, Verifier, body_hash};
use klaxon_model::seal::{Plaintext, SecretKey, open, seal};
use klaxon_model::signature;

use crate::Operation;

/// Rows that are verified at once.
const ROWS: i64 = 100;
const CHAIN: [u8; 16] = [7; 16];
const BODY: &str = "upstream is overloaded, try again";

pub fn operations() -> anyhow::Result<Vec<Operation>> {
    let body = br#"{"id":"019a0000-0000-7000-8000-000000000001","type":"run.failed","timestamp":"2026-01-01T00:00:00.000000Z","project":null,"attempt":1,"url":null,"data":{"run_id":10000}}"#;
    let (mut buffer, mut mac, key) = (Vec::new(), GENESIS, Key::new([1; 32]));
    let id = key.id().to_owned();
    let (log, verifying) = (log(&Key::new([1; 32])), Key::new([1; 32]).to_base64());
    let secret = SecretKey::from_base64("d8Yq2nJbKn2n0Dm0kG0x1uQ3cZb6v2m2o1m5z3sQ3Vg=")?;
    let (public, plaintext) = (secret.public(), plaintext());
    let sealed = seal(&public, &plaintext);
    Ok(vec![
        Operation::new("sign_webhook", || {
            black_box(signature::standard_webhooks("whsec_c2VjcmV0", "019a", 1_767_225_601, black_box(body)));
        }),
        Operation::new("chain_append", move || {
            mac = key.seal(black_box(&record(1, &id)), &mac, &mut buffer);
        }),
        Operation::new("chain_verify_100", move || {
            let key = Key::from_base64(&verifying).expect("it is one");
            let id = key.id().to_owned();
            let mut verifier = Verifier::new(vec![key], CHAIN, None, Vec::new());
            for (seq, mac) in (1..).zip(&log) {
                verifier.push(black_box(&record(seq, &id)), Some(BODY), Some(mac));
            }
            let (_, findings) = verifier.finish(None);
            assert!(findings.is_empty(), "{findings:?}");
        }),
        Operation::new("seal", move || {
            black_box(seal(&public, black_box(&plaintext)));
        }),
        Operation::new("open", move || {
            assert!(open(std::slice::from_ref(&secret), black_box(&sealed)).is_ok(), "it opens");
        }),
    ])
}

/// A failed attempt, as most rows are not: with all that a row can have.
fn record(seq: i64, key_id: &str) -> Record<'_> {
    Record {
        seq,
        kind: "attempt",
        delivery_id: Some([2; 16]),
        attempt: Some(1),
        event_id: Some([3; 16]),
        event_type: Some("run.failed"),
        project: Some("billing"),
        subscription_id: Some(1),
        channel_id: Some(4),
        channel_name: Some("ops"),
        channel_kind: Some("webhook"),
        status: Some("failed"),
        response_code: Some(503),
        error: Some("HTTP 503"),
        duration_ms: Some(12),
        attempted_at: 820_454_400_000_000 + seq,
        worker: Some([5; 16]),
        detail: None,
        chain: CHAIN,
        key_id,
        body_hash: Some(body_hash(BODY)),
    }
}

fn log(key: &Key) -> Vec<Tag> {
    let (mut mac, mut buffer) = (GENESIS, Vec::new());
    let mut append = |seq| {
        mac = key.seal(&record(seq, key.id()), &mac, &mut buffer);
        mac
    };
    (1..=ROWS).map(&mut append).collect()
}

fn plaintext() -> Plaintext {
    Plaintext {
        v: 1,
        channel: Some(7),
        destination: Some("https://hooks.example.com:443".into()),
        field: "hmac_secret".into(),
        value: "whsec_c2VjcmV0".into(),
    }
}
