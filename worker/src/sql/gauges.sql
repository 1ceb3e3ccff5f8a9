-- What a database says of itself, for whoever measures. On a session of its own, and only when asked: it counts.
SELECT w.alive, p.deliveries, p.oldest, o.overdue, d.dead, c.failing, c.disabled, coalesce(h.seq, 0) AS head, u.unsealed,
    pg_notification_queue_usage() AS queue
FROM (SELECT count(*) AS alive FROM klaxon.worker WHERE heartbeat_at > clock_timestamp() - interval '10 s') AS w,
    (
        SELECT count(*) AS deliveries, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest
        FROM klaxon.outbox
    ) AS p,
    (
        -- What waits for a disabled channel waits for people.
        SELECT coalesce(greatest(extract(epoch FROM clock_timestamp() - min(b.due_at)), 0), 0)::float8 AS overdue
        FROM klaxon.channel AS c
        CROSS JOIN LATERAL (SELECT min(due_at) AS due_at FROM klaxon.outbox WHERE channel_id = c.id) AS b
        WHERE c.enabled
    ) AS o,
    (SELECT count(*) AS dead FROM klaxon.dead_letter) AS d,
    (
        SELECT count(s.failing_since) FILTER (WHERE c.enabled) AS failing, count(*) FILTER (WHERE NOT c.enabled) AS disabled
        FROM klaxon.channel AS c LEFT JOIN klaxon.channel_state AS s ON s.channel_id = c.id
    ) AS c,
    (
        SELECT (SELECT count(*) FROM klaxon.delivery WHERE octet_length(mac) <> 32)
             + (SELECT count(*) FROM klaxon.config_change) AS unsealed
    ) AS u
    LEFT JOIN klaxon.audit_head AS h ON true
