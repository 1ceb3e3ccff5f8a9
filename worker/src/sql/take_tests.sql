-- Configurations that somebody waits to see tested, each for whoever takes it first. Nobody waits for longer than 15 s.
UPDATE klaxon.config_test AS t SET taken_at = clock_timestamp()
WHERE t.taken_at IS NULL AND t.requested_at > clock_timestamp() - interval '15 s'
RETURNING t.id, t.kind, t.config::text AS config, t.fields, t.sealed
