-- What a subscription may say, and what then matches.
SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
INSERT INTO klaxon.project (slug, name, default_branch) VALUES ('billing', 'Billing', 'main'), ('search', 'Search', 'trunk');
INSERT INTO klaxon.member (project, principal) VALUES ('billing', 'alice');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('hook', 'webhook', '{"url": "https://example.com/"}');
INSERT INTO klaxon.channel (name, kind, config, owner) VALUES ('mine', 'webhook', '{"url": "https://example.com/mine"}', 'alice');
INSERT INTO klaxon.channel (name, kind, config, project) VALUES ('team', 'webhook', '{"url": "https://example.com/team"}', 'billing');

-- Refused.
SELECT klaxon.subscribe(ARRAY['nope'], ARRAY['run.failed']);
SELECT klaxon.subscribe('{}', ARRAY['run.failed']);
SELECT klaxon.subscribe(ARRAY['hook'], '{}');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.faled']);
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.[failed']);
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.failed'], project => 'nowhere');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.failed'], mode => 'weekly');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.failed'], mode => 'digest');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.failed'], mode => 'digest', digest_at => '09:00', digest_timezone => 'Europe/Atlantis');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.failed'], cooldown => '-1 s');
SELECT klaxon.subscribe(ARRAY['team'], ARRAY['run.failed'], owner => 'bob', project => 'billing');
SELECT klaxon.subscribe(ARRAY['mine'], ARRAY['run.failed'], owner => 'bob');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.failed'], owner => NULL, in_app => true);
INSERT INTO klaxon.subscription_channel (subscription_id, channel_id)
SELECT s.id, c.id FROM klaxon.channel AS c,
    (SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['run.failed'], owner => 'bob') AS id) AS s WHERE c.name = 'mine';

-- Refused filters.
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['*'], filters => '{"colour": "red"}');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['*'], filters => '[]');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['*'], filters => '{"priority_min": "urgent"}');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['*'], filters => '{"branches": []}');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['*'], filters => '{"branches": "main"}');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['*'], filters => '{"task_name_pattern": ""}');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['*'], filters => '{"flakiness_min": 2}');
SELECT klaxon.subscribe(ARRAY['hook'], ARRAY['*'], filters => '{"where": "$.a >"}');

-- What hears of what.
SELECT 'alice' AS who, klaxon.subscribe(ARRAY['mine', 'team'], ARRAY['run.*'], owner => 'alice', project => 'billing', filters => '{"branches": ["main"]}') IS NOT NULL AS subscribed;
SELECT 'shared' AS who, klaxon.subscribe(ARRAY['hook'], ARRAY['task.failed', 'agent.?ffline'], owner => NULL, filters => '{"priority_min": "high", "task_name_pattern": "mail.*"}') IS NOT NULL AS subscribed;
SELECT 'jsonpath' AS who, klaxon.subscribe(ARRAY['hook'], ARRAY['task.*'], owner => NULL, filters => '{"where": "$.attempts > 3"}') IS NOT NULL AS subscribed;

SELECT owner, channel, verdict, reason FROM klaxon.explain_event('run.failed', '{"branch": "main"}', 'billing') ORDER BY owner, channel, reason;
SELECT owner, channel, verdict, reason FROM klaxon.explain_event('run.failed', '{"branch": "dev"}', 'billing') ORDER BY owner, channel, reason;
SELECT owner, channel, verdict, reason FROM klaxon.explain_event('run.failed', '{"branch": "main"}', 'search') ORDER BY owner, channel, reason;
SELECT owner, channel, verdict, reason FROM klaxon.explain_event('task.failed', '{"task_name": "mail.send", "priority": "critical", "attempts": 4}') ORDER BY owner, channel, reason;
SELECT owner, channel, verdict, reason FROM klaxon.explain_event('task.failed', '{"task_name": "mail.send", "attempts": 1}') ORDER BY owner, channel, reason;
SELECT owner, channel, verdict, reason FROM klaxon.explain_event('task.faled');
SELECT count(*) AS emitted FROM klaxon.event;

-- Muted, and heard again.
SELECT klaxon.mute(id, 'infinity') FROM klaxon.subscription WHERE owner = 'alice';
SELECT channel, verdict, reason FROM klaxon.explain_event('run.failed', '{"branch": "main"}', 'billing') WHERE owner = 'alice' ORDER BY channel;
SELECT klaxon.unmute(id) FROM klaxon.subscription WHERE owner = 'alice';
SELECT channel, verdict, reason FROM klaxon.explain_event('run.failed', '{"branch": "main"}', 'billing') WHERE owner = 'alice' ORDER BY channel;
SELECT klaxon.mute(0, 'infinity');
