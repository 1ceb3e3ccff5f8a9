-- Principals, their memberships, defaults and inboxes.
CREATE ROLE people_app IN ROLE klaxon_app;
CREATE ROLE people_boss IN ROLE klaxon_admin;
SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
INSERT INTO klaxon.project (slug, name) VALUES ('billing', 'Billing'), ('search', NULL);
INSERT INTO klaxon.channel (name, kind, config) VALUES ('everyone', 'webhook', '{"url": "https://example.com/"}');
INSERT INTO klaxon.channel (name, kind, config, project) VALUES ('team', 'webhook', '{"url": "https://example.com/team"}', 'billing');
INSERT INTO klaxon.channel (name, kind, config, owner) VALUES ('team', 'webhook', '{"url": "https://example.com/own"}', 'alice');

-- Refused members and projects.
INSERT INTO klaxon.member (project, principal) VALUES ('nowhere', 'alice');
INSERT INTO klaxon.member (project, principal, role) VALUES ('billing', 'alice', 'owner');
INSERT INTO klaxon.member (project, principal) VALUES ('billing', '');
INSERT INTO klaxon.project (slug) VALUES ('with space');
INSERT INTO klaxon.project (slug, url) VALUES ('x', 'javascript:alert(1)');

-- Defaults: the project's admin makes them, members see them, and who becomes a member gets copies.
INSERT INTO klaxon.member (project, principal, role) VALUES ('billing', 'ada', 'admin');
SET ROLE people_app;
SET klaxon.principal = 'ada';
INSERT INTO klaxon.default_subscription (project, events, filters, cooldown, in_app, channel_ids)
SELECT 'billing', ARRAY['run.failed'], '{"branches": ["main"]}', '5 min', true, array_agg(id ORDER BY id) FROM klaxon.channel WHERE owner IS NULL;
INSERT INTO klaxon.default_subscription (project, events, in_app) VALUES ('search', ARRAY['run.failed'], true);
INSERT INTO klaxon.default_subscription (project, events) VALUES ('billing', ARRAY['run.faled']);
INSERT INTO klaxon.default_subscription (project, events, filters) VALUES ('billing', ARRAY['run.failed'], '{"colour": "red"}');
INSERT INTO klaxon.default_subscription (project, events, digest_timezone) VALUES ('billing', ARRAY['run.failed'], 'Europe/Atlantis');
INSERT INTO klaxon.default_subscription (project, events, mode) VALUES ('billing', ARRAY['run.failed'], 'digest');
INSERT INTO klaxon.default_subscription (project, events, cooldown) VALUES ('billing', ARRAY['run.failed'], '-1 s');
-- Channels that a copy could not have.
INSERT INTO klaxon.default_subscription (project, events, channel_ids) VALUES ('billing', ARRAY['run.failed'], '{999999}');
INSERT INTO klaxon.default_subscription (project, events, channel_ids) VALUES ('billing', ARRAY['run.failed'], '{NULL}');
RESET klaxon.principal;
RESET ROLE;
INSERT INTO klaxon.channel (id, name, kind, config, owner) VALUES (5001, 'hers', 'webhook', '{"url": "https://example.com/"}', 'eve');
INSERT INTO klaxon.channel (id, name, kind, config, project) VALUES (5002, 'found', 'webhook', '{"url": "https://example.com/"}', 'search');
INSERT INTO klaxon.default_subscription (project, events, channel_ids) VALUES ('billing', ARRAY['run.failed'], '{5001}');
INSERT INTO klaxon.default_subscription (project, events, channel_ids) VALUES ('billing', ARRAY['run.failed'], '{5002}');
UPDATE klaxon.default_subscription SET channel_ids = channel_ids || 5001 WHERE project = 'billing';
INSERT INTO klaxon.default_subscription (id, project, events, channel_ids) VALUES (5003, 'search', ARRAY['run.failed'], '{5002}');
UPDATE klaxon.default_subscription SET project = 'billing' WHERE id = 5003;
-- What a dump brings was allowed once, and a project may go by another name.
INSERT INTO klaxon.default_subscription (id, project, events, channel_ids, created_at) VALUES (5004, 'search', ARRAY['run.failed'], '{5002, 999999}', '2026-01-01Z');
UPDATE klaxon.default_subscription SET cooldown = '1 min' WHERE id = 5004;
DELETE FROM klaxon.default_subscription WHERE id = 5004;
UPDATE klaxon.project SET slug = 'seek' WHERE slug = 'search';
SELECT project, channel_ids FROM klaxon.default_subscription WHERE id = 5003;
UPDATE klaxon.project SET slug = 'search' WHERE slug = 'seek';
DELETE FROM klaxon.default_subscription WHERE id >= 5000;
DELETE FROM klaxon.channel WHERE id > 5000;
INSERT INTO klaxon.member (project, principal) VALUES ('billing', 'alice'), ('billing', 'bob'), ('search', 'bob');
SELECT s.owner, s.project, s.events, s.filters, s.cooldown, s.in_app, array_agg(c.name ORDER BY c.id) AS channels
FROM klaxon.subscription AS s LEFT JOIN klaxon.subscription_channel AS u ON u.subscription_id = s.id LEFT JOIN klaxon.channel AS c ON c.id = u.channel_id
GROUP BY s.id ORDER BY s.owner;
-- The copy is the principal's own: it may change it, joining again adds none, and the default's changes leave it alone.
SET ROLE people_app;
SET klaxon.principal = 'alice';
UPDATE klaxon.subscription SET cooldown = '0' RETURNING owner;
DELETE FROM klaxon.default_subscription;
RESET klaxon.principal;
RESET ROLE;
DELETE FROM klaxon.member WHERE principal = 'alice';
INSERT INTO klaxon.member (project, principal) VALUES ('billing', 'alice');
UPDATE klaxon.default_subscription SET in_app = false;
SELECT owner, cooldown, in_app FROM klaxon.subscription ORDER BY owner;

