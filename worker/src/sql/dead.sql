-- Given up. Only where the row is as it was read; `attempted` tells a last attempt from a row that
-- was never sent. A delivery that died, was retried by hand and dies again replaces its former self.
-- $1 deliveries, $2 attempts before this one, $3 whether this was one, $4 errors, $5 reasons
WITH gone AS (
    DELETE FROM klaxon.outbox AS o
    USING unnest($1::uuid[], $2::integer[], $3::boolean[], $4::text[], $5::text[]) AS d (id, attempts, attempted, error, reason)
    WHERE o.id = d.id AND o.attempts = d.attempts
    RETURNING o.id, o.event_id, o.event_type, o.project, o.subscription_id, o.channel_id, o.due_at,
              o.attempts + d.attempted::integer AS attempts, coalesce(d.error, o.last_error) AS last_error, o.replayed, o.created_at, d.reason
)
INSERT INTO klaxon.dead_letter AS l
    (id, event_id, event_type, project, subscription_id, channel_id, due_at, attempts, last_error, replayed, created_at, dead_at, reason)
SELECT g.id, g.event_id, g.event_type, g.project, g.subscription_id, g.channel_id, g.due_at, g.attempts, g.last_error, g.replayed, g.created_at,
       clock_timestamp(), g.reason
FROM gone AS g
ON CONFLICT (id) DO UPDATE
SET due_at = excluded.due_at, attempts = excluded.attempts, last_error = excluded.last_error, dead_at = excluded.dead_at, reason = excluded.reason
RETURNING l.id
