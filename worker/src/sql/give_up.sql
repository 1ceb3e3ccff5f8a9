-- Shards are given up, which is not the death of their owner. Committed before they are unlocked.
-- $1 the worker, $2 the shards
UPDATE klaxon.shard AS s SET owner = NULL WHERE s.shard = ANY ($2::integer[]) AND s.owner = $1::uuid
