-- Everything that the extension is, one row an object: what a database has that was updated must be what one has that
-- was installed. Columns by their place, since people write INSERT without naming them, and COPY.
WITH extension AS (
    SELECT e.oid, e.extowner, e.extconfig, e.extcondition, n.oid AS schema, n.nspacl
    FROM pg_extension AS e JOIN pg_namespace AS n ON n.nspname = 'klaxon'
    WHERE e.extname = 'pg_klaxon'
), relation AS (
    SELECT c.* FROM extension AS e JOIN pg_class AS c ON c.relnamespace = e.schema
), routine AS (
    SELECT p.* FROM extension AS e JOIN pg_proc AS p ON p.pronamespace = e.schema
), rights (of, class, place, who) AS (
    SELECT objoid, classoid, objsubid, string_agg(concat_ws(' ', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
               a.privilege_type, CASE WHEN a.is_grantable THEN 'grantable' END, 'by', a.grantor::regrole), ', '
               ORDER BY a.grantee::regrole::text, a.privilege_type, a.grantor)
    FROM (
        SELECT c.oid, 'pg_class'::regclass, 0, coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)) FROM relation AS c WHERE c.relkind IN ('r', 'v', 'p', 'S')
        UNION ALL SELECT t.attrelid, 'pg_class'::regclass, t.attnum, t.attacl FROM pg_attribute AS t JOIN relation AS c ON c.oid = t.attrelid
        UNION ALL SELECT p.oid, 'pg_proc'::regclass, 0, coalesce(p.proacl, acldefault('f', p.proowner)) FROM routine AS p
        UNION ALL SELECT e.schema, 'pg_namespace'::regclass, 0, coalesce(e.nspacl, acldefault('n', e.extowner)) FROM extension AS e
    ) AS held (objoid, classoid, objsubid, acl)
    CROSS JOIN LATERAL aclexplode(held.acl) AS a
    GROUP BY objoid, classoid, objsubid
)
SELECT 'schema' AS kind, 'klaxon' AS object, concat_ws(E'\n', obj_description(e.schema, 'pg_namespace'), r.who) AS definition
FROM extension AS e LEFT JOIN rights AS r ON r.of = e.schema AND r.class = 'pg_namespace'::regclass
UNION ALL
SELECT 'relation', c.oid::regclass::text, concat_ws(E'\n', c.relkind, c.relpersistence, c.relreplident, c.reloptions::text,
           'owned by ' || c.relowner::regrole, 'rows guarded: ' || c.relrowsecurity || ', from their owner: ' || c.relforcerowsecurity,
           CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END, obj_description(c.oid, 'pg_class'), r.who)
FROM relation AS c LEFT JOIN rights AS r ON r.of = c.oid AND r.class = 'pg_class'::regclass AND r.place = 0
WHERE c.relkind <> 'i'
UNION ALL
SELECT 'column', c.oid::regclass || ' ' || row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), concat_ws(E'\n', a.attname,
           format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END, 'default ' || pg_get_expr(d.adbin, d.adrelid),
           'identity ' || nullif(a.attidentity, '')::text, 'generated ' || nullif(a.attgenerated, '')::text, 'storage ' || a.attstorage::text,
           'compression ' || nullif(a.attcompression, '')::text, -- Some builds keep a number of their own among them.
           (SELECT string_agg(o, ' ') FROM unnest(a.attoptions) AS o WHERE o NOT LIKE 'pg_attver=%'),
           nullif(a.attcollation, 0)::regcollation::text,
           col_description(c.oid, a.attnum), r.who)
FROM relation AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN rights AS r ON r.of = c.oid AND r.class = 'pg_class'::regclass AND r.place = a.attnum
WHERE c.relkind IN ('r', 'p', 'v', 'c')
UNION ALL
SELECT 'sequence', s.seqrelid::regclass::text, concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
           s.seqcycle, (SELECT 'of ' || pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) FROM pg_depend AS d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.deptype IN ('a', 'i')))
FROM pg_sequence AS s JOIN relation AS c ON c.oid = s.seqrelid
UNION ALL
SELECT 'constraint', k.conrelid::regclass || ' ' || k.conname, concat_ws(E'\n', pg_get_constraintdef(k.oid), 'validated: ' || k.convalidated,
           obj_description(k.oid, 'pg_constraint'))
FROM pg_constraint AS k JOIN relation AS c ON c.oid = k.conrelid
UNION ALL
SELECT 'index', i.indexrelid::regclass::text, concat_ws(E'\n', pg_get_indexdef(i.indexrelid), 'valid: ' || i.indisvalid, 'replica: ' || i.indisreplident,
           obj_description(i.indexrelid, 'pg_class'))
FROM pg_index AS i JOIN relation AS c ON c.oid = i.indrelid
UNION ALL
SELECT 'trigger', t.tgrelid::regclass || ' ' || t.tgname, concat_ws(E'\n', pg_get_triggerdef(t.oid), 'fires: ' || t.tgenabled::text,
           obj_description(t.oid, 'pg_trigger'))
FROM pg_trigger AS t JOIN relation AS c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL
SELECT 'policy', p.polrelid::regclass || ' ' || p.polname, concat_ws(E'\n', p.polcmd, p.polpermissive, p.polroles::regrole[]::text,
           pg_get_expr(p.polqual, p.polrelid), 'check ' || pg_get_expr(p.polwithcheck, p.polrelid), obj_description(p.oid, 'pg_policy'))
FROM pg_policy AS p JOIN relation AS c ON c.oid = p.polrelid
UNION ALL
SELECT 'routine', p.oid::regprocedure::text, concat_ws(E'\n', CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) END,
           'owned by ' || p.proowner::regrole, obj_description(p.oid, 'pg_proc'), r.who)
FROM routine AS p LEFT JOIN rights AS r ON r.of = p.oid AND r.class = 'pg_proc'::regclass
UNION ALL
SELECT 'type', t.oid::regtype::text, concat_ws(' ', t.typtype, t.typcategory, pg_get_expr(t.typdefaultbin, 0), obj_description(t.oid, 'pg_type'),
           (SELECT string_agg(l.enumlabel, ' ' ORDER BY l.enumsortorder) FROM pg_enum AS l WHERE l.enumtypid = t.oid))
FROM extension AS e JOIN pg_type AS t ON t.typnamespace = e.schema WHERE t.typelem = 0
UNION ALL
SELECT 'dumped', config.relation::regclass::text, config.condition
FROM extension AS e CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) AS config (relation, condition)
UNION ALL
SELECT 'member', pg_describe_object(d.classid, d.objid, d.objsubid), ''
FROM extension AS e JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
UNION ALL
SELECT 'event type', t.name, concat_ws(E'\n', t.description, t.severity, t.resolves, t.built_in) FROM klaxon.event_type AS t
ORDER BY 1, 2
