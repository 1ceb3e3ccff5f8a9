-- Given up. Only where the row is as it was read; shaped as sent.sql. `attempted` tells a last
-- attempt from a row that was never sent. A delivery that died, was retried by hand and dies again
-- replaces its former self.
-- $1 deliveries, $2 channels, $3 due times and $4 attempts as they were read, $5 whether this was an attempt, $6 errors, $7 reasons
WITH settled AS MATERIALIZED (
    SELECT o.ctid, d.attempted, d.error, d.reason
    FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::integer[], $5::boolean[], $6::text[], $7::text[])
         AS d (id, channel_id, due_at, attempts, attempted, error, reason)
    CROSS JOIN LATERAL (
        SELECT o.ctid FROM klaxon.outbox AS o
        WHERE o.id = d.id AND o.channel_id = d.channel_id AND o.due_at = d.due_at AND o.attempts = d.attempts
        OFFSET 0
    ) AS o
), gone AS (
    DELETE FROM klaxon.outbox AS o
    USING settled AS s
    WHERE o.ctid = s.ctid
    RETURNING o.id, o.event_id, o.event_type, o.project, o.subscription_id, o.channel_id, o.due_at,
              o.attempts + s.attempted::integer AS attempts, coalesce(s.error, o.last_error) AS last_error, o.replayed, o.created_at, s.reason,
              o.held_back, o.held_for
)
INSERT INTO klaxon.dead_letter AS l
    (id, event_id, event_type, project, subscription_id, channel_id, due_at, attempts, last_error, replayed, created_at, dead_at, reason,
     held_back, held_for)
SELECT g.id, g.event_id, g.event_type, g.project, g.subscription_id, g.channel_id, g.due_at, g.attempts, g.last_error, g.replayed, g.created_at,
       clock_timestamp(), g.reason, g.held_back, g.held_for
FROM gone AS g
ON CONFLICT (id) DO UPDATE
SET due_at = excluded.due_at, attempts = excluded.attempts, last_error = excluded.last_error, dead_at = excluded.dead_at, reason = excluded.reason,
    held_back = excluded.held_back, held_for = excluded.held_for
RETURNING l.id
