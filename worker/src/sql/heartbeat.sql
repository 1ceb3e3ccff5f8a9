-- A sign of life, and who else gives one, in one statement: an idle worker makes this one a second
-- and one read. `registered` is false for a worker that was declared dead meanwhile.
-- $1 id, $2 shards owned, $3 seconds of silence after which a worker is dead,
-- $4 whether a notification has arrived
WITH beat AS (
    UPDATE klaxon.worker AS w
    SET heartbeat_at = clock_timestamp(), shards = $2::integer[],
        notified_at = CASE WHEN $4::boolean THEN clock_timestamp() ELSE w.notified_at END
    WHERE w.id = $1::uuid
    RETURNING w.id
)
SELECT klaxon.journal_is_due() AS journal, EXISTS (SELECT FROM klaxon.config_test AS t WHERE t.taken_at IS NULL) AS tests, w.id, w.id = $1::uuid OR w.heartbeat_at > clock_timestamp() - make_interval(secs => $3) AS alive,
       EXISTS (SELECT FROM beat) AS registered, clock_timestamp() AS now
FROM klaxon.worker AS w