-- Channels by name: one's own first, then the project's, then a global one.
SELECT klaxon.subscribe(ARRAY['team', 'everyone'], ARRAY['task.failed'], 'billing', owner => 'alice') AS id \gset
SELECT c.name, c.project, c.owner FROM klaxon.subscription_channel AS u JOIN klaxon.channel AS c ON c.id = u.channel_id WHERE u.subscription_id = :id ORDER BY 1;
SELECT klaxon.subscribe(ARRAY['team'], ARRAY['task.failed'], 'billing', owner => 'bob') AS id \gset
SELECT c.name, c.project, c.owner FROM klaxon.subscription_channel AS u JOIN klaxon.channel AS c ON c.id = u.channel_id WHERE u.subscription_id = :id ORDER BY 1;

-- The bell: rows in the emitting transaction, with a title a person understands.
SELECT klaxon.notify_event('run.failed', '{"run_id": "r1", "branch": "main", "failed_tests": 3, "total_tests": 412}', 'billing') IS NOT NULL AS emitted;
SELECT klaxon.notify_event('run.failed', '{"run_id": "r2", "branch": "try"}', 'billing') IS NOT NULL AS emitted;
SELECT klaxon.notify_event('run.failed', '{"run_id": "r3", "branch": "main"}', 'search') IS NOT NULL AS emitted;
SELECT klaxon.subscribe('{}', ARRAY['task.*'], in_app => true, owner => 'bob') > 0 AS subscribed;
SELECT klaxon.notify_event('task.failed', '{"task_name": "report.daily", "exception": "Timeout"}', 'billing') IS NOT NULL AS emitted;
SELECT klaxon.notify_event('task.failed', '{"task_name": "report.daily"}', 'unheard-of') IS NOT NULL AS emitted;
SELECT principal, project, event_type, reason, title, data, read_at IS NULL AS unread FROM klaxon.inbox ORDER BY id, principal;
SET ROLE people_app;
SET klaxon.principal = 'bob';
SELECT klaxon.unread_count();
SELECT event_type, title FROM klaxon.inbox ORDER BY id;
SELECT klaxon.mark_read(ARRAY[(SELECT min(id) FROM klaxon.inbox), 999999]);
SELECT klaxon.unread_count();
SELECT klaxon.mark_read(ARRAY[(SELECT min(id) FROM klaxon.inbox)]) AS again;
SELECT klaxon.mark_read('{}') AS none;
SELECT klaxon.mark_read() AS rest, klaxon.unread_count();
UPDATE klaxon.inbox SET read_at = NULL WHERE event_type = 'task.failed';
SELECT klaxon.unread_count();
UPDATE klaxon.inbox SET title = 'forged';
INSERT INTO klaxon.inbox (principal, event_id, event_type, reason, title) VALUES ('bob', gen_random_uuid(), 'run.failed', 'subscribed', 'forged');
DELETE FROM klaxon.inbox;
SET klaxon.principal = 'alice';
SELECT klaxon.mark_read() AS own, (SELECT count(*) FROM klaxon.inbox) AS seen;
RESET klaxon.principal;
RESET ROLE;

