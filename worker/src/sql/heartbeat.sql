-- A sign of life, and who else gives one, in one statement: an idle worker makes this one a second
-- and one read. `registered` is false for a worker that was declared dead meanwhile. `astray` shows that
-- statements run in another session than the one that was registered and has the locks, or that another
-- worker's run in this one: a pooler lends the server's sessions to whoever asks next.
-- A worker whose session the server no longer has, and that has not come back with another for $5 seconds,
-- is dead, too: so its successor need not wait for the silence of one that was killed. This one gives the
-- others that long itself, should all have lost their sessions together. Only where a heartbeat is overdue
-- are the server's sessions looked at.
-- $1 id, $2 shards owned, $3 seconds of silence after which a worker is dead,
-- $4 whether a notification has arrived, $5 seconds without a session after which it is
WITH beat AS (
    UPDATE klaxon.worker AS w
    SET heartbeat_at = clock_timestamp(), shards = $2::integer[],
        notified_at = CASE WHEN $4::boolean THEN clock_timestamp() ELSE w.notified_at END
    WHERE w.id = $1::uuid
    RETURNING w.id
)
SELECT klaxon.journal_is_due() AS journal,
       -- The owner of the first shard ticks, so that one worker does.
       CASE WHEN 0 = ANY ($2) THEN (SELECT klaxon.tick_is_due()) ELSE false END AS tick,
       EXISTS (SELECT FROM klaxon.config_test AS t WHERE t.taken_at IS NULL) AS tests, w.id,
       (w.id = $1::uuid) <> (w.pid = pg_backend_pid()) AS astray,
       w.id = $1::uuid OR CASE
           WHEN w.heartbeat_at <= clock_timestamp() - make_interval(secs => $3) THEN false
           WHEN w.heartbeat_at > clock_timestamp() - make_interval(secs => $5) THEN true
           WHEN (SELECT me.started_at > clock_timestamp() - make_interval(secs => $5)
                 FROM klaxon.worker AS me WHERE me.id = $1::uuid) THEN true
           ELSE EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(w.pid) AS a
                        WHERE (a.backend_start > w.started_at) IS NOT TRUE)
       END AS alive,
       EXISTS (SELECT FROM beat) AS registered, clock_timestamp() AS now
FROM klaxon.worker AS w
