-- How the channels of a batch fared, one row a channel. Written only when a channel's standing
-- changes or is some seconds old, so that a healthy channel does not cost an update a batch.
-- $1 channels, $2 whether any attempt succeeded, $3 failures since, $4 the last error, $5 the batch's time
INSERT INTO klaxon.channel_state AS s (channel_id, failing_since, failures, last_success_at, last_failure_at, last_error)
SELECT h.channel_id, CASE WHEN h.failures > 0 THEN $5::timestamptz END, h.failures, CASE WHEN h.succeeded THEN $5 END,
       CASE WHEN h.error IS NOT NULL THEN $5 END, h.error
FROM unnest($1::bigint[], $2::boolean[], $3::bigint[], $4::text[]) AS h (channel_id, succeeded, failures, error)
ON CONFLICT (channel_id) DO UPDATE
SET failing_since = CASE WHEN excluded.last_success_at IS NULL THEN coalesce(s.failing_since, excluded.failing_since) ELSE excluded.failing_since END,
    failures = CASE WHEN excluded.last_success_at IS NULL THEN s.failures ELSE 0 END + excluded.failures,
    last_success_at = coalesce(excluded.last_success_at, s.last_success_at),
    last_failure_at = coalesce(excluded.last_failure_at, s.last_failure_at),
    last_error = coalesce(excluded.last_error, s.last_error)
RETURNING s.channel_id, coalesce(s.failing_since < $5 - interval '5 days', false) AS hopeless
