-- A sign of life, and who else gives one, in one statement: an idle worker makes this one a second
-- and one read. `registered` is false for a worker that was declared dead meanwhile. `astray` shows that
-- statements run in another session than the one that was registered and has the locks, or that another
-- worker's run in this one: a pooler lends the server's sessions to whoever asks next.
-- A worker that has not been heard of for a while and whose session has ended is not waited for: it has ended, too.
-- Not so where sessions have ended for all of them, because the server restarted, recovered from a crash or is
-- another than it was: those workers come back, and have as long for it as if they had been heard from just then.
-- That was when this session began, which took the place of one that ended likewise; or, if it took none, when the
-- server started. A process id may be another session's by now. When that one began is not everybody's to see; then
-- it is waited for.
-- Postgres leaves its queue of notifications full, and refuses whoever notifies, until somebody asks how full it is:
-- that drops what all have read.
-- $1 id, $2 shards owned, $3 seconds of silence after which a worker is dead,
-- $4 whether a notification has arrived, $5 seconds after which one is whose session has ended,
-- $6 whether the worker had no session before this one
WITH beat AS (
    UPDATE klaxon.worker AS w
    SET heartbeat_at = clock_timestamp(), shards = $2::integer[],
        notified_at = CASE WHEN $4::boolean THEN clock_timestamp() ELSE w.notified_at END
    WHERE w.id = $1::uuid
    RETURNING w.id, CASE WHEN $6::boolean THEN pg_postmaster_start_time() ELSE w.started_at END AS since
)
SELECT klaxon.journal_is_due() AS journal,
       -- The owner of the first shard ticks, so that one worker does.
       CASE WHEN 0 = ANY ($2) THEN (SELECT klaxon.tick_is_due()) ELSE false END AS tick,
       CASE WHEN 0 = ANY ($2) THEN (SELECT pg_notification_queue_usage()) END AS queue,
       EXISTS (SELECT FROM klaxon.config_test AS t WHERE t.taken_at IS NULL AND t.requested_at > clock_timestamp() - interval '15 s') AS tests, w.id,
       CASE WHEN w.id = $1::uuid THEN w.pid <> pg_backend_pid()
            ELSE w.pid = pg_backend_pid() AND EXISTS (
                SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = w.pid AND a.backend_start <= w.started_at
            )
       END AS astray,
       w.id = $1::uuid OR (
           greatest(w.heartbeat_at, (SELECT b.since FROM beat AS b)) > clock_timestamp() - make_interval(secs => $3)
           AND NOT coalesce(
               w.heartbeat_at <= clock_timestamp() - make_interval(secs => $5) AND w.heartbeat_at > (SELECT b.since FROM beat AS b)
               AND NOT EXISTS (
                   SELECT FROM pg_catalog.pg_stat_activity AS a
                   WHERE a.pid = w.pid AND (a.backend_start <= w.started_at) IS NOT FALSE
               ), false)
       ) AS alive,
       (SELECT e.extversion FROM pg_catalog.pg_extension AS e WHERE e.extname = 'pg_klaxon') AS schema,
       w.heartbeat_at, EXISTS (SELECT FROM beat) AS registered, clock_timestamp() AS now
FROM klaxon.worker AS w
