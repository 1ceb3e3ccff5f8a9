-- The next rows of several channels, each from its mark on: one index range a channel, however many
-- rows wait behind it and however many were settled before it. One row more than there is room for,
-- to see where the rest begins. Past the bound on bytes a row comes without its payload, as `cut`. The time
-- is the statement's: with a clock that moves, each step would be written out before the next, and a row that
-- becomes due between two looks at it would be given out as one whose event is missing.
-- $1 channels, $2 and $3 where each begins, $4 room for each, $5 bytes at most,
-- $6 what last_error says of an attempt that was counted and not settled
WITH next AS MATERIALIZED (
    SELECT o.*
    FROM unnest($1::bigint[], $2::timestamptz[], $3::uuid[], $4::bigint[]) AS ask (channel_id, due_at, id, room)
    CROSS JOIN LATERAL (
        SELECT o.id, o.event_id, o.subscription_id, o.channel_id, o.due_at, o.created_at, o.attempts, o.replayed, o.event_type, o.project,
               coalesce(o.last_error = $6::text, false) AS interrupted,
               o.cooldown_task, o.held_back, (extract(epoch FROM o.held_for) * 1000000)::bigint AS held_for
        FROM klaxon.outbox AS o
        WHERE o.channel_id = ask.channel_id AND (o.due_at, o.id) >= (ask.due_at, ask.id)
        ORDER BY o.channel_id, o.due_at, o.id
        LIMIT ask.room + 1
    ) AS o
), with_event AS (
    SELECT n.*, e.payload, e.occurred_at, e.severity, e.traceparent
    FROM next AS n
    LEFT JOIN LATERAL (
        -- What is not yet due is only looked at for its time.
        SELECT e.payload::text AS payload, e.occurred_at, NULL AS severity, e.traceparent FROM klaxon.event AS e
        WHERE e.id = n.event_id AND n.due_at <= statement_timestamp()
        UNION ALL
        SELECT d.payload::text, n.created_at, d.payload ->> 'severity', NULL FROM klaxon.digest_payload(n.id, n.held_back) AS d (payload)
        WHERE n.event_id IS NULL AND n.event_type = 'digest' AND n.due_at <= statement_timestamp()
        OFFSET 0
    ) AS e ON true
), bounded AS (
    SELECT w.*,
           w.due_at > statement_timestamp()
           OR coalesce(sum(octet_length(w.payload)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(w.payload) >= $5::bigint, false) AS cut
    FROM with_event AS w
)
SELECT statement_timestamp() AS now,
       b.id, b.event_id, b.subscription_id, b.channel_id, b.due_at, b.created_at, b.attempts, b.replayed, b.event_type, b.project,
       b.interrupted, b.cooldown_task, b.held_back, b.held_for, b.severity, b.traceparent,
       CASE WHEN NOT b.cut THEN b.payload END AS payload, b.occurred_at, b.cut
FROM bounded AS b
