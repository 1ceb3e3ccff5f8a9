-- Delivered; and the end of the chain, locked until the batch is committed: workers append one after
-- another. Its clock is the batch's time of attempt.
--
-- Deleted only where the row is as it was sent: a COMMIT whose answer was lost is not repeated. Shaped so
-- that it has one plan, a probe a delivery. A plain join, planned from statistics of an empty outbox, walks an
-- index from end to end, and in the wrong one; with the whole of the primary key there is one that fits, and LATERAL
-- and ctid leave no other order.
-- What a digest was made of goes with it, in the same moment.
-- $1 deliveries, $2 channels, $3 due times and $4 attempts as they were read
WITH settled AS MATERIALIZED (
    SELECT o.ctid
    FROM (
        SELECT unnest($1::uuid[]) AS id, unnest($2::bigint[]) AS channel_id, unnest($3::timestamptz[]) AS due_at, unnest($4::integer[]) AS attempts
    ) AS s
    CROSS JOIN LATERAL (
        SELECT o.ctid FROM klaxon.outbox AS o
        WHERE o.id = s.id AND o.channel_id = s.channel_id AND o.due_at = s.due_at AND o.attempts = s.attempts
        OFFSET 0
    ) AS o
), gone AS (
    DELETE FROM klaxon.outbox AS o
    WHERE o.ctid = ANY (ARRAY(SELECT ctid FROM settled))
    RETURNING o.id, o.event_id
), told AS (
    DELETE FROM klaxon.digest_item AS i
    WHERE i.delivery_id IS NOT NULL AND i.delivery_id = ANY (ARRAY(SELECT g.id FROM gone AS g WHERE g.event_id IS NULL))
), head AS MATERIALIZED (
    -- Of its one row many former versions may lie about: the first from the newest end of the index is it.
    SELECT h.chain, h.seq, h.mac, h.key_id FROM klaxon.audit_head AS h ORDER BY h.seq DESC LIMIT 1 FOR UPDATE
)
SELECT g.id, NULL::uuid AS chain, NULL::bigint AS seq, NULL::bytea AS mac, NULL::text AS key_id, NULL::timestamptz AS now FROM gone AS g
UNION ALL
SELECT NULL, h.chain, h.seq, h.mac, h.key_id, clock_timestamp() FROM head AS h
