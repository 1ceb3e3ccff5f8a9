-- What an administrator asks and does. Roles are the cluster's, so these have names of this file's own.
CREATE ROLE status_alice IN ROLE klaxon_user;
CREATE ROLE status_bob IN ROLE klaxon_user;
CREATE ROLE status_boss IN ROLE klaxon_admin;
CREATE ROLE status_engine IN ROLE klaxon_worker;
CREATE ROLE status_job IN ROLE klaxon_emitter;
CREATE ROLE status_app IN ROLE klaxon_app;

-- A new database: nothing has happened, and what to do first.
SELECT * FROM klaxon.status();
SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
UPDATE klaxon.deployment SET id = '00000000-0000-7000-8000-000000000001';

-- Something goes on: one channel works, one fails, one is off, one has never been used.
INSERT INTO klaxon.project (slug) VALUES ('billing'), ('search');
INSERT INTO klaxon.member (project, principal, role) VALUES
    ('billing', 'status_alice', 'admin'), ('search', 'status_alice', 'member'), ('billing', 'status_bob', 'member'), ('billing', 'carol', 'admin');
INSERT INTO klaxon.channel (id, name, kind, config, enabled) VALUES
    (101, 'works', 'webhook', '{"url": "https://example.com/"}', true), (102, 'fails', 'webhook', '{"url": "https://example.com/"}', true),
    (103, 'off', 'webhook', '{"url": "https://example.com/"}', false), (104, 'new', 'webhook', '{"url": "https://example.com/"}', true);
INSERT INTO klaxon.channel_state (channel_id, failing_since, failures, last_success_at, last_failure_at, last_error) VALUES
    (101, NULL, 0, now(), NULL, NULL), (102, '2026-01-02 03:04:05Z', 7, NULL, now(), repeat('timed out ', 20));
INSERT INTO klaxon.subscription (id, owner, events) VALUES (201, 'status_alice', '{run.failed}'), (202, 'status_bob', '{run.failed}');
INSERT INTO klaxon.event (id, type, project, created_at) VALUES
    ('00000000-0000-7000-8000-0000000000e1', 'run.failed', 'billing', '2026-01-01Z'), ('00000000-0000-7000-8000-0000000000e2', 'run.failed', 'billing', '2026-01-01Z'),
    ('00000000-0000-7000-8000-0000000000e3', 'run.failed', 'billing', '2026-01-01Z'), ('00000000-0000-7000-8000-0000000000e4', 'run.failed', 'billing', '2026-01-01Z');
INSERT INTO klaxon.outbox (id, event_id, event_type, subscription_id, channel_id, shard, created_at, due_at) VALUES
    (gen_random_uuid(), '00000000-0000-7000-8000-0000000000e1', 'run.failed', 201, 102, mod(102, 64), '2026-01-02 03:04:05Z', now() + '1 h'),
    (gen_random_uuid(), '00000000-0000-7000-8000-0000000000e1', 'run.failed', 202, 102, mod(102, 64), now(), now() + '2 h'),
    (gen_random_uuid(), '00000000-0000-7000-8000-0000000000e1', 'run.failed', 202, 999, mod(999, 64), now(), now() + '3 h');
INSERT INTO klaxon.dead_letter (id, event_id, event_type, subscription_id, channel_id, due_at, attempts, created_at, reason) VALUES
    (gen_random_uuid(), '00000000-0000-7000-8000-0000000000e2', 'run.failed', 202, 102, now(), 4, now(), 'the last attempt failed');
INSERT INTO klaxon.digest_item (subscription_id, channel_id, event_id, due_at) VALUES (201, 101, '00000000-0000-7000-8000-0000000000e3', now());
INSERT INTO klaxon.filter_error (subscription_id, events) VALUES (201, 2), (202, 3);
INSERT INTO klaxon.delivery (seq, kind, delivery_id, attempt, event_type, project, subscription_id, channel_id, channel_name, channel_kind, status,
                             response_code, error, response_body, duration_ms, attempted_at, chain, key_id, mac)
SELECT seq, CASE seq WHEN 5 THEN 'checkpoint' ELSE 'attempt' END, gen_random_uuid(), 1, 'run.failed', 'billing', 200 + seq % 2 + 1, 101,
       'works', 'webhook', status, code, error, body, 12, at, '00000000-0000-7000-8000-00000000000c', 'k', mac
