-- What every role may ask of Postgres, in one row.
SELECT pg_catalog.current_setting('server_version') AS version,
       pg_catalog.current_setting('server_version_num')::integer AS version_num,
       -- synchronous_commit as it is for applications: a worker sets its own.
       ARRAY(SELECT s.name FROM pg_catalog.pg_settings AS s
             WHERE s.name IN ('fsync', 'full_page_writes') AND s.setting = 'off'
                OR s.name = 'synchronous_commit' AND s.reset_val = 'off'
             ORDER BY s.name) AS not_durable,
       extract(epoch FROM pg_catalog.clock_timestamp())::float8 AS clock,
       current_user::text AS role,
       coalesce((SELECT pg_catalog.pg_has_role(r.oid, 'USAGE') FROM pg_catalog.pg_roles AS r
                 WHERE r.rolname = 'klaxon_worker'), false) AS is_worker,
       (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user) AS is_superuser,
       pg_catalog.current_setting('autovacuum')::boolean AS autovacuum,
       ARRAY(SELECT c.oid::regclass::text FROM pg_catalog.pg_class AS c
             WHERE c.relnamespace = pg_catalog.to_regnamespace('klaxon')
               AND c.reloptions && ARRAY['autovacuum_enabled=false', 'autovacuum_enabled=off']
             ORDER BY 1) AS without_autovacuum,
       (SELECT max(extract(epoch FROM pg_catalog.now() - a.xact_start))::float8 FROM pg_catalog.pg_stat_activity AS a
        WHERE a.backend_xmin IS NOT NULL) AS oldest_transaction,
       ARRAY(SELECT s.slot_name::text FROM pg_catalog.pg_replication_slots AS s
             WHERE NOT s.active ORDER BY 1) AS idle_slots,
       ARRAY(SELECT p.pubname || ' has ' || count(*) FROM pg_catalog.pg_publication_tables AS p
             WHERE p.schemaname = 'klaxon' GROUP BY p.pubname ORDER BY p.pubname) AS published,
       ARRAY(SELECT s.subname || ' writes ' || count(*)
             FROM pg_catalog.pg_subscription AS s
             JOIN pg_catalog.pg_subscription_rel AS r ON r.srsubid = s.oid
             JOIN pg_catalog.pg_class AS c ON c.oid = r.srrelid
             WHERE c.relnamespace = pg_catalog.to_regnamespace('klaxon')
             GROUP BY s.subname ORDER BY s.subname) AS subscribed
