-- Emitting: what is refused, what is written, what a rollback leaves.
INSERT INTO klaxon.project (slug) VALUES ('billing');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('hook', 'webhook', '{"url": "https://example.com/"}');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.*', 'task.failed'], owner => NULL) IS NOT NULL AS subscribed;

-- Refused.
SELECT klaxon.notify_event('run.finnished');
SELECT klaxon.notify_event(NULL);
INSERT INTO klaxon.event (type) VALUES ('run.finished'), ('run.finnished');
SET klaxon.max_payload_bytes = 1024;
SELECT klaxon.notify_event('run.finished', jsonb_build_object('title', repeat('x', 2000)));
RESET klaxon.max_payload_bytes;
SELECT klaxon.notify_event('run.finished', occurred_at => 'infinity');
SELECT klaxon.notify_event('run.finished', dedup_key => '');
SELECT count(*) AS events, (SELECT count(*) FROM klaxon.outbox) AS deliveries FROM klaxon.event;

-- Any jsonb is a payload, any project a project.
SELECT klaxon.notify_event('run.finished', payload) IS NOT NULL AS emitted
FROM unnest(ARRAY['{}', '[]', '"text"', '12345678901234567890123456789', 'null', 'true']::jsonb[]) AS payload;
SELECT klaxon.notify_event('run.finished', NULL, 'unheard-of') IS NOT NULL AS emitted;
SELECT e.type, e.project, e.payload, o.event_type, o.project, o.attempts, o.shard BETWEEN 0 AND 63 AS shard, o.due_at = e.created_at AS due
FROM klaxon.event AS e LEFT JOIN klaxon.outbox AS o ON o.event_id = e.id ORDER BY e.payload::text COLLATE "C", e.project;

-- A type of one's own.
INSERT INTO klaxon.event_type (name, description, severity) VALUES ('deploy.done', 'A deployment reached production', 'info');
SELECT klaxon.notify_event('deploy.done') IS NOT NULL AS emitted;
INSERT INTO klaxon.event_type (name) VALUES ('with space');
DELETE FROM klaxon.event_type WHERE name = 'run.failed';

-- A known dedup_key is the first event again; type and project are part of the key.
SELECT klaxon.notify_event('run.failed', '{"n": 1}', 'billing', 'k') = klaxon.notify_event('run.failed', '{"n": 2}', 'billing', 'k') AS same;
SELECT klaxon.notify_event('run.failed', '{"n": 3}', NULL, 'k') = klaxon.notify_event('run.finished', '{"n": 4}', NULL, 'k') AS same;
SELECT payload FROM klaxon.event WHERE dedup_key = 'k' ORDER BY payload;

-- Rolled back, to the transaction's start and to a savepoint.
DELETE FROM klaxon.outbox;
BEGIN;
SELECT klaxon.notify_event('run.failed') IS NOT NULL AS emitted;
ROLLBACK;
BEGIN;
SELECT klaxon.notify_event('run.failed', '{"kept": true}') IS NOT NULL AS emitted;
SAVEPOINT s;
SELECT klaxon.notify_event('task.failed') IS NOT NULL AS emitted;
ROLLBACK TO s;
COMMIT;
SELECT event_type FROM klaxon.outbox;

-- A history that is restored pages nobody.
INSERT INTO klaxon.event (type, created_at) VALUES ('run.failed', '2020-01-01');
SELECT count(*) FROM klaxon.outbox;

-- Types of one's own, and what they may be.
INSERT INTO klaxon.event_type (name) VALUES ('deploy failed');
INSERT INTO klaxon.event_type (name, severity) VALUES ('deploy.failed', 'fatal');
INSERT INTO klaxon.event_type (name, resolves) VALUES ('deploy.failed', 'deploy.failed');
INSERT INTO klaxon.event_type (name, resolves) VALUES ('deploy.recovered', 'deploy.failed');
INSERT INTO klaxon.event_type (name, resolves) VALUES ('deploy.failed', NULL), ('deploy.recovered', 'deploy.failed');
DELETE FROM klaxon.event_type WHERE name = 'deploy.failed';
UPDATE klaxon.event_type SET name = 'deploy.broken' WHERE name = 'deploy.failed';
DELETE FROM klaxon.event_type WHERE name IN ('deploy.failed', 'deploy.recovered');