FROM (VALUES
    (1, 'sent', 204, NULL, NULL, timestamptz '2026-01-02 03:04:05.678Z', decode(repeat('00', 32), 'hex')),
    (2, 'failed', 500, 'HTTP 500', 'oops', timestamptz '2026-01-02 03:04:06Z', decode(repeat('00', 32), 'hex')),
    (3, 'failed', 503, 'HTTP 503', 'busy', now(), decode(repeat('00', 32), 'hex')),
    (4, 'dead', NULL, repeat('no answer ', 20), NULL, now(), ''),
    (5, NULL, NULL, NULL, NULL, now(), decode(repeat('00', 32), 'hex'))
) AS attempts (seq, status, code, error, body, at, mac);
INSERT INTO klaxon.audit_head (chain, seq) VALUES ('00000000-0000-7000-8000-00000000000c', 5);
INSERT INTO klaxon.worker (id, host, version, started_at, heartbeat_at) VALUES (gen_random_uuid(), 'one', klaxon.version(), 'infinity', 'infinity');
INSERT INTO klaxon.worker (id, host, version, heartbeat_at) VALUES (gen_random_uuid(), 'silent', klaxon.version(), now() - interval '11 s');

SET timezone = 'UTC';
SELECT item, CASE item WHEN 'oldest_pending' THEN (value::interval > '1 day')::text ELSE value END FROM klaxon.status();
SELECT channel, event_type, attempt, status, code, ms, error FROM klaxon.recent_deliveries;
SELECT attempted_at FROM klaxon.recent_deliveries ORDER BY 1 LIMIT 1;
SELECT * FROM klaxon.channel_health;
SELECT channel_id, channel, kind, deliveries, oldest < now() - interval '1 day' AS old, next_try > now() AS waiting FROM klaxon.pending;

-- Warnings go with the mode, the age and the number.
SET klaxon.wakeup = 'poll';
SELECT * FROM klaxon.status() WHERE item = 'wakeup';
RESET klaxon.wakeup;
UPDATE klaxon.worker SET started_at = now() - interval '1 min', version = '0.0.1' WHERE host = 'one';
SELECT * FROM klaxon.status() WHERE item = 'wakeup';
UPDATE klaxon.outbox SET due_at = now() - interval '1 h' WHERE channel_id = 999;
UPDATE klaxon.channel SET enabled = false WHERE name = 'new';
SELECT regexp_replace(warning, '\d\d:\d\d:\d\d', 'an hour') AS warning
FROM klaxon.status(), string_to_table(value, '; ') AS warning WHERE item = 'warnings';
INSERT INTO klaxon.worker (id, host, version, heartbeat_at, notified_at) VALUES (gen_random_uuid(), 'two', klaxon.version(), 'infinity', now());
SELECT * FROM klaxon.status() WHERE item = 'wakeup';
DELETE FROM klaxon.worker WHERE host <> 'two';
SELECT * FROM klaxon.status() WHERE item IN ('workers', 'wakeup');

-- A user sees the counts of everybody, and the rows of its own.
SET ROLE status_bob;
SELECT count(*) FROM klaxon.status();
SELECT value FROM klaxon.status() WHERE item = 'pending';
SELECT name, pending, dead FROM klaxon.channel_health WHERE name = 'fails';
SELECT channel_id, deliveries FROM klaxon.pending;
SELECT status, code FROM klaxon.recent_deliveries;
SELECT * FROM klaxon.prune(events => '0');
SET ROLE status_app;
SELECT count(*) FROM klaxon.status();
SELECT count(*) FROM klaxon.pending;
SET ROLE status_engine;
SELECT count(*) FROM klaxon.status();
SELECT * FROM klaxon.prune();
SET ROLE status_job;
SELECT * FROM klaxon.status();
SELECT * FROM klaxon.pending;

-- Retention: by age, nothing by itself, and never what is still needed.
SET ROLE status_boss;
SELECT count(*) FROM klaxon.status();
SELECT * FROM klaxon.prune();
SELECT * FROM klaxon.prune(events => '-1 day');
SELECT * FROM klaxon.prune(events => '1 day', deliveries => '1 day', inbox => '1 day');
SELECT id FROM klaxon.event ORDER BY id;
SELECT seq, response_body FROM klaxon.delivery ORDER BY seq;
RESET ROLE;
INSERT INTO klaxon.inbox (principal, event_id, event_type, reason, title, created_at) VALUES
    ('status_bob', gen_random_uuid(), 'run.failed', 'subscribed', 'old', now() - interval '2 days'),
    ('status_bob', gen_random_uuid(), 'run.failed', 'subscribed', 'new', now());
