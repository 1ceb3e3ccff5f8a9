-- Each filter: what it lets through, what it does not, and how it refuses to be written.
-- `hears` says what the matcher thinks of one event under one set of filters.
INSERT INTO klaxon.project (slug, default_branch) VALUES ('p', 'trunk');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('c', 'webhook', '{"url": "https://example.com/"}');
CREATE FUNCTION pg_temp.hears(type text, filters jsonb, payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE told text;
BEGIN
    PERFORM klaxon.subscribe(ARRAY['c'], ARRAY['*'], filters => hears.filters, owner => NULL);
    SELECT CASE e.verdict WHEN 'match' THEN 'match' ELSE e.reason END INTO told
    FROM klaxon.explain_event(hears.type, hears.payload, 'p') AS e;
    -- What is explained is what is done.
    PERFORM klaxon.notify_event(hears.type, hears.payload, 'p');
    IF (told = 'match') <> EXISTS (SELECT FROM klaxon.outbox) THEN
        told := told || ' BUT NOT SO';
    END IF;
    DELETE FROM klaxon.outbox;
    DELETE FROM klaxon.subscription;
    RETURN told;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

-- Priorities: numbers and names, and normal where there is none.
SELECT filters, payload, pg_temp.hears('task.failed', filters, payload) FROM (VALUES
    ('{"priority_min": "high"}'::jsonb, '{"priority": "critical"}'::jsonb),
    ('{"priority_min": "high"}', '{"priority": "normal"}'),
    ('{"priority_min": "high"}', '{}'),
    ('{"priority_min": "high"}', '{"priority": 2}'),
    ('{"priority_min": 5}', '{"priority": 7}'),
    ('{"priority_min": 5}', '{"priority": "critical"}'),
    ('{"priority_max": "normal"}', '{}'),
    ('{"priority_max": "normal"}', '{"priority": "high"}'),
    ('{"priority_min": "low", "priority_max": 2}', '{"priority": "high"}'),
    ('{"priority": ["low", 9]}', '{"priority": 9}'),
    ('{"priority": ["low", 9]}', '{"priority": "low"}'),
    ('{"priority": ["low", 9]}', '{"priority": 0}'),
    ('{"priority": ["low", 9]}', '{}'),
    ('{"priority_min": "high"}', '{"priority": "urgent"}'),
    ('{"priority_min": "high"}', '{"priority": null}'),
    ('{"priority_min": "high"}', '[1, 2]')
) AS v (filters, payload);

-- Tasks.
SELECT filters, payload, pg_temp.hears('task.failed', filters, payload) FROM (VALUES
    ('{"task_name_pattern": "report.*"}'::jsonb, '{"task_name": "report.daily/eu"}'::jsonb),
    ('{"task_name_pattern": "report.*"}', '{"task_name": "Report.daily"}'),
    ('{"task_name_pattern": "report.*"}', '{}'),
    ('{"task_name_pattern": "[!a-m]?il"}', '{"task_name": "ofil"}'),
    ('{"task_name_pattern": "[]]"}', '{"task_name": "]"}'),
    ('{"task_name_pattern": "[a"}', '{"task_name": "[a"}'),
    ('{"task_name_pattern": "{a,b}"}', '{"task_name": "a"}'),
    ('{"task_name_pattern": "a\\*"}', '{"task_name": "a\\b"}'),
    ('{"task_name_pattern": "größe?"}', '{"task_name": "größe€"}'),
    ('{"queue": "billing"}', '{"queue": "billing"}'),
    ('{"queue": "billing"}', '{"queue": "mail"}'),
    ('{"queue": "billing"}', '{}')
) AS v (filters, payload);

-- What judges runs only lets everything else through.
SELECT type, filters, payload, pg_temp.hears(type, filters, payload) FROM (VALUES
    ('run.failed', '{"branches": ["main", "next"]}'::jsonb, '{"branch": "next"}'::jsonb),
    ('run.failed', '{"branches": ["main", "next"]}', '{"branch": "try"}'),
    ('run.failed', '{"branches": ["main"]}', '{}'),
    ('task.failed', '{"branches": ["main"]}', '{}'),
    ('run.failed', '{"statuses": ["failed"]}', '{"status": "failed"}'),
    ('run.failed', '{"statuses": ["failed"]}', '{"status": "passed"}'),
    ('run.failed', '{"owners": ["alice", "bob"]}', '{"owners": ["carol", "bob"]}'),
    ('run.failed', '{"owners": ["alice", "bob"]}', '{"owners": ["carol"]}'),
    ('run.failed', '{"owners": ["alice", "bob"]}', '{"owners": "bob"}'),
    ('run.failed', '{"default_branch_only": true}', '{"is_default_branch": true}'),
    ('run.failed', '{"default_branch_only": true}', '{"is_default_branch": false, "branch": "trunk"}'),
    ('run.failed', '{"default_branch_only": true}', '{"branch": "trunk"}'),
    ('run.failed', '{"default_branch_only": true}', '{"branch": "main"}'),
    ('run.failed', '{"default_branch_only": true}', '{}'),
    ('run.failed', '{"default_branch_only": false}', '{"branch": "main"}'),
    ('task.failed', '{"default_branch_only": true}', '{}'),
    ('flakiness.spike', '{"flakiness_min": 0.1}', '{"flakiness_rate": 0.1}'),
    ('flakiness.spike', '{"flakiness_min": 0.1}', '{"flakiness_rate": 0.0999}'),
    ('flakiness.spike', '{"flakiness_min": 0.1}', '{}'),
    ('run.failed', '{"flakiness_min": 0.1}', '{}'),
    ('perf.regression', '{"regression_min_pct": 30}', '{"regression_pct": 30.5}'),
    ('perf.regression', '{"regression_min_pct": 30}', '{"regression_pct": "much"}'),
    ('run.failed', '{"regression_min_pct": 30}', '{}')
) AS v (type, filters, payload);

-- A jsonpath. One that raises does not match.
SELECT filters, payload, pg_temp.hears('task.failed', filters, payload) FROM (VALUES
    ('{"where": "$.attempts > 3"}'::jsonb, '{"attempts": 4}'::jsonb),
    ('{"where": "$.attempts > 3"}', '{"attempts": 3}'),
    ('{"where": "$.attempts > 3"}', '{}'),
    ('{"where": "$.attempts > 3"}', '{"attempts": "four"}'),
    ('{"where": "exists($.tags[*] ? (@ == \"slow\"))"}', '{"tags": ["slow"]}'),
    ('{"where": "strict $.a.b == 1"}', '{}'),
    ('{"where": "$.attempts"}', '{"attempts": 4}'),
    ('{"where": "$.name like_regex \"^mail\""}', '{"name": "mail.send"}')
) AS v (filters, payload);

-- All must hold.
SELECT filters, payload, pg_temp.hears('run.failed', filters, payload) FROM (VALUES
    ('{"branches": ["main"], "priority_min": "high", "where": "$.n == 1"}'::jsonb, '{"branch": "main", "priority": 3, "n": 1}'::jsonb),
    ('{"branches": ["main"], "priority_min": "high", "where": "$.n == 1"}', '{"branch": "main", "priority": 3, "n": 2}'),
    ('{"branches": ["main"], "priority_min": "high", "where": "$.n == 1"}', '{"branch": "main", "n": 1}')
) AS v (filters, payload);

-- Refused.
SELECT filters, pg_temp.hears('run.failed', filters, '{}') FROM unnest(ARRAY[
    '{"colour": "red"}', '{"Queue": "billing"}', '[]', '"x"', 'null', '3',
    '{"priority_min": "urgent"}', '{"priority_min": 1.5}', '{"priority_min": null}', '{"priority_min": true}', '{"priority_min": 3, "priority_max": 1}',
    '{"priority": []}', '{"priority": "high"}', '{"priority": ["urgent"]}',
    '{"task_name_pattern": ""}', '{"task_name_pattern": 3}', '{"queue": ""}', '{"queue": ["a"]}',
    '{"branches": []}', '{"branches": "main"}', '{"branches": [1]}', '{"branches": [null]}', '{"statuses": []}', '{"owners": {}}',
    '{"default_branch_only": "yes"}', '{"flakiness_min": 2}', '{"flakiness_min": -0.1}', '{"flakiness_min": "much"}', '{"regression_min_pct": "much"}',
    '{"where": ""}', '{"where": "$.a >"}', '{"where": 3}', '{"where": "$.a == $b"}'
]::jsonb[]) AS filters;
SELECT pg_temp.hears('run.failed', jsonb_build_object('task_name_pattern', repeat('a', 201)), '{}');
