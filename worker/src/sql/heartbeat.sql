-- A sign of life, and who else gives one, in one statement: an idle worker makes this one a second
-- and one read. `registered` is false for a worker that was declared dead meanwhile. `astray` shows that
-- statements run in another session than the one that was registered and has the locks, or that another
-- worker's run in this one: a pooler lends the server's sessions to whoever asks next.
-- $1 id, $2 shards owned, $3 seconds of silence after which a worker is dead,
-- $4 whether a notification has arrived
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
       w.id = $1::uuid OR w.heartbeat_at > clock_timestamp() - make_interval(secs => $3) AS alive,
       EXISTS (SELECT FROM beat) AS registered, clock_timestamp() AS now
FROM klaxon.worker AS w