SET ROLE status_boss;
SELECT * FROM klaxon.prune(inbox => '1 day');
SELECT title FROM klaxon.inbox;
UPDATE klaxon.delivery SET response_body = NULL;
DELETE FROM klaxon.delivery;

-- A personal channel becomes its project's: the same channel, its secret unseen and kept.
SET ROLE status_alice;
INSERT INTO klaxon.channel (name, kind, config, owner) VALUES
    ('mine', 'webhook', '{"url": "https://example.com/alice", "hmac_secret": "correct horse"}', 'status_alice'),
    ('twice', 'webhook', '{"url": "https://example.com/"}', 'status_alice');
INSERT INTO klaxon.channel (name, kind, config, project) VALUES ('twice', 'webhook', '{"url": "https://example.com/"}', 'billing');
SELECT klaxon.subscribe(ARRAY['mine'], ARRAY['run.failed'], project => 'billing') IS NOT NULL AS subscribed;
SELECT klaxon.subscribe(ARRAY['mine'], ARRAY['run.failed']) IS NOT NULL AS subscribed;
SELECT klaxon.subscribe(ARRAY['mine'], ARRAY['run.failed'], project => 'search') IS NOT NULL AS subscribed;
RESET ROLE;
CREATE TEMPORARY TABLE before AS
SELECT c.id, s.sealed FROM klaxon.channel AS c JOIN klaxon.channel_secret AS s ON s.channel_id = c.id WHERE c.name = 'mine';
SET ROLE status_alice;
SELECT klaxon.copy_channel('mine', 'search');
SELECT klaxon.copy_channel('mine', 'nowhere');
SELECT klaxon.copy_channel('mine', NULL);
SELECT klaxon.copy_channel('twice', 'billing');
SELECT klaxon.copy_channel('works', 'billing');
SELECT klaxon.copy_channel('unknown', 'billing');
SELECT klaxon.copy_channel('mine', 'billing') IS NOT NULL AS moved;
SELECT klaxon.copy_channel('mine', 'billing');
SELECT name, project, owner, config FROM klaxon.channel WHERE name = 'mine';
SELECT s.project FROM klaxon.subscription AS s JOIN klaxon.subscription_channel AS u ON u.subscription_id = s.id ORDER BY 1;
RESET ROLE;
SELECT c.id = b.id AS same_channel, s.sealed = b.sealed AS same_secret
FROM before AS b, klaxon.channel AS c JOIN klaxon.channel_secret AS s ON s.channel_id = c.id WHERE c.name = 'mine';

-- A plain UPDATE ends the same uses; a renamed project ends none.
UPDATE klaxon.project SET slug = 'invoices' WHERE slug = 'billing';
SELECT s.project FROM klaxon.subscription AS s JOIN klaxon.subscription_channel AS u ON u.subscription_id = s.id ORDER BY 1;
SET ROLE status_alice;
SELECT klaxon.subscribe(ARRAY['twice'], ARRAY['run.failed'], project => 'search') IS NOT NULL AS subscribed;
SET ROLE status_boss;
UPDATE klaxon.channel SET owner = 'status_bob' WHERE name = 'twice' AND owner = 'status_alice';
SET ROLE status_bob;
SELECT klaxon.copy_channel('twice', 'invoices');

-- An application for a principal, with that principal's memberships.
SET ROLE status_app;
SET klaxon.principal = 'carol';
INSERT INTO klaxon.channel (name, kind, config, owner) VALUES ('hers', 'webhook', '{"url": "https://example.com/"}', 'carol');
SELECT klaxon.copy_channel('hers', 'search');
SELECT klaxon.copy_channel('hers', 'invoices') IS NOT NULL AS moved;
SELECT name, project, owner FROM klaxon.channel WHERE name = 'hers';
RESET klaxon.principal;
SET ROLE status_job;
SELECT klaxon.copy_channel('hers', 'invoices');
RESET ROLE;

DROP ROLE status_alice, status_bob, status_boss, status_engine, status_job, status_app;
