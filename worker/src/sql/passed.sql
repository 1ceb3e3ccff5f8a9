-- What was decided of deliveries that waited for a cooldown. One that is gone was held back; one that is
-- not decided yet still waits. A probe a delivery, as in sent.sql.
-- $1 deliveries
SELECT o.id, o.passed, o.held_back, o.held_for
FROM unnest($1::uuid[]) AS d (id)
CROSS JOIN LATERAL (
    SELECT o.id, o.cooldown_task IS NULL AS passed, o.held_back, (extract(epoch FROM o.held_for) * 1000000)::bigint AS held_for
    FROM klaxon.outbox AS o WHERE o.id = d.id OFFSET 0
) AS o
