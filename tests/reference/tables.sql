-- docs/reference/tables.md: what is printed here is the page.
CREATE TEMP VIEW relation AS
SELECT c.oid, c.relname AS name, c.relkind, obj_description(c.oid, 'pg_class') AS says, o.place,
       (SELECT string_agg(format('`%s` %s', r.role, r.may), ' · ' ORDER BY r.place)
        FROM (SELECT r.role, r.place, string_agg(v.privilege, ', ' ORDER BY v.place) AS may
              FROM unnest(ARRAY['klaxon_emitter', 'klaxon_user', 'klaxon_app', 'klaxon_admin', 'klaxon_worker'])
                   WITH ORDINALITY AS r (role, place),
                   unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS v (privilege, place)
              WHERE CASE v.privilege WHEN 'DELETE' THEN has_table_privilege(r.role, c.oid, 'DELETE')
                                     ELSE has_any_column_privilege(r.role, c.oid, v.privilege) END
              GROUP BY r.role, r.place) AS r) AS roles
FROM pg_class AS c
LEFT JOIN unnest(ARRAY[
    'project', 'member', 'event_type', 'channel', 'subscription', 'subscription_channel', 'default_subscription', 'event', 'inbox',
    'agent', 'outbox', 'digest_item', 'dead_letter', 'delivery', 'worker', 'watcher', 'watcher_error',
    'recent_deliveries', 'channel_health', 'pending'
]) WITH ORDINALITY AS o (name, place) ON o.name = c.relname
WHERE c.relnamespace = 'klaxon'::regnamespace AND c.relkind IN ('r', 'p', 'v');

CREATE TEMP VIEW page AS
SELECT r.place, r.name, format(E'### %s\n\n%s.%s\n\n| column | type | default | |\n|---|---|---|---|\n%s\n', r.name, rtrim(r.says, '.'),
    E'\n\nFor ' || r.roles || '.',
    (SELECT string_agg(format('| `%s` | %s%s | %s | %s |', a.attname, replace(replace(format_type(a.atttypid, a.atttypmod), 'timestamp with time zone', 'timestamptz'), 'time without time zone', 'time'),
                CASE WHEN r.relkind = 'v' OR a.attnotnull THEN '' ELSE ', or null' END,
                CASE WHEN a.attidentity <> '' THEN 'counted' ELSE '`' || regexp_replace(pg_get_expr(d.adbin, d.adrelid), '::[a-z ]+(\[\])?$', '') || '`' END,
                replace(col_description(r.oid, a.attnum), '|', '\|')), E'\n' ORDER BY a.attnum)
     FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped)) AS text
FROM relation AS r;

SELECT '# Tables and views

Written by `make reference` from the comments in the schema; `\d+ klaxon.*` in psql shows the same. All are in the schema `klaxon`. Where a
table is for a role, row-level security leaves it the rows that are its own, and it may write some of the columns only.

## To be read and written
';
SELECT text FROM page WHERE place IS NOT NULL ORDER BY place;

SELECT '## Kept by the product

Free to change from one version to the next.
';
SELECT text FROM page WHERE place IS NULL ORDER BY name;
