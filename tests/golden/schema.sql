-- What stands in the schema: everything is explained, and PUBLIC has nothing.
SELECT c.relname AS without_comment FROM pg_class AS c
WHERE c.relnamespace = 'klaxon'::regnamespace AND c.relkind IN ('r', 'v', 'p') AND obj_description(c.oid, 'pg_class') IS NULL ORDER BY 1;
SELECT c.relname, a.attname AS without_comment FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace = 'klaxon'::regnamespace AND c.relkind IN ('r', 'v', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  AND col_description(c.oid, a.attnum) IS NULL ORDER BY 1, 2;
SELECT p.oid::regprocedure AS without_comment FROM pg_proc AS p
WHERE p.pronamespace = 'klaxon'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL ORDER BY 1;
SELECT c.relname AS public_may FROM pg_class AS c, aclexplode(c.relacl) AS a
WHERE c.relnamespace = 'klaxon'::regnamespace AND a.grantee = 0 ORDER BY 1;
SELECT p.proname AS public_may FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
WHERE p.pronamespace = 'klaxon'::regnamespace AND a.grantee = 0 ORDER BY 1;
SELECT a.privilege_type AS public_may FROM pg_namespace AS n, aclexplode(n.nspacl) AS a WHERE n.nspname = 'klaxon' AND a.grantee = 0;

-- Functions with the rights of their owner have this search_path and no other.
SELECT p.proname AS careless FROM pg_proc AS p
WHERE p.pronamespace = 'klaxon'::regnamespace AND p.prosecdef AND NOT coalesce('search_path=pg_catalog, klaxon, pg_temp' = ANY (p.proconfig), false) ORDER BY 1;

-- Of the constraints of what people write, those that Postgres alone would explain: triggers speak before them.
SELECT c.conrelid::regclass AS of, c.conname AS unexplained FROM pg_constraint AS c
WHERE c.connamespace = 'klaxon'::regnamespace AND c.contype = 'c' AND pg_get_constraintdef(c.oid) NOT LIKE '%klaxon.refuse(%'
  AND EXISTS (SELECT FROM unnest(c.conkey) AS k (attribute), unnest(ARRAY['klaxon_emitter', 'klaxon_user', 'klaxon_admin']) AS r (role)
              WHERE has_column_privilege(r.role, c.conrelid, k.attribute, 'INSERT, UPDATE'))
ORDER BY c.conrelid::regclass::text, c.conname;

-- Tables, who may see them, and whether rows are guarded and dumped.
SELECT c.relname, c.relrowsecurity AS guarded, c.oid = ANY (e.extconfig) AS dumped,
    (SELECT string_agg(DISTINCT replace(a.grantee::regrole::text, 'klaxon_', ''), ' ') FROM aclexplode(c.relacl) AS a
     WHERE a.privilege_type = 'SELECT' AND a.grantee <> c.relowner) AS read_by
FROM pg_class AS c, pg_extension AS e
WHERE c.relnamespace = 'klaxon'::regnamespace AND c.relkind = 'r' AND e.extname = 'pg_klaxon' ORDER BY 1;

-- Administrators write rows; they make, empty and trigger nothing.
SELECT c.relname, a.privilege_type FROM pg_class AS c, aclexplode(c.relacl) AS a
WHERE c.relnamespace = 'klaxon'::regnamespace AND a.grantee <> c.relowner AND a.privilege_type IN ('TRUNCATE', 'TRIGGER', 'REFERENCES');

SELECT name, severity, resolves FROM klaxon.event_type ORDER BY name;
SELECT klaxon.version(), extversion, extrelocatable FROM pg_extension WHERE extname = 'pg_klaxon';