-- Who leaves a project hears nothing of it from the next event on, without anybody's editing.
DELETE FROM klaxon.outbox;
DELETE FROM klaxon.inbox;
SELECT klaxon.notify_event('task.failed', '{"task_name": "a"}', 'billing') IS NOT NULL AS emitted;
SELECT s.owner, o.event_type FROM klaxon.outbox AS o JOIN klaxon.subscription AS s ON s.id = o.subscription_id ORDER BY 1;
DELETE FROM klaxon.member WHERE principal = 'bob' AND project = 'billing';
DELETE FROM klaxon.outbox;
SELECT klaxon.notify_event('task.failed', '{"task_name": "b"}', 'billing') IS NOT NULL AS emitted;
SELECT s.owner, o.event_type FROM klaxon.outbox AS o JOIN klaxon.subscription AS s ON s.id = o.subscription_id ORDER BY 1;
SELECT DISTINCT owner, verdict, reason FROM klaxon.explain_event('task.failed', '{}', 'billing') ORDER BY 1;
-- A subscription to all projects hears of those its owner is a member of, and of unregistered ones.
SELECT DISTINCT verdict, reason FROM klaxon.explain_event('task.failed', '{}', 'search') WHERE owner = 'bob';
SELECT DISTINCT verdict, reason FROM klaxon.explain_event('task.failed', '{}', 'unheard-of') WHERE owner = 'bob';

-- Shared subscriptions are an administrator's, and reach global channels, or with a project that project's.
SET ROLE people_boss;
SELECT klaxon.subscribe(ARRAY['everyone'], ARRAY['*'], owner => NULL) > 0 AS subscribed;
SELECT klaxon.subscribe(ARRAY['team'], ARRAY['*'], 'billing', owner => NULL) > 0 AS subscribed;
SELECT klaxon.subscribe(ARRAY['team'], ARRAY['*'], owner => NULL);
SELECT klaxon.subscribe(ARRAY['team'], ARRAY['*'], 'search', owner => NULL);
RESET ROLE;
SELECT channel, verdict, reason FROM klaxon.explain_event('run.finished', '{}', 'search') WHERE owner IS NULL;
SELECT channel, verdict, reason FROM klaxon.explain_event('run.finished', '{}', 'billing') WHERE owner IS NULL ORDER BY 1;

-- Bounds of what a subscription says.
SELECT klaxon.subscribe(ARRAY['everyone'], ARRAY['run.failed'], cooldown => '-1 s', owner => NULL);
SELECT klaxon.subscribe(ARRAY['everyone'], ARRAY['run.failed'], cooldown => '1 year 1 day', owner => NULL);
SELECT klaxon.subscribe(ARRAY['everyone'], ARRAY['run.failed'], mode => 'digest', owner => NULL);
SELECT klaxon.subscribe(ARRAY['everyone'], ARRAY['run.failed'], mode => 'digest', digest_at => '08:00', digest_timezone => 'Nowhere/Land', owner => NULL);
SELECT klaxon.subscribe(ARRAY['everyone'], ARRAY['run.failed'], mode => NULL, owner => NULL);
SELECT klaxon.subscribe(ARRAY['everyone'], ARRAY['run.failed'], owner => '');
SELECT klaxon.mute(id, 'yesterday') IS NOT NULL AS muted FROM klaxon.subscription WHERE owner = 'alice' ORDER BY id LIMIT 1;

-- A type that is gone is one that nobody hears of, by a default as by any other subscription.
INSERT INTO klaxon.event_type (name) VALUES ('invoice.paid');
INSERT INTO klaxon.default_subscription (project, events) VALUES ('search', ARRAY['invoice.paid', 'run.failed']);
DELETE FROM klaxon.event_type WHERE name = 'invoice.paid';
INSERT INTO klaxon.member (project, principal) VALUES ('search', 'carol') RETURNING principal;
SELECT events FROM klaxon.subscription WHERE owner = 'carol';
UPDATE klaxon.subscription SET events = events || ARRAY['invoice.paid'] WHERE owner = 'carol';

DROP ROLE people_app, people_boss;

-- A default may name a channel that is gone, and its project be renamed all the same; but not get another such.
INSERT INTO klaxon.project (slug) VALUES ('before');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('passing', 'webhook', '{"url": "https://passing.example.com/"}');
INSERT INTO klaxon.default_subscription (project, events, channel_ids) SELECT 'before', ARRAY['run.failed'], ARRAY[id] FROM klaxon.channel WHERE name = 'passing';
DELETE FROM klaxon.channel WHERE name = 'passing';
UPDATE klaxon.project SET slug = 'after' WHERE slug = 'before';
SELECT project, cardinality(channel_ids) AS channels FROM klaxon.default_subscription WHERE project = 'after';
UPDATE klaxon.default_subscription SET channel_ids = channel_ids || 999999 WHERE project = 'after';
UPDATE klaxon.default_subscription SET channel_ids = channel_ids || NULL::bigint WHERE project = 'after';
UPDATE klaxon.default_subscription SET channel_ids = '{}' WHERE project = 'after';
