-- To be tried again, by the database's clock. Only where the row is as it was sent; shaped as
-- sent.sql.
-- $1 deliveries, $2 channels, $3 due times and $4 attempts as they were read, $5 microseconds until the next, $6 errors
WITH settled AS MATERIALIZED (
    SELECT o.ctid, f.delay, f.error
    FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::integer[], $5::bigint[], $6::text[])
         AS f (id, channel_id, due_at, attempts, delay, error)
    CROSS JOIN LATERAL (
        SELECT o.ctid FROM klaxon.outbox AS o
        WHERE o.id = f.id AND o.channel_id = f.channel_id AND o.due_at = f.due_at AND o.attempts = f.attempts
        OFFSET 0
    ) AS o
)
UPDATE klaxon.outbox AS o
SET attempts = o.attempts + 1, due_at = clock_timestamp() + s.delay * interval '1 microsecond', last_error = s.error
FROM settled AS s
WHERE o.ctid = s.ctid
RETURNING o.id, o.due_at
