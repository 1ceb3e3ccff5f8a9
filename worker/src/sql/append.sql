-- The batch's rows of the log and the chain's new end, in one statement: neither is there without
-- the other. And how the channels of the batch fared, one row a channel: written only when a channel's
-- standing changes or is some seconds old, so that a healthy channel does not cost an update a batch.
-- Returned: the channels that are written, and whether they have only failed for five days.
-- $1 the end's seq and $2 its MAC, $3 to $20 the rows, $21 the batch's time, $22 the worker, $23 the chain, $24 the key,
-- $25 channels, $26 whether any attempt succeeded, $27 failures since, $28 the last error
WITH head AS (
    UPDATE klaxon.audit_head SET seq = $1, mac = $2, key_id = $24::text WHERE seq = $1::bigint - cardinality($3::bigint[])
), log AS (
    INSERT INTO klaxon.delivery
        (seq, delivery_id, attempt, event_id, event_type, project, subscription_id, channel_id, channel_name, channel_kind, status,
         response_code, error, response_body, duration_ms, detail, body_hash, mac, attempted_at, worker, chain, key_id)
    -- Side by side rather than from one unnest of all, which would write each column out by itself first.
    SELECT unnest($3::bigint[]), unnest($4::uuid[]), unnest($5::integer[]), unnest($6::uuid[]), unnest($7::text[]), unnest($8::text[]),
           unnest($9::bigint[]), unnest($10::bigint[]), unnest($11::text[]), unnest($12::text[]), unnest($13::text[]), unnest($14::integer[]),
           unnest($15::text[]), unnest($16::text[]), unnest($17::integer[]), unnest($18::text[]), unnest($19::bytea[]), unnest($20::bytea[]),
           $21::timestamptz, $22::uuid, $23::uuid, $24::text
)
INSERT INTO klaxon.channel_state AS s (channel_id, failing_since, failures, last_success_at, last_failure_at, last_error)
SELECT h.channel_id, CASE WHEN h.failures > 0 THEN $21::timestamptz END, h.failures, CASE WHEN h.succeeded THEN $21 END,
       CASE WHEN h.error IS NOT NULL THEN $21 END, h.error
FROM unnest($25::bigint[], $26::boolean[], $27::bigint[], $28::text[]) AS h (channel_id, succeeded, failures, error)
ON CONFLICT (channel_id) DO UPDATE
SET failing_since = CASE WHEN excluded.last_success_at IS NULL THEN coalesce(s.failing_since, excluded.failing_since) ELSE excluded.failing_since END,
    failures = CASE WHEN excluded.last_success_at IS NULL THEN s.failures ELSE 0 END + excluded.failures,
    last_success_at = coalesce(excluded.last_success_at, s.last_success_at),
    last_failure_at = coalesce(excluded.last_failure_at, s.last_failure_at),
    last_error = coalesce(excluded.last_error, s.last_error)
RETURNING s.channel_id, coalesce(s.failing_since < $21 - interval '5 days', false) AS hopeless
