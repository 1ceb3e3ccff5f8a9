-- Ownership of a shard is this session's advisory lock: Postgres releases it when the session ends,
-- however it ends. Those that somebody else still holds are tried again a second later.
-- $1 the class, $2 the shards wanted
SELECT shard FROM unnest($2::integer[]) AS shard WHERE pg_try_advisory_lock($1::integer, shard)
