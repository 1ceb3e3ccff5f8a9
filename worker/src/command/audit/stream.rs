//! The log as Postgres sends it: one COPY, read row by row in constant memory.
//!
//! The rows are read where they lie in what was received, without a copy of any: a log of millions of rows is
//! verified about as fast as it is fetched.

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, pin_mut};
use indicatif::ProgressBar;
use klaxon_model::audit::{Record, Tag, Verifier};
use tokio_postgres::Transaction;

use crate::database::describe;

/// Every column the MAC covers, and the body, in the order in which [`push`] reads them.
const COLUMNS: &str = "seq, kind, delivery_id, attempt, event_id, event_type, project, subscription_id, channel_id, channel_name,
    channel_kind, status, response_code, error, response_body, duration_ms, attempted_at, worker, detail, chain, key_id, body_hash, mac";
/// How many they are.
const WIDTH: i16 = 23;

/// What a binary COPY begins with, before its flags and the length of its extension.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Pushes the rows from `first` on into the verifier, in order.
///
/// # Errors
/// Where Postgres does not send them, or sends what the table cannot hold.
pub async fn rows(
    transaction: &Transaction<'_>,
    first: i64,
    verifier: &mut Verifier,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    // COPY takes no parameters; a number needs no quotes.
    let copy = format!(
        "COPY (SELECT {COLUMNS} FROM klaxon.delivery WHERE seq >= {first} ORDER BY seq) TO STDOUT (FORMAT binary)"
    );
    let stream =
        transaction.copy_out(&copy).await.map_err(describe).context("cannot read klaxon.delivery")?;
    pin_mut!(stream);
    let (mut begun, mut read) = (false, 0u64);
    while let Some(message) = stream.next().await {
        // Postgres sends each row in a message of its own, the header before the first.
        let message = message.map_err(describe)?;
        let mut fields = Fields(&message);
        if !begun {
            fields.header()?;
            begun = true;
        }
        match fields.count()? {
            None => continue,
            Some(WIDTH) => push(&mut fields, verifier)?,
            Some(other) => bail!("klaxon.delivery was sent with {other} columns, not {WIDTH}"),
        }
        read += 1;
        if read.is_multiple_of(4096) {
            progress.set_position(read);
        }
    }
    Ok(())
}

/// How many rows the table has, whatever its indexes say.
///
/// # Errors
/// Where Postgres does not say.
pub async fn count(transaction: &Transaction<'_>) -> anyhow::Result<u64> {
    transaction
        .batch_execute("SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off")
        .await
        .map_err(describe)?;
    let row = transaction.query_one("SELECT count(*) FROM klaxon.delivery", &[]).await.map_err(describe)?;
    Ok(u64::try_from(row.try_get::<_, i64>(0)?)?)
}

fn push(fields: &mut Fields<'_>, verifier: &mut Verifier) -> anyhow::Result<()> {
    let mut record = Record {
        seq: fields.required(Fields::bigint)?,
        kind: fields.required(Fields::text)?,
        delivery_id: fields.uuid()?,
        attempt: fields.integer()?,
        event_id: fields.uuid()?,
        event_type: fields.text()?,
        project: fields.text()?,
        subscription_id: fields.bigint()?,
        channel_id: fields.bigint()?,
        channel_name: fields.text()?,
        channel_kind: fields.text()?,
        status: fields.text()?,
        response_code: fields.integer()?,
        error: fields.text()?,
        ..Record::default()
    };
    let body = fields.text()?;
    record.duration_ms = fields.integer()?;
    // Microseconds, as Postgres stores it.
    record.attempted_at = fields.required(Fields::bigint)?;
    record.worker = fields.uuid()?;
    record.detail = fields.text()?;
    record.chain = fields.required(Fields::uuid)?;
    record.key_id = fields.required(Fields::text)?;
    // A hash of another length is not what was written: it encodes as something else.
    record.body_hash = fields.next()?.map(|hash| Tag::try_from(hash).unwrap_or_default());
    verifier.push(&record, body, fields.next()?);
    Ok(())
}

