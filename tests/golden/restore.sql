-- Foreign keys step aside for pg_restore, which is a superuser's program: for nobody else, and no longer than it loads.
CREATE ROLE restore_boss IN ROLE klaxon_admin;
INSERT INTO klaxon.project (slug) VALUES ('billing');
INSERT INTO klaxon.default_subscription (project, events) VALUES ('billing', '{run.failed}');
INSERT INTO klaxon.member (project, principal) VALUES ('nowhere', 'alice');
SELECT * FROM klaxon.orphans();

-- The name alone is nothing, nor are an owner's rights that are lent.
SET application_name = 'pg_restore';
SET ROLE restore_boss;
INSERT INTO klaxon.member (project, principal) VALUES ('nowhere', 'alice');
INSERT INTO klaxon.member (project, principal) VALUES ('billing', 'alice');
RESET ROLE;
SELECT detail::json ->> 'table' AS recorded FROM klaxon.config_change WHERE detail::json ->> 'by' = 'restore_boss' ORDER BY id;
CREATE FUNCTION lend() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$
    INSERT INTO klaxon.member (project, principal) VALUES ('nowhere', 'alice')
$$;
SELECT lend();

-- What a superuser does by that name is taken as it is; what points nowhere is named.
BEGIN;
INSERT INTO klaxon.member (project, principal, created_at) VALUES ('nowhere', 'alice', '2020-01-01'), ('nowhere', 'bob', '2020-01-01');
INSERT INTO klaxon.subscription (project, events, created_at) VALUES ('nowhere', '{run.*}', '2020-01-01');
SHOW session_replication_role;
COMMIT;
SELECT pattern, project FROM klaxon.subscription_pattern WHERE project = 'nowhere';
SELECT * FROM klaxon.orphans();
SET ROLE restore_boss;
SELECT * FROM klaxon.orphans();
RESET ROLE;
-- Everything else is refused as ever.
UPDATE klaxon.member SET project = 'elsewhere' WHERE principal = 'bob';
DELETE FROM klaxon.project WHERE slug = 'billing';
SELECT count(*) FROM klaxon.member WHERE project = 'billing';

-- What was edited of a built-in type comes back without being recorded a second time.
DELETE FROM klaxon.config_change;
INSERT INTO klaxon.event_type (name, severity, built_in, created_at, updated_at) VALUES ('run.failed', 'critical', true, '2020-01-01', '2020-01-02');
SELECT severity, created_at < '2021-01-01' AS as_it_was FROM klaxon.event_type WHERE name = 'run.failed';
SELECT count(*) FROM klaxon.config_change;
UPDATE klaxon.event_type SET severity = 'error' WHERE name = 'run.failed';
SELECT detail::json -> 'changed' AS changed FROM klaxon.config_change;
RESET application_name;
DROP FUNCTION lend();
