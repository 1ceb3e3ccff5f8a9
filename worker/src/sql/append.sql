-- The batch's rows of the log and the chain's new end, in one statement: neither is there without
-- the other.
WITH head AS (
    UPDATE klaxon.audit_head SET seq = $1, mac = $2, key_id = $24::text
)
INSERT INTO klaxon.delivery
    (seq, delivery_id, attempt, event_id, event_type, project, subscription_id, channel_id, channel_name, channel_kind, status,
     response_code, error, response_body, duration_ms, detail, body_hash, mac, attempted_at, worker, chain, key_id)
SELECT a.*, $21::timestamptz, $22::uuid, $23::uuid, $24::text
FROM unnest($3::bigint[], $4::uuid[], $5::integer[], $6::uuid[], $7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::text[], $12::text[],
            $13::text[], $14::integer[], $15::text[], $16::text[], $17::integer[], $18::text[], $19::bytea[], $20::bytea[]) AS a
