-- To be tried again, by the database's clock. Only where the row is as it was sent.
-- $1 deliveries, $2 attempts before this one, $3 microseconds until the next, $4 errors
UPDATE klaxon.outbox AS o
SET attempts = o.attempts + 1, due_at = clock_timestamp() + f.delay * interval '1 microsecond', last_error = f.error
FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::text[]) AS f (id, attempts, delay, error)
WHERE o.id = f.id AND o.attempts = f.attempts
RETURNING o.id, o.due_at
