-- Heartbeats. Silence is the worker's to notice: here it looks when told to.
CREATE ROLE agent_job IN ROLE klaxon_emitter;
SET ROLE agent_job;
SELECT klaxon.heartbeat('builder-1', 'fleet', 'Builder One', '2 min');
SELECT klaxon.heartbeat('builder-1', 'fleet', timeout => '2 min');
SELECT klaxon.heartbeat('builder-1');
SELECT klaxon.heartbeat(NULL);
SELECT klaxon.heartbeat('');
SELECT klaxon.heartbeat('x', timeout => '0');
SELECT klaxon.heartbeat('x', timeout => '-1 s');
SELECT klaxon.heartbeat('x', timeout => '2 years');
SELECT klaxon.heartbeat(repeat('x', 201));
SELECT * FROM klaxon.agent;
SELECT klaxon.expire_agents();
RESET ROLE;
SELECT project, agent_id, name, timeout, online, last_seen_at <= clock_timestamp() AS seen FROM klaxon.agent ORDER BY project;

-- Silent for longer than its timeout: offline once. Heard again: online once, its name kept.
UPDATE klaxon.agent SET last_seen_at = now() - interval '61 s';
SELECT klaxon.expire_agents() AS one_has_two_minutes;
UPDATE klaxon.agent SET last_seen_at = timestamptz '2026-01-01Z';
SELECT klaxon.expire_agents();
SELECT klaxon.expire_agents() AS again;
SET ROLE agent_job;
SELECT klaxon.heartbeat('builder-1', 'fleet', timeout => '2 min');
SELECT klaxon.heartbeat('builder-1', 'fleet', timeout => '2 min');
RESET ROLE;
SELECT type, project, payload - 'last_seen_at' AS payload, emitted_by FROM klaxon.event ORDER BY type, project;
DROP ROLE agent_job;
