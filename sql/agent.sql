-- Who must be heard from. Silence becomes agent.offline, return agent.online.
CREATE TABLE klaxon.agent (
    project       text CHECK (length(project) BETWEEN 1 AND 100 OR klaxon.refuse('agent.project', project, 'It has 1 to 100 characters; null is none.')),
    agent_id      text NOT NULL CHECK (length(agent_id) BETWEEN 1 AND 200 OR klaxon.refuse('agent.agent_id', agent_id, 'It has 1 to 200 characters.')),
    name          text CHECK (length(name) <= 200 OR klaxon.refuse('agent.name', name, 'It has at most 200 characters.')),
    timeout       interval NOT NULL DEFAULT '60 s'
                  CHECK (timeout > '0' AND timeout <= '1 year' OR klaxon.refuse('agent.timeout', timeout::text, 'It is more than 0 and at most a year: ''5 min''.')),
    last_seen_at  timestamptz NOT NULL DEFAULT now(),
    online        boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT agent_key UNIQUE NULLS NOT DISTINCT (project, agent_id)
);
CREATE INDEX agent_online_idx ON klaxon.agent (last_seen_at) WHERE online;
COMMENT ON TABLE  klaxon.agent IS 'Agents that send heartbeats';
COMMENT ON COLUMN klaxon.agent.project IS 'The project its events are of';
COMMENT ON COLUMN klaxon.agent.agent_id IS 'Its name among the project''s agents';
COMMENT ON COLUMN klaxon.agent.name IS 'What messages call it';
COMMENT ON COLUMN klaxon.agent.timeout IS 'How long it may be silent';
COMMENT ON COLUMN klaxon.agent.last_seen_at IS 'Its last heartbeat';
COMMENT ON COLUMN klaxon.agent.online IS 'False from agent.offline to agent.online';
COMMENT ON COLUMN klaxon.agent.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.agent.updated_at IS 'When the row was last changed';
CREATE TRIGGER touch BEFORE UPDATE ON klaxon.agent FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
