-- This session is the worker's: ending it fences the worker. The same worker comes back with the
-- same id after it lost its session.
-- $1 id, $2 host, $3 version, $4 settings
INSERT INTO klaxon.worker AS w (id, host, version, settings, started_at, heartbeat_at, pid)
VALUES ($1, $2, $3, $4::text::jsonb, clock_timestamp(), clock_timestamp(), pg_backend_pid())
ON CONFLICT (id) DO UPDATE
SET started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at, pid = excluded.pid, shards = '{}', notified_at = NULL
