-- What became visible since the last snapshot. One statement, so one snapshot: the one it returns is
-- the one its rows were read under, and the next call begins where this one ended. Two index scans
-- rather than an OR: a bitmap would be built whole before the limit could stop it.
-- One row comes back even where nothing is new, for the snapshot; and no other where there are as many as
-- asked for, which is `more` than there is room for.
-- $1 the last snapshot's xmax, $2 what was in progress then, $3 shards owned, $4 rows at most, $5 bytes at most,
-- $6 what last_error says of an attempt that was counted and not settled
WITH fresh AS MATERIALIZED (
    SELECT o.id, o.event_id, o.subscription_id, o.channel_id, o.due_at, o.created_at, o.attempts, o.replayed, o.event_type, o.project,
           coalesce(o.last_error = $6::text, false) AS interrupted,
           o.cooldown_task, o.held_back, (extract(epoch FROM o.held_for) * 1000000)::bigint AS held_for
    FROM (
        SELECT * FROM klaxon.outbox AS o
        WHERE o.xid >= $1::text::xid8 AND (o.channel_id & 63) = ANY ($3::bigint[])
        UNION ALL
        SELECT * FROM klaxon.outbox AS o
        WHERE o.xid = ANY ($2::text[]::xid8[]) AND (o.channel_id & 63) = ANY ($3::bigint[])
    ) AS o
    LIMIT $4::bigint
), with_event AS (
    SELECT f.*, e.payload, e.occurred_at, e.severity, e.traceparent
    FROM (SELECT * FROM fresh WHERE NOT (SELECT count(*) >= $4::bigint FROM fresh)) AS f
    LEFT JOIN LATERAL (
        SELECT e.payload::text AS payload, e.occurred_at, NULL AS severity, e.traceparent FROM klaxon.event AS e WHERE e.id = f.event_id
        UNION ALL
        SELECT d.payload::text, f.created_at, d.payload ->> 'severity', NULL FROM klaxon.digest_payload(f.id, f.held_back) AS d (payload)
        WHERE f.event_id IS NULL AND f.event_type = 'digest'
        OFFSET 0
    ) AS e ON true
), bounded AS (
    SELECT w.*, coalesce(sum(octet_length(w.payload)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(w.payload) >= $5::bigint, false) AS cut
    FROM with_event AS w
)
SELECT pg_current_snapshot()::text AS snapshot, clock_timestamp() AS now, (SELECT count(*) >= $4::bigint FROM fresh) AS more,
       b.id, b.event_id, b.subscription_id, b.channel_id, b.due_at, b.created_at, b.attempts, b.replayed, b.event_type, b.project,
       b.interrupted, b.cooldown_task, b.held_back, b.held_for, b.severity, b.traceparent,
       CASE WHEN NOT b.cut THEN b.payload END AS payload, b.occurred_at, b.cut
FROM (VALUES (true)) AS one (row)
LEFT JOIN bounded AS b ON true
