-- What was decided of deliveries that waited for a cooldown. One that is gone was held back; one that is
-- not decided yet still waits. A probe a delivery, as in sent.sql.
-- $1 deliveries, $2 channels and $3 due times as they were read
SELECT o.id, o.passed, o.held_back, o.held_for
FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) AS d (id, channel_id, due_at)
CROSS JOIN LATERAL (
    SELECT o.id, o.cooldown_task IS NULL AS passed, o.held_back, (extract(epoch FROM o.held_for) * 1000000)::bigint AS held_for
    FROM klaxon.outbox AS o WHERE o.id = d.id AND o.channel_id = d.channel_id AND o.due_at = d.due_at OFFSET 0
) AS o
