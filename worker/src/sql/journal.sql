-- Records of the log itself, and the chain's new end, in one statement as in append.sql.
-- $1 the end's seq, $2 its MAC and $3 the key the next must be under, $4 seqs, $5 MACs and $6 details,
-- $7 their key, $8 kind, $9 time, $10 worker and $11 chain
WITH head AS (
    UPDATE klaxon.audit_head SET seq = $1, mac = $2, key_id = $3 WHERE seq = $1::bigint - cardinality($4::bigint[])
)
INSERT INTO klaxon.delivery (seq, mac, detail, key_id, kind, attempted_at, worker, chain)
SELECT r.*, $7::text, $8::text, $9::timestamptz, $10::uuid, $11::uuid
FROM unnest($4::bigint[], $5::bytea[], $6::text[]) AS r (seq, mac, detail)
