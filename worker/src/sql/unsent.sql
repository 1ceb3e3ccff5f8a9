-- What was not delivered: to be tried again, by the database's clock, or given up. Only where the row is
-- as it was read; shaped as sent.sql. `made` is 1 for an attempt, and 0 for a row that was never sent or whose
-- attempt was counted before it was made. A delivery that died, was retried by hand and dies again replaces its former self.
-- Returned: the delivery, and when it is due again; null for one that is given up.
-- To be tried again: $1 deliveries, $2 channels, $3 due times and $4 attempts as they were read, $5 microseconds until the next, $6 errors,
-- $7 attempts made
-- Given up: $8 to $11 likewise, $12 attempts made, $13 errors, $14 reasons
WITH failed AS MATERIALIZED (
    SELECT o.ctid, f.delay, f.error, f.made
    FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::integer[], $5::bigint[], $6::text[], $7::integer[])
         AS f (id, channel_id, due_at, attempts, delay, error, made)
    CROSS JOIN LATERAL (
        SELECT o.ctid FROM klaxon.outbox AS o
        WHERE o.id = f.id AND o.channel_id = f.channel_id AND o.due_at = f.due_at AND o.attempts = f.attempts
        OFFSET 0
    ) AS o
), later AS (
    UPDATE klaxon.outbox AS o
    SET attempts = o.attempts + f.made, due_at = clock_timestamp() + f.delay * interval '1 microsecond', last_error = f.error
    FROM failed AS f
    WHERE o.ctid = f.ctid
    RETURNING o.id, o.due_at
), dead AS MATERIALIZED (
    SELECT o.ctid, d.made, d.error, d.reason
    FROM unnest($8::uuid[], $9::bigint[], $10::timestamptz[], $11::integer[], $12::integer[], $13::text[], $14::text[])
         AS d (id, channel_id, due_at, attempts, made, error, reason)
    CROSS JOIN LATERAL (
        SELECT o.ctid FROM klaxon.outbox AS o
        WHERE o.id = d.id AND o.channel_id = d.channel_id AND o.due_at = d.due_at AND o.attempts = d.attempts
        OFFSET 0
    ) AS o
), gone AS (
    DELETE FROM klaxon.outbox AS o
    USING dead AS d
    WHERE o.ctid = d.ctid
    RETURNING o.id, o.event_id, o.event_type, o.project, o.subscription_id, o.channel_id, o.due_at,
              o.attempts + d.made AS attempts, coalesce(d.error, o.last_error) AS last_error, o.replayed, o.created_at, d.reason,
              o.held_back, o.held_for
), kept AS (
    INSERT INTO klaxon.dead_letter AS l
        (id, event_id, event_type, project, subscription_id, channel_id, due_at, attempts, last_error, replayed, created_at, dead_at, reason,
         held_back, held_for)
    SELECT g.id, g.event_id, g.event_type, g.project, g.subscription_id, g.channel_id, g.due_at, g.attempts, g.last_error, g.replayed,
           g.created_at, clock_timestamp(), g.reason, g.held_back, g.held_for
    FROM gone AS g
    ON CONFLICT (id) DO UPDATE
    SET due_at = excluded.due_at, attempts = excluded.attempts, last_error = excluded.last_error, dead_at = excluded.dead_at,
        reason = excluded.reason, held_back = excluded.held_back, held_for = excluded.held_for
    RETURNING l.id
)
SELECT l.id, l.due_at FROM later AS l
UNION ALL
SELECT k.id, NULL FROM kept AS k
