-- Attempts that are counted before they are made: if the worker ends during one, the row stands as after one
-- that failed. Only where the row is as it was read; shaped as sent.sql. What last_error says marks the row
-- until the attempt is settled: discover.sql and refill.sql are told it, too.
-- Returned: the delivery, and when it is due again.
-- $1 deliveries, $2 channels, $3 due times and $4 attempts as they were read, $5 microseconds until the next, $6 what last_error says
WITH counted AS MATERIALIZED (
    SELECT o.ctid, c.delay
    FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::integer[], $5::bigint[]) AS c (id, channel_id, due_at, attempts, delay)
    CROSS JOIN LATERAL (
        SELECT o.ctid FROM klaxon.outbox AS o
        WHERE o.id = c.id AND o.channel_id = c.channel_id AND o.due_at = c.due_at AND o.attempts = c.attempts
        OFFSET 0
    ) AS o
)
UPDATE klaxon.outbox AS o
SET attempts = o.attempts + 1, due_at = clock_timestamp() + c.delay * interval '1 microsecond',
    last_error = $6
FROM counted AS c
WHERE o.ctid = c.ctid
RETURNING o.id, o.due_at
