-- More became visible than there is room for: of each channel only where it begins, so that the
-- rows are read in their turn. The same condition as discover.sql, under a snapshot of its own.
-- $1 the last snapshot's xmax, $2 what was in progress then, $3 shards owned
WITH fresh AS (
    SELECT o.channel_id, min(o.due_at) AS due_at
    FROM (
        SELECT * FROM klaxon.outbox AS o
        WHERE o.xid >= $1::text::xid8 AND (o.channel_id & 63) = ANY ($3::bigint[])
        UNION ALL
        SELECT * FROM klaxon.outbox AS o
        WHERE o.xid = ANY ($2::text[]::xid8[]) AND (o.channel_id & 63) = ANY ($3::bigint[])
    ) AS o
    GROUP BY o.channel_id
)
SELECT pg_current_snapshot()::text AS snapshot, clock_timestamp() AS now, f.channel_id, f.due_at
FROM (VALUES (true)) AS one (row)
LEFT JOIN fresh AS f ON true
