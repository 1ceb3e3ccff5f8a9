-- Once more: dead letters back to the outbox, past events to a channel again.
CREATE ROLE redeliver_app IN ROLE klaxon_app;
SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
INSERT INTO klaxon.project (slug) VALUES ('billing'), ('search');
INSERT INTO klaxon.member (project, principal, role) VALUES ('billing', 'ada', 'admin'), ('billing', 'bob', 'member'), ('search', 'ada', 'member');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('global', 'webhook', '{"url": "https://example.com/"}');
INSERT INTO klaxon.channel (name, kind, config, project) VALUES ('team', 'webhook', '{"url": "https://example.com/team"}', 'billing');
INSERT INTO klaxon.channel (name, kind, config, owner) VALUES ('own', 'webhook', '{"url": "https://example.com/own"}', 'bob');
INSERT INTO klaxon.dead_letter (id, event_id, event_type, project, channel_id, due_at, attempts, created_at, dead_at, reason)
SELECT ('00000000-0000-7000-8000-00000000000' || n)::uuid, gen_random_uuid(), 'run.failed', 'billing', c.id, now(), 3, now(), timestamptz '2026-01-01Z' + n * interval '1 day', 'refused'
FROM generate_series(1, 3) AS n, klaxon.channel AS c WHERE c.name = 'team';
INSERT INTO klaxon.dead_letter (id, event_id, event_type, channel_id, due_at, attempts, created_at, reason)
SELECT '00000000-0000-7000-8000-0000000000ff', gen_random_uuid(), 'run.failed', id, now(), 1, now(), 'refused' FROM klaxon.channel WHERE name = 'global';

-- Who may edit the channel may put its dead back.
SET ROLE redeliver_app;
SET klaxon.principal = 'bob';
SELECT klaxon.retry_dead('team');
SELECT klaxon.retry_dead();
SET klaxon.principal = 'ada';
SELECT klaxon.retry_dead('nowhere');
SELECT klaxon.retry_dead('team', dry_run => true) AS would_be_three;
SELECT klaxon.retry_dead('team', dry_run => NULL);
SELECT klaxon.retry_dead('global');
SELECT klaxon.retry_dead(delivery_id => '00000000-0000-7000-8000-000000000001');
SELECT klaxon.retry_dead('team', since => '2026-01-04Z');
SELECT klaxon.retry_dead('team', since => 'infinity');
RESET klaxon.principal;
RESET ROLE;
SELECT id, attempts, due_at <= now() AS due, xid = pg_current_xact_id_if_assigned() IS NOT NULL AS stamped FROM klaxon.outbox ORDER BY id;
SELECT id FROM klaxon.dead_letter ORDER BY id;
SELECT klaxon.retry_dead() AS an_administrators;

-- Past events: a dry run counts, the other sends what the channel may carry, each as a new delivery.
DELETE FROM klaxon.outbox;
INSERT INTO klaxon.event (type, project, occurred_at) VALUES
    ('run.failed', 'billing', '2026-02-01Z'), ('run.finished', 'billing', '2026-02-02Z'), ('run.failed', 'search', '2026-02-03Z'), ('run.failed', NULL, '2026-02-04Z');
SELECT klaxon.replay('global', '2026-02-01Z', '2026-02-04Z') AS all_of_them;
SELECT klaxon.replay('global', '2026-02-01Z', '2026-02-04Z', ARRAY['run.failed']) AS failed;
SELECT klaxon.replay('global', '2026-02-02Z', '2026-02-01Z') AS none;
SELECT klaxon.replay('global', '2026-02-01Z', '2026-02-04Z', ARRAY['run.*']) AS of_runs;
SELECT klaxon.replay('global', '2026-02-01Z', '2026-02-04Z', ARRAY['task.*', '*.finished']) AS finished;
-- As subscribe() has them.
SELECT klaxon.replay('global', '2026-02-01Z', '2026-02-04Z', '{}');
SELECT klaxon.replay('global', '2026-02-01Z', '2026-02-04Z', ARRAY['run.faled']);
SELECT klaxon.replay('global', '2026-02-01Z', '2026-02-04Z', ARRAY['run.[failed']);
-- What klaxon says of itself is told again only where it is asked for.
INSERT INTO klaxon.event (type, occurred_at) VALUES ('test.dispatch', '2026-02-03Z'), ('channel.disabled', '2026-02-03Z');
SELECT klaxon.replay('global', '2026-02-01Z', '2026-02-04Z') AS all_of_them, klaxon.replay('global', '2026-02-01Z', '2026-02-04Z', ARRAY['*']) AS all_but_tests,
       klaxon.replay('global', '2026-02-01Z', '2026-02-04Z', ARRAY['test.dispatch']) AS tests;
SELECT klaxon.replay('team', '2026-02-01Z') AS of_its_project;
SET ROLE redeliver_app;
SET klaxon.principal = 'bob';
SELECT klaxon.replay('own', '2026-02-01Z') AS of_its_owners_projects, klaxon.replay('own', '2026-02-01Z', events => ARRAY['*.finished']) AS finished;
SELECT klaxon.replay('team', '2026-02-01Z');
SELECT klaxon.replay('global', '2026-02-01Z');
SELECT klaxon.replay('own', '2026-02-01Z', dry_run => false) AS sent;
RESET klaxon.principal;
RESET ROLE;
SELECT o.event_type, o.project, o.replayed, o.attempts, c.name FROM klaxon.outbox AS o JOIN klaxon.channel AS c ON c.id = o.channel_id ORDER BY 1;
DROP ROLE redeliver_app;
