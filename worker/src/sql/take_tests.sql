-- Configurations that somebody waits to see tested, each for whoever takes it first.
UPDATE klaxon.config_test AS t SET taken_at = clock_timestamp()
WHERE t.taken_at IS NULL
RETURNING t.id, t.kind, t.config::text AS config, t.fields, t.sealed
