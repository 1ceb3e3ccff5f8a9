-- What the page shows of the last hours: an object with an element for each ten minutes, the oldest first, and
-- how long deliveries took of late. A delivery is as old as the event it is of; replayed ones are of old events.
WITH spans AS (
    SELECT n, date_bin('10 min', now(), 'epoch') - (35 - n) * interval '10 min' AS begins FROM generate_series(0, 35) AS n
), attempts AS (
    SELECT date_bin('10 min', d.attempted_at, 'epoch') AS begins,
           count(*) FILTER (WHERE d.status = 'sent') AS sent, count(*) FILTER (WHERE d.status <> 'sent') AS failed
    FROM klaxon.delivery AS d
    WHERE d.kind = 'attempt' AND d.attempted_at >= (SELECT min(begins) FROM spans)
    GROUP BY 1
), latest AS (
    SELECT extract(epoch FROM d.attempted_at - e.created_at)::float8 AS took, d.attempted_at
    FROM (
        SELECT * FROM klaxon.delivery AS d
        WHERE d.kind = 'attempt' AND d.status = 'sent' AND d.detail IS NULL AND d.event_id IS NOT NULL
          AND d.attempted_at > now() - interval '6 h'
        ORDER BY d.seq DESC LIMIT 5000
    ) AS d
    JOIN klaxon.event AS e ON e.id = d.event_id
), latencies AS (
    SELECT date_bin('10 min', l.attempted_at, 'epoch') AS begins, percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY l.took) AS q
    FROM latest AS l GROUP BY 1
)
SELECT json_build_object(
    'spans', (
        SELECT json_agg(json_build_object('at', to_char(s.begins AT TIME ZONE 'UTC', 'HH24:MI'),
            'sent', coalesce(a.sent, 0), 'failed', coalesce(a.failed, 0), 'p50', l.q[1], 'p99', l.q[2]) ORDER BY s.n)
        FROM spans AS s LEFT JOIN attempts AS a USING (begins) LEFT JOIN latencies AS l USING (begins)
    ),
    'p50', (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY took) FROM latest),
    'p99', (SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY took) FROM latest)
)::text
