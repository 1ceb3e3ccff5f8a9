-- Where each channel of the shards just locked begins: a loose scan of the primary key, one probe
-- a channel, so that a new owner is at work at once whatever is pending. Only after the lock: what the
-- former owner settled is visible by then.
-- $1 the shards
WITH RECURSIVE channel AS (
    (SELECT o.channel_id, o.due_at FROM klaxon.outbox AS o ORDER BY o.channel_id, o.due_at, o.id LIMIT 1)
    UNION ALL
    SELECT o.channel_id, o.due_at
    FROM channel AS c
    CROSS JOIN LATERAL (
        SELECT o.channel_id, o.due_at FROM klaxon.outbox AS o
        WHERE o.channel_id > c.channel_id
        ORDER BY o.channel_id, o.due_at, o.id
        LIMIT 1
    ) AS o
)
SELECT c.channel_id, c.due_at
FROM channel AS c
WHERE (c.channel_id & 63) = ANY ($1::bigint[])
