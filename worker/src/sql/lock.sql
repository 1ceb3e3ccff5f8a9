-- Ownership of a shard is this session's advisory lock: Postgres releases it when the session ends,
-- however it ends. Those that somebody else still holds are tried again a second later.
-- A shard whose last owner, another worker, has not given it up was left by a death; deaths that follow one
-- another closely are counted. ON CONFLICT sees what was committed after this statement began, too, and who
-- gives a shard up has committed that before it unlocks.
-- $1 the class, $2 the shards wanted, $3 the worker, $4 seconds after which deaths are forgotten
WITH locked AS MATERIALIZED (
    SELECT shard FROM unnest($2::integer[]) AS shard WHERE pg_try_advisory_lock($1::integer, shard)
)
INSERT INTO klaxon.shard AS s (shard, owner)
SELECT l.shard, $3::uuid FROM locked AS l
ON CONFLICT (shard) DO UPDATE
SET owner = excluded.owner,
    deaths = CASE
        WHEN s.owner IS NULL OR s.owner = excluded.owner THEN s.deaths
        WHEN s.died_at > clock_timestamp() - make_interval(secs => $4) THEN s.deaths + 1
        ELSE 1
    END,
    died_at = CASE WHEN s.owner IS NULL OR s.owner = excluded.owner THEN s.died_at ELSE clock_timestamp() END
RETURNING s.shard, s.deaths, s.died_at
