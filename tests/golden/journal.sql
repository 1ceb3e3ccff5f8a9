-- Changes of the configuration are written down with who made them, secrets masked; nobody may write or
-- take back such a record.
CREATE ROLE journal_alice IN ROLE klaxon_user;
CREATE ROLE journal_app IN ROLE klaxon_app;
CREATE ROLE journal_boss IN ROLE klaxon_admin;
CREATE FUNCTION pg_temp.told() RETURNS SETOF jsonb LANGUAGE sql AS $$
    WITH taken AS (DELETE FROM klaxon.config_change RETURNING id, detail)
    SELECT detail::jsonb - 'at' - 'session_user' FROM taken ORDER BY id
$$;
SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
SET ROLE journal_boss;
INSERT INTO klaxon.project (slug) VALUES ('billing');
INSERT INTO klaxon.member (project, principal) VALUES ('billing', 'journal_alice'), ('billing', 'bob');
SET ROLE journal_alice;
INSERT INTO klaxon.channel (name, kind, owner, config) VALUES ('mine', 'webhook', 'journal_alice', '{"url": "https://example.com/", "hmac_secret": "swordfish"}');
SELECT klaxon.subscribe(ARRAY['mine'], ARRAY['run.failed']) AS id \gset
SELECT klaxon.mute(:id, '2030-01-01Z');
UPDATE klaxon.channel SET enabled = false;
UPDATE klaxon.channel SET enabled = false;
UPDATE klaxon.channel SET config = '{"url": "https://example.com/", "hmac_secret": "sailfish"}';
SET ROLE journal_app;
SET klaxon.principal = 'bob';
INSERT INTO klaxon.channel (name, kind, owner, config) VALUES ('bobs', 'webhook', 'bob', '{"url": "https://example.com/"}');
RESET klaxon.principal;
SET ROLE journal_boss;
DELETE FROM klaxon.channel WHERE name = 'mine';
SELECT count(*) > 0 AS admins_may_read FROM klaxon.config_change;
DELETE FROM klaxon.config_change;
INSERT INTO klaxon.config_change (detail) VALUES ('{}');
SELECT klaxon.write_config_change('alice', 'channel', 'delete', '{}', NULL);
SET ROLE journal_alice;
SELECT * FROM klaxon.config_change;
RESET ROLE;
SELECT value FROM klaxon.status() WHERE item = 'audit_unsealed';
SELECT * FROM pg_temp.told();
-- What rolls back was not done.
BEGIN;
DELETE FROM klaxon.project;
ROLLBACK;
SELECT * FROM pg_temp.told();
DROP ROLE journal_alice, journal_app, journal_boss;