/// What is left of a message: each field is its length in four bytes and itself, an absent one the length -1.
struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    fn header(&mut self) -> anyhow::Result<()> {
        if self.take(SIGNATURE.len())? != SIGNATURE {
            bail!("Postgres did not send a binary COPY");
        }
        self.take(4)?;
        let extension = i32::from_be_bytes(self.array()?);
        self.take(usize::try_from(extension)?)?;
        Ok(())
    }

    /// How many fields the row has; none after the last row.
    fn count(&mut self) -> anyhow::Result<Option<i16>> {
        let count = i16::from_be_bytes(self.array()?);
        Ok((count >= 0).then_some(count))
    }

    fn take(&mut self, length: usize) -> anyhow::Result<&'m [u8]> {
        let (taken, left) = self.0.split_at_checked(length).context("a row was sent in part")?;
        self.0 = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> anyhow::Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn next(&mut self) -> anyhow::Result<Option<&'m [u8]>> {
        match i32::from_be_bytes(self.array()?) {
            -1 => Ok(None),
            length => self.take(usize::try_from(length)?).map(Some),
        }
    }

    fn fixed<const N: usize>(&mut self) -> anyhow::Result<Option<[u8; N]>> {
        self.next()?.map(|field| field.try_into().context("a field has another length")).transpose()
    }

    fn bigint(&mut self) -> anyhow::Result<Option<i64>> {
        Ok(self.fixed()?.map(i64::from_be_bytes))
    }

    fn integer(&mut self) -> anyhow::Result<Option<i32>> {
        Ok(self.fixed()?.map(i32::from_be_bytes))
    }

    fn uuid(&mut self) -> anyhow::Result<Option<[u8; 16]>> {
        self.fixed()
    }

    fn text(&mut self) -> anyhow::Result<Option<&'m str>> {
        self.next()?.map(|text| std::str::from_utf8(text).context("a text is not UTF-8")).transpose()
    }

    fn required<T>(&mut self, read: impl Fn(&mut Self) -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
        read(self)?.context("a column is null that may not be")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verifier() -> Verifier {
        Verifier::new(Vec::new(), [0; 16], None, Vec::new())
    }

    /// A row as Postgres sends it: of each field its length and itself.
    fn row(fields: &[Option<Vec<u8>>]) -> Vec<u8> {
        let mut out = Vec::new();
        for field in fields {
            let length = field.as_ref().map_or(-1, |field| field.len() as i32);
            out.extend(length.to_be_bytes());
            out.extend(field.iter().flatten());
        }
        out
    }

    fn whole() -> Vec<Option<Vec<u8>>> {
        let (id, text) = (|| Some(vec![7; 16]), |text: &str| Some(text.as_bytes().to_vec()));
        let (int, long) = (|n: i32| Some(n.to_be_bytes().to_vec()), |n: i64| Some(n.to_be_bytes().to_vec()));
        vec![
            long(1),
            text("attempt"),
            id(),
            int(1),
            id(),
            text("run.failed"),
            None,
            long(1),
            long(2),
            text("ops"),
            text("webhook"),
            text("failed"),
            int(500),
            text("HTTP 500"),
            text("on fire"),
            int(12),
            long(0),
            id(),
            None,
            id(),
            text("key"),
            Some(vec![1; 32]),
            Some(vec![2; 32]),
        ]
    }

    #[test]
    fn a_row_is_read_to_its_end() {
        assert_eq!(whole().len(), usize::try_from(WIDTH).unwrap());
        let bytes = row(&whole());
        let (mut fields, mut verifier) = (Fields(&bytes), verifier());
        push(&mut fields, &mut verifier).unwrap();
        assert_eq!((fields.0.len(), verifier.rows(), verifier.range()), (0, 1, Some((1, 1))));
    }

    #[test]
    fn what_the_table_cannot_hold_is_refused() {
        for (at, field) in [
            (0, None),
            (0, Some(vec![0; 4])),
            (1, None),
            (1, Some(vec![0xff])),
            (2, Some(vec![0; 15])),
            (3, Some(vec![0; 8])),
            (16, None),
            (19, None),
            (20, None),
        ] {
            let mut fields = whole();
            fields[at] = field;
            let bytes = row(&fields);
            assert!(push(&mut Fields(&bytes), &mut verifier()).is_err(), "field {at}");
        }
        let header = [SIGNATURE, &[0; 4], &2i32.to_be_bytes(), b"xy", &(-1i16).to_be_bytes()].concat();
        let mut fields = Fields(&header);
        fields.header().unwrap();
        assert_eq!((fields.count().unwrap(), fields.0.len()), (None, 0));
        assert!(Fields(b"PGCOPY\n\xff\r\n\x01\0\0\0\0\0\0\0\0").header().is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_more_than_an_error(
            noise in prop::collection::vec(any::<u8>(), 0..300),
            cut in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let bytes = row(&whole());
            let shorter = &bytes[..cut.index(bytes.len())];
            prop_assert!(push(&mut Fields(shorter), &mut verifier()).is_err());
            let mut changed = bytes.clone();
            changed[at.index(bytes.len())] ^= flip;
            for bytes in [&noise, &changed] {
                let _: anyhow::Result<()> = push(&mut Fields(bytes), &mut verifier());
                let _: anyhow::Result<()> = Fields(bytes).header();
            }
        }
    }
}
