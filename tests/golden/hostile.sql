-- What somebody tries who means harm or has bad luck. None of it is an internal error, none of it
-- stops another's work, and none of it tells a stranger what is not theirs.
CREATE ROLE mallory LOGIN;
CREATE ROLE victor LOGIN;
GRANT klaxon_user, klaxon_emitter TO mallory, victor;
SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('ops', 'webhook', '{"url": "https://hooks.example.com/ops"}');
SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['run.*'], owner => NULL) > 0 AS subscribed;

-- Objects of one's own are not met by functions that take the owner's rights.
CREATE SCHEMA trap AUTHORIZATION mallory;
SET SESSION AUTHORIZATION mallory;
CREATE TABLE trap.caught (who text);
CREATE FUNCTION trap.catch(text, text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN INSERT INTO trap.caught VALUES (current_user); RETURN true; END $$;
CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.catch);
SET search_path = trap, pg_catalog;
CREATE FUNCTION trap.spy(name) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN INSERT INTO trap.caught VALUES (current_user); RETURN true; END $$;
CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (trap.spy(current_user));
SELECT count(*) FROM klaxon.explain_event('run.failed', '{}', 'billing');
SELECT klaxon.retry_dead();
SELECT klaxon.replay('ops', '2020-01-01');
SELECT count(*) FROM trap.caught WHERE who OPERATOR(pg_catalog.<>) 'mallory';
RESET SESSION AUTHORIZATION;
RESET search_path;

-- A setting of the caller's does not change who a SECURITY DEFINER function of a superuser acts for.
CREATE FUNCTION public.acts_for() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT klaxon.principal()';
SET SESSION AUTHORIZATION mallory;
SET klaxon.principal = 'victor';
SELECT public.acts_for() <> 'victor' AS not_victor, klaxon.principal();
RESET klaxon.principal;
RESET SESSION AUTHORIZATION;
SET klaxon.principal = 'alice';
SELECT klaxon.principal();
RESET klaxon.principal;

-- A jsonpath that names a variable, or does not end, is refused when it is written.
SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['run.failed'], filters => '{"where": "$.a > $limit"}', owner => NULL);
-- What only an event shows is the subscription's trouble: the event is emitted, and counted.
SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['task.failed'], filters => '{"where": "$.at.datetime() < \"2026-01-01T00:00:00+00\".datetime()"}', owner => NULL) > 0 AS subscribed;
SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['task.failed'], filters => '{"where": "$.text like_regex \"^((a|aa)*)*\\\\1$\""}', owner => NULL) > 0 AS subscribed;
SELECT klaxon.notify_event('task.failed', '{"at": "2026-01-01T00:00:00"}') IS NOT NULL AS emitted;
SELECT klaxon.notify_event('task.failed', jsonb_build_object('text', repeat('a', 60) || 'b')) IS NOT NULL AS emitted;
SELECT count(*) FROM klaxon.outbox;
SELECT sum(events) > 0 AS counted FROM klaxon.filter_error;

-- Each row of one INSERT keeps its own secret; what a conflict drops leaves nothing.
INSERT INTO klaxon.channel (name, kind, config) VALUES
    ('twice', 'webhook', '{"url": "https://a.example.com/", "hmac_secret": "first"}'),
    ('twice', 'webhook', '{"url": "https://b.example.com/", "hmac_secret": "second"}')
ON CONFLICT DO NOTHING;
SELECT c.config ->> 'url' AS url, s.destination FROM klaxon.channel AS c JOIN klaxon.channel_secret AS s ON s.channel_id = c.id WHERE c.name = 'twice';

