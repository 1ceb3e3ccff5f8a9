-- Shards that are handed over, after everything of them is settled.
-- $1 the class, $2 the shards
SELECT shard FROM unnest($2::integer[]) AS shard WHERE pg_advisory_unlock($1::integer, shard)
