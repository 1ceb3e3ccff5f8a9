-- A worker that is silent is ended, so that its locks are free and it can settle nothing any more; one that
-- has no session any more is forgotten (heartbeat.sql).
-- The process id may be another session's by now: it is ended only if it began before that worker
-- registered, and is the worker's by name and role. Not if it was heard of since: it came back.
-- $1 the worker, $2 when it was last heard from
WITH silent AS (
    DELETE FROM klaxon.worker AS w
    WHERE w.id = $1::uuid AND w.heartbeat_at = $2
    RETURNING w.id, w.host, w.pid, w.started_at
)
SELECT s.host, coalesce((
    SELECT bool_or(pg_terminate_backend(a.pid))
    FROM pg_catalog.pg_stat_activity AS a
    WHERE a.pid = s.pid AND a.backend_start <= s.started_at AND a.datname = current_database()
      AND a.application_name LIKE 'klaxon%' AND a.pid <> pg_backend_pid()
), false) AS ended
FROM silent AS s
