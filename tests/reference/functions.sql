-- docs/reference/functions.md: what is printed here is the page. Who may call one is asked of the catalog.
CREATE TEMP VIEW function AS
SELECT p.oid, p.proname AS name, p.prokind = 'p' AS is_procedure, p.proretset AS is_set,
       -- As people write it: a default need not say its type, nor an argument that it is one.
       replace(replace(regexp_replace(pg_get_function_arguments(p.oid), '(DEFAULT (?:NULL|''[^'']*''))::[a-z ]+(?:\[\])?', '\1', 'g'),
               'timestamp with time zone', 'timestamptz'), 'time without time zone', 'time') AS arguments,
       replace(pg_get_function_result(p.oid), 'timestamp with time zone', 'timestamptz') AS result,
       obj_description(p.oid, 'pg_proc') AS says, o.place,
       (SELECT string_agg('`' || r.role || '`', ', ' ORDER BY r.place)
        FROM unnest(ARRAY['klaxon_emitter', 'klaxon_user', 'klaxon_app', 'klaxon_admin', 'klaxon_worker'])
             WITH ORDINALITY AS r (role, place)
        WHERE has_function_privilege(r.role, p.oid, 'EXECUTE')) AS roles
FROM pg_proc AS p
LEFT JOIN unnest(ARRAY[
    'notify_event', 'explain_event', 'subscribe', 'mute', 'unmute', 'test_channel', 'test_config', 'copy_channel',
    'retry_dead', 'replay', 'watch', 'watch_runs', 'watch_tasks', 'watch_agents', 'unwatch', 'heartbeat',
    'mark_read', 'unread_count', 'status', 'prune', 'set_public_key', 'principal', 'version'
]) WITH ORDINALITY AS o (name, place) ON o.name = p.proname
WHERE p.pronamespace = 'klaxon'::regnamespace AND p.prorettype <> 'trigger'::regtype;

SELECT '# Functions

Written by `make reference` from the comments in the schema; `\df+ klaxon.*` in psql shows the same. All are in the schema `klaxon`. A function that
names no role is the database superuser''s.

## To be called
';
SELECT format(E'### %s\n\n`%s%s(%s)%s`\n\n%s.%s\n', name, CASE WHEN is_procedure THEN 'CALL ' ELSE '' END, name, arguments,
              ' → ' || result, rtrim(says, '.'), ' For ' || roles || '.')
FROM function WHERE place IS NOT NULL ORDER BY place;

SELECT '## Called by these, by policies and by the worker

Not meant to be called by hand, and free to change from one version to the next.

| function | for | |
|---|---|---|';
SELECT format('| `%s(%s)` | %s | %s |', name, arguments, roles, replace(says, '|', '\|'))
FROM function WHERE place IS NULL ORDER BY name, arguments;
