-- Delivered. Only where the row is as it was sent: a COMMIT whose answer was lost is not repeated.
-- $1 deliveries, $2 attempts before this one
DELETE FROM klaxon.outbox AS o
USING unnest($1::uuid[], $2::integer[]) AS s (id, attempts)
WHERE o.id = s.id AND o.attempts = s.attempts
RETURNING o.id
