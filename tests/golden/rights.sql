-- Who may what. Roles are the cluster's, so these have names of this file's own.
SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
CREATE ROLE rights_alice IN ROLE klaxon_user;
CREATE ROLE rights_bob IN ROLE klaxon_user;
CREATE ROLE rights_boss IN ROLE klaxon_admin;
CREATE ROLE rights_job IN ROLE klaxon_emitter;
CREATE ROLE rights_app IN ROLE klaxon_app;
CREATE ROLE rights_nobody;
INSERT INTO klaxon.project (slug) VALUES ('billing'), ('search');
INSERT INTO klaxon.member (project, principal, role) VALUES ('billing', 'rights_alice', 'admin'), ('search', 'rights_bob', 'member'), ('billing', 'carol', 'member');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('global', 'webhook', '{"url": "https://example.com/"}');
INSERT INTO klaxon.channel (name, kind, config, project) VALUES ('search-team', 'webhook', '{"url": "https://example.com/"}', 'search');

-- PUBLIC has nothing.
SET ROLE rights_nobody;
SELECT klaxon.version();
SELECT * FROM klaxon.event;
SELECT klaxon.notify_event('run.failed');

-- An emitter emits, and reads nothing.
SET ROLE rights_job;
SELECT klaxon.notify_event('run.failed', '{"run_id": "1"}', 'billing') IS NOT NULL AS emitted;
SELECT klaxon.notify_event('run.failed', '{"run_id": "1"}', 'search', 'k') = klaxon.notify_event('run.failed', '{}', 'search', 'k') AS same;
SELECT payload FROM klaxon.event;
SELECT count(*) FROM klaxon.channel;
INSERT INTO klaxon.event (type, emitted_by) VALUES ('run.failed', 'rights_boss');
INSERT INTO klaxon.event (type, created_at) VALUES ('run.failed', '2020-01-01');
INSERT INTO klaxon.outbox (id, channel_id, shard, event_type) VALUES (gen_random_uuid(), 1, 0, 'run.failed');
RESET ROLE;
SELECT type, project, emitted_by FROM klaxon.event ORDER BY project;

-- A user has channels and subscriptions of its own, and its project's where it is an admin there.
SET ROLE rights_alice;
SELECT klaxon.principal();
INSERT INTO klaxon.channel (name, kind, config, owner) VALUES ('mine', 'webhook', '{"url": "https://example.com/alice"}', 'rights_alice');
INSERT INTO klaxon.channel (name, kind, config, project) VALUES ('billing-team', 'webhook', '{"url": "https://example.com/billing"}', 'billing');
INSERT INTO klaxon.channel (name, kind, config, project) VALUES ('x', 'webhook', '{"url": "https://example.com/"}', 'search');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', '{"url": "https://example.com/"}');
INSERT INTO klaxon.channel (name, kind, config, owner) VALUES ('x', 'webhook', '{"url": "https://example.com/"}', 'rights_bob');
UPDATE klaxon.channel SET config = '{"url": "https://evil.example.com/"}' WHERE name = 'global';
SELECT name, project, owner, config ->> 'url' AS url FROM klaxon.channel ORDER BY name;
SELECT klaxon.subscribe(ARRAY['mine', 'global'], ARRAY['run.*'], project => 'billing') IS NOT NULL AS subscribed;
SELECT klaxon.subscribe(ARRAY['global'], ARRAY['run.*'], owner => NULL);
SELECT klaxon.subscribe(ARRAY['global'], ARRAY['run.*'], owner => 'rights_bob');
SELECT klaxon.subscribe(ARRAY['search-team'], ARRAY['run.*'], project => 'search');
SELECT type, project FROM klaxon.event;
SELECT * FROM klaxon.channel_secret;
SELECT klaxon.notify_event('run.failed');
UPDATE klaxon.member SET role = 'admin' WHERE principal = 'rights_bob';
SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');

-- Another user sees neither.
SET ROLE rights_bob;
SELECT name, project, owner FROM klaxon.channel ORDER BY name;
SELECT owner, events FROM klaxon.subscription;
UPDATE klaxon.subscription SET enabled = false;
DELETE FROM klaxon.channel;
SELECT type, project FROM klaxon.event;

-- An application acts for whom it says, with that principal's memberships and no role's rights.
SET ROLE rights_app;
SET klaxon.principal = 'carol';
SELECT klaxon.principal();
SELECT name, project, owner FROM klaxon.channel ORDER BY name;
SELECT klaxon.subscribe(ARRAY['global'], ARRAY['run.*'], project => 'billing') IS NOT NULL AS subscribed;
SELECT owner, events FROM klaxon.subscription;
SET klaxon.principal = 'rights_boss';
SELECT count(*) FROM klaxon.subscription;
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', '{"url": "https://example.com/"}');
SET ROLE rights_bob;
SET klaxon.principal = 'rights_alice';
SELECT klaxon.principal();
RESET klaxon.principal;

-- An administrator does everything but open secrets, forge the log and change the schema.
SET ROLE rights_boss;
SELECT klaxon.subscribe(ARRAY['global'], ARRAY['task.*'], owner => NULL) IS NOT NULL AS subscribed;
SELECT count(*) FROM klaxon.subscription;
UPDATE klaxon.member SET role = 'admin' WHERE principal = 'rights_bob';
SELECT sealed FROM klaxon.channel_secret;
INSERT INTO klaxon.delivery (seq, kind, attempted_at, chain, key_id, mac) VALUES (1, 'config', now(), gen_random_uuid(), '', '');
UPDATE klaxon.delivery SET status = 'sent';
DELETE FROM klaxon.delivery;
TRUNCATE klaxon.event;
CREATE TABLE klaxon.mine ();
ALTER TABLE klaxon.event ADD COLUMN x int;
CREATE TRIGGER t AFTER INSERT ON klaxon.event EXECUTE FUNCTION klaxon.touch();
SET klaxon.allow_http = on;
-- What must not be kept is struck from an event, or goes with it.
UPDATE klaxon.event SET type = 'run.finished';
UPDATE klaxon.event SET payload = '{}' WHERE project = 'search';
DELETE FROM klaxon.event WHERE project = 'search';
INSERT INTO klaxon.inbox (principal, event_id, event_type, reason, title)
SELECT p, gen_random_uuid(), 'run.failed', 'subscribed', 'Look' FROM unnest(ARRAY['rights_bob', 'rights_alice']) AS p;
SELECT principal FROM klaxon.inbox;
DELETE FROM klaxon.inbox;
RESET ROLE;

DROP ROLE rights_alice, rights_bob, rights_boss, rights_job, rights_app, rights_nobody;
