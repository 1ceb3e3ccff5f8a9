-- Shards that are no longer worked with care, before their deaths are forgotten: it is on record, so that who owns
-- them next need not begin anew. One more death is cause enough.
-- $1 the worker, $2 the shards, $3 deaths that are not
UPDATE klaxon.shard AS s SET deaths = $3 WHERE s.shard = ANY ($2::integer[]) AND s.owner = $1::uuid AND s.deaths > $3
