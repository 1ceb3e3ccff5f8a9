-- Channels as they are configured, with what is sealed: one row each, for those that are asked for.
-- $1 ids
SELECT c.id, c.name, c.kind, c.enabled, c.config::text AS config,
       ARRAY(SELECT s.field FROM klaxon.channel_secret AS s WHERE s.channel_id = c.id ORDER BY s.field) AS fields,
       ARRAY(SELECT s.sealed FROM klaxon.channel_secret AS s WHERE s.channel_id = c.id ORDER BY s.field) AS sealed
FROM klaxon.channel AS c
WHERE c.id = ANY ($1)
