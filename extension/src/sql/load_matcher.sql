-- Everything that could hear of an event of type $1 in project $2, and what stands in its way.
-- Run once per type, project and backend; the two indexes on subscription_pattern find the
-- candidates without meeting a subscription of another type or project. Globs of event types are
-- judged by the caller. Rows with an obstacle are kept: explain_event tells them.
WITH here AS (
    SELECT slug FROM klaxon.project WHERE slug OPERATOR(pg_catalog.=) $2
), candidate AS (
    SELECT subscription_id FROM klaxon.subscription_pattern
    WHERE NOT is_glob AND pattern OPERATOR(pg_catalog.=) $1 AND project OPERATOR(pg_catalog.=) $2
    UNION
    SELECT subscription_id FROM klaxon.subscription_pattern
    WHERE NOT is_glob AND pattern OPERATOR(pg_catalog.=) $1 AND project IS NULL
    UNION
    SELECT subscription_id FROM klaxon.subscription_pattern
    WHERE is_glob AND project OPERATOR(pg_catalog.=) $2
    UNION
    SELECT subscription_id FROM klaxon.subscription_pattern
    WHERE is_glob AND project IS NULL
)
SELECT
    s.id,
    s.owner,
    s.events,
    s.filters::text AS filters,
    s.mode OPERATOR(pg_catalog.=) 'digest' AS digest,
    (extract(epoch FROM s.cooldown) OPERATOR(pg_catalog.*) 1000000)::bigint AS cooldown_us,
    s.muted_until,
    s.in_app AND s.owner IS NOT NULL AS in_app,
    s.default_subscription_id IS NOT NULL AS from_default,
    CASE
        WHEN NOT s.enabled THEN 'subscription disabled'
        WHEN s.owner IS NOT NULL AND EXISTS (SELECT FROM here) AND NOT EXISTS (
            SELECT FROM klaxon.member AS m
            WHERE m.project OPERATOR(pg_catalog.=) $2 AND m.principal OPERATOR(pg_catalog.=) s.owner
        ) THEN pg_catalog.format('not a member of %s', $2)
    END AS obstacle,
    c.ids,
    c.names,
    c.obstacles
FROM candidate
JOIN klaxon.subscription AS s ON s.id OPERATOR(pg_catalog.=) candidate.subscription_id
CROSS JOIN LATERAL (
    SELECT
        pg_catalog.array_agg(c.id ORDER BY c.id) AS ids,
        pg_catalog.array_agg(c.name ORDER BY c.id) AS names,
        pg_catalog.array_agg(
            CASE
                WHEN NOT c.enabled THEN pg_catalog.concat_ws(': ', 'channel disabled', c.disabled_reason)
                WHEN c.owner IS DISTINCT FROM s.owner AND c.owner IS NOT NULL THEN 'channel is not the owner''s'
                WHEN c.project IS NOT NULL AND c.project IS DISTINCT FROM $2
                    THEN pg_catalog.format('channel belongs to project %s', c.project)
            END ORDER BY c.id
        ) AS obstacles
    FROM klaxon.subscription_channel AS sc
    JOIN klaxon.channel AS c ON c.id OPERATOR(pg_catalog.=) sc.channel_id
    WHERE sc.subscription_id OPERATOR(pg_catalog.=) s.id
) AS c
ORDER BY s.id
