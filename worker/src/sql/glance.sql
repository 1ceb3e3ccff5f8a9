-- What the page shows of a database, but for its history: an object, as the template has it.
SELECT json_build_object(
    'at', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'HH24:MI:SS'),
    'status', (SELECT json_object_agg(s.item, s.value) FROM klaxon.status() AS s),
    'head', (SELECT encode(h.mac, 'hex') FROM klaxon.audit_head AS h),
    'workers', (
        SELECT coalesce(json_agg(json_build_object('host', w.host, 'version', w.version, 'shards', cardinality(w.shards),
            'silent', extract(epoch FROM clock_timestamp() - w.heartbeat_at)::integer,
            'up', extract(epoch FROM clock_timestamp() - w.started_at)::bigint) ORDER BY w.host, w.started_at), '[]')
        FROM klaxon.worker AS w
    ),
    -- More than anybody reads is no help; those that fail stand first.
    'channels', (
        SELECT coalesce(json_agg(c), '[]')
        FROM (
            SELECT h.name, h.kind, coalesce(h.project, h.owner) AS scope, h.state, h.pending, h.dead,
                   CASE WHEN h.state IN ('failing', 'disabled') THEN h.last_error END AS error,
                   extract(epoch FROM clock_timestamp() - h.failing_since)::bigint AS failing_for
            FROM klaxon.channel_health AS h LIMIT 50
        ) AS c
    ),
    'pending', (
        SELECT coalesce(json_agg(p), '[]')
        FROM (
            SELECT coalesce(p.channel, 'channel ' || p.channel_id) AS channel, p.kind, p.deliveries,
                   extract(epoch FROM clock_timestamp() - p.oldest)::bigint AS age,
                   extract(epoch FROM p.next_try - clock_timestamp())::bigint AS next
            FROM klaxon.pending AS p LIMIT 20
        ) AS p
    ),
    'failures', (
        SELECT coalesce(json_agg(f), '[]')
        FROM (
            SELECT d.channel_name AS channel, d.channel_kind AS kind, d.event_type AS type, d.attempt, d.status,
                   d.response_code AS code, left(d.error, 200) AS error,
                   extract(epoch FROM clock_timestamp() - d.attempted_at)::bigint AS age
            FROM klaxon.delivery AS d
            WHERE d.kind = 'attempt' AND d.status <> 'sent' AND d.attempted_at > clock_timestamp() - interval '6 h'
            ORDER BY d.seq DESC LIMIT 10
        ) AS f
    )
)::text