-- The rights of a subscription hold when it changes, too; and an error tells no stranger's names.
INSERT INTO klaxon.project (slug) VALUES ('billing'), ('secret');
INSERT INTO klaxon.member (project, principal) VALUES ('billing', 'mallory'), ('secret', 'victor');
SET SESSION AUTHORIZATION victor;
INSERT INTO klaxon.channel (name, kind, owner, config) VALUES ('victors-diary', 'webhook', 'victor', '{"url": "https://diary.example.com/"}');
RESET SESSION AUTHORIZATION;
CREATE TEMP TABLE diary AS SELECT id FROM klaxon.channel WHERE name = 'victors-diary';
GRANT SELECT ON diary TO mallory;
SET SESSION AUTHORIZATION mallory;
INSERT INTO klaxon.channel (name, kind, owner, config) VALUES ('mine', 'webhook', 'mallory', '{"url": "https://mine.example.com/"}');
SELECT klaxon.subscribe(ARRAY['mine'], ARRAY['run.failed'], project => 'billing') > 0 AS subscribed;
\set VERBOSITY sqlstate
INSERT INTO klaxon.subscription_channel SELECT (SELECT max(id) FROM klaxon.subscription), id FROM diary;
-- Days later: the row was made in another transaction.
UPDATE klaxon.subscription_channel SET channel_id = (SELECT id FROM diary);
UPDATE klaxon.subscription SET project = 'secret';
UPDATE klaxon.subscription SET owner = 'victor';
RESET SESSION AUTHORIZATION;
\set VERBOSITY verbose
UPDATE klaxon.subscription SET owner = 'victor', project = NULL WHERE owner = 'mallory';

-- A renamed project takes channels, members and subscriptions along, whatever their configs say by now.
SET klaxon.allow_http = on;
INSERT INTO klaxon.channel (name, kind, project, config) VALUES ('plain', 'webhook', 'billing', '{"url": "http://plain.example.com/"}');
RESET klaxon.allow_http;
UPDATE klaxon.project SET slug = 'invoices' WHERE slug = 'billing';
SELECT project, name FROM klaxon.channel WHERE project IS NOT NULL;
SELECT project, owner FROM klaxon.subscription WHERE owner = 'mallory';

-- More keys than the lock table has room for, and keys that look alike.
INSERT INTO klaxon.event (type, dedup_key) SELECT 'task.succeeded', 'k' || n FROM generate_series(1, 20000) AS n;
INSERT INTO klaxon.event (type, dedup_key) SELECT 'task.succeeded', 'k' || n FROM generate_series(1, 20000) AS n;
SELECT count(*) FROM klaxon.event WHERE dedup_key IS NOT NULL;
INSERT INTO klaxon.event (type, project, dedup_key) VALUES ('task.retried', NULL, 'a'), ('task.retried', 'a', 'a'), ('task.retried', '-', 'a'), ('task.retried', NULL, E'a\na'), ('task.retried', 'a', E'a\na');
SELECT count(*) FROM klaxon.event WHERE type = 'task.retried';
SELECT klaxon.notify_event('task.retried', dedup_key => 'a') = id AS same FROM klaxon.event WHERE type = 'task.retried' AND project IS NULL AND dedup_key = 'a';
DELETE FROM klaxon.event WHERE type = 'task.retried';
SELECT klaxon.notify_event('task.retried', dedup_key => 'a') IS NOT NULL AS emitted;
SELECT count(*) FROM klaxon.event WHERE type = 'task.retried';

-- Nulls, depths and numbers that are legal in jsonb.
SELECT klaxon.replay(NULL, '2020-01-01');
SELECT klaxon.replay('ops', NULL);
SELECT klaxon.replay('ops', '2020-01-01', events => ARRAY['run.failed', NULL]);
SELECT klaxon.replay('ops', '2020-01-01', dry_run => NULL);
SELECT count(*) > 0 AS explained FROM klaxon.explain_event('run.failed', '{"n": 1e400}');
SELECT count(*) > 0 AS explained FROM klaxon.explain_event('run.failed', (repeat('[', 3000) || repeat(']', 3000))::jsonb);
SELECT klaxon.subscribe(NULL, ARRAY['run.failed']);
SELECT klaxon.subscribe(ARRAY[NULL], ARRAY['run.failed']);
SELECT klaxon.subscribe(ARRAY['ops'], NULL);
SELECT klaxon.subscribe(ARRAY['ops'], ARRAY[NULL]);

-- Bounds.
SELECT klaxon.notify_event('run.failed', project => repeat('p', 101));
SELECT klaxon.heartbeat('a', repeat('p', 101));
UPDATE klaxon.event_type SET name = 'run.exploded' WHERE name = 'run.failed';
