-- docs/reference/vocabulary.md: what is printed here is the page.
SELECT '# Event types, settings, roles

Written by `make reference` from what the extension installs.

## Event types

`klaxon.event_type` has these; INSERT there makes others.

| type | severity | resolves | |
|---|---|---|---|';
SELECT format('| `%s` | %s | %s | %s |', name, severity, '`' || resolves || '`', description)
FROM klaxon.event_type ORDER BY name;

-- What a jsonpath, a glob and the like are is said where filters are; here is which there are.
SELECT '
## Settings of the database

Set by `SET`, `ALTER ROLE … SET`, `ALTER DATABASE … SET` or in `postgresql.conf`, as far as the second column lets one.

| setting | set by | default | |
|---|---|---|---|';
-- Loads the library, which defines them.
SELECT klaxon.version() AS loaded \gset
SELECT format('| `%s` | %s | %s | %s |', name,
    CASE context WHEN 'user' THEN 'everybody' WHEN 'superuser' THEN 'a superuser' WHEN 'sighup' THEN 'a reload' ELSE context END,
    CASE name WHEN 'klaxon.wakeup' THEN '`relay` where the library is preloaded, else `notify`'
              ELSE '`' || nullif(CASE unit WHEN 'B' THEN pg_size_pretty(boot_val::bigint) ELSE boot_val END, '') || '`' END,
    short_desc || ' ' || extra_desc)
FROM pg_settings WHERE name LIKE 'klaxon.%' ORDER BY name;

SELECT '
## Roles

`CREATE EXTENSION` makes these where they are missing; whose they are is `GRANT`''s to say.

| role | |
|---|---|';
SELECT format('| `%s` | %s |', rolname, shobj_description(oid, 'pg_authid'))
FROM pg_roles WHERE rolname IN ('klaxon_emitter', 'klaxon_user', 'klaxon_app', 'klaxon_admin', 'klaxon_worker')
ORDER BY array_position(ARRAY['klaxon_emitter', 'klaxon_user', 'klaxon_app', 'klaxon_admin', 'klaxon_worker'], rolname::text);
