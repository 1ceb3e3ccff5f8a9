-- A channel that is gone for good, or has only failed for five days, is disabled, and that is itself
-- an event. In a transaction of its own: what subscribes to it must not hold up settling. Whose channel it is may
-- have it locked for as long as they like, so it is not waited for: no name and still enabled means later.
-- $1 the channel, $2 the reason
WITH disabled AS (
    UPDATE klaxon.channel AS c
    SET enabled = false, disabled_reason = $2
    WHERE c.id = (SELECT f.id FROM klaxon.channel AS f WHERE f.id = $1 AND f.enabled FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING c.id, c.name, c.kind, c.project
), told AS (
    INSERT INTO klaxon.event (type, project, payload)
    SELECT 'channel.disabled', d.project,
           jsonb_build_object('title', format('Channel disabled: %s', d.name),
                                         'channel', d.name, 'kind', d.kind, 'reason', $2::text)
    FROM disabled AS d
)
SELECT (SELECT d.name FROM disabled AS d) AS name,
       EXISTS (SELECT FROM klaxon.channel AS c WHERE c.id = $1 AND c.enabled) AS enabled
