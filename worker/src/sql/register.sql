-- This session is the worker's: ending it fences the worker. The same worker comes back with the
-- same id after it lost its session. The server may not have noticed that one's end, and would leave it
-- its locks for hours: it is ended, with the precautions of fence.sql.
-- $1 id, $2 host, $3 version, $4 settings
WITH former AS MATERIALIZED (
    SELECT a.pid
    FROM klaxon.worker AS w
    CROSS JOIN LATERAL (
        SELECT a.pid FROM pg_catalog.pg_stat_activity AS a
        WHERE a.pid = w.pid AND a.backend_start <= w.started_at AND a.datname = current_database()
          AND a.application_name LIKE 'klaxon%' AND a.pid <> pg_backend_pid()
    ) AS a
    WHERE w.id = $1
), registered AS (
    INSERT INTO klaxon.worker AS w (id, host, version, settings, started_at, heartbeat_at, pid)
    VALUES ($1, $2, $3, $4::text::jsonb, clock_timestamp(), clock_timestamp(), pg_backend_pid())
    ON CONFLICT (id) DO UPDATE
    SET started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at, pid = excluded.pid, shards = '{}', notified_at = NULL
)
SELECT pg_terminate_backend(f.pid) FROM former AS f
