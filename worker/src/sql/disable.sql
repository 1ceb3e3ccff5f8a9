-- A channel that is gone for good, or has only failed for five days, is disabled, and that is itself
-- an event. In a transaction of its own: what subscribes to it must not hold up settling. Whose channel it is may
-- have it locked for as long as they like, so it is not waited for: no name and still enabled means later.
-- One that only fails, and was changed in those days (enabled again, or mended), has five days again: neither a name nor enabled.
-- $1 the channel, $2 the reason, $3 whether that is that it only fails
WITH disabled AS (
    UPDATE klaxon.channel AS c
    SET enabled = false, disabled_reason = $2
    WHERE c.id = (SELECT f.id FROM klaxon.channel AS f WHERE f.id = $1 AND f.enabled AND NOT ($3 AND f.updated_at > now() - interval '5 days')
                  FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING c.id, c.name, c.kind, c.project
), told AS (
    INSERT INTO klaxon.event (type, project, payload)
    SELECT 'channel.disabled', d.project,
           jsonb_build_object('title', format('Channel disabled: %s', d.name),
                                         'channel', d.name, 'kind', d.kind, 'reason', $2::text)
    FROM disabled AS d
)
SELECT (SELECT d.name FROM disabled AS d) AS name,
       EXISTS (SELECT FROM klaxon.channel AS c WHERE c.id = $1 AND c.enabled AND NOT ($3 AND c.updated_at > now() - interval '5 days')) AS enabled
