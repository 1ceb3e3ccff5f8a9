-- Whose turn it is, decided for everything that waits for these cooldowns.
-- $1 subscriptions, $2 tasks
SELECT klaxon.settle_cooldowns($1::bigint[], $2::text[])
