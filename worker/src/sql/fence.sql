-- A worker that is silent is ended, so that its locks are free and it can settle nothing any more; one that
-- has no session any more is forgotten (heartbeat.sql).
-- The process id may be another session's by now: it is ended only if it began before that worker
-- registered, and is the worker's by name and role. Looked at again under lock: it may have come back.
-- $1 the worker, $2 seconds of silence, $3 seconds without a session
WITH silent AS (
    DELETE FROM klaxon.worker AS w
    WHERE w.id = $1::uuid
      AND (w.heartbeat_at <= clock_timestamp() - make_interval(secs => $2)
           OR w.heartbeat_at <= clock_timestamp() - make_interval(secs => $3)
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(w.pid) AS a
                              WHERE (a.backend_start > w.started_at) IS NOT TRUE))
    RETURNING w.id, w.host, w.pid, w.started_at
)
SELECT s.host, coalesce((
    SELECT bool_or(pg_terminate_backend(a.pid))
    FROM pg_catalog.pg_stat_activity AS a
    WHERE a.pid = s.pid AND a.backend_start <= s.started_at AND a.datname = current_database()
      AND a.application_name LIKE 'klaxon%' AND a.pid <> pg_backend_pid()
), false) AS ended
FROM silent AS s
