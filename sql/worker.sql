-- The workers that are alive, and the deployment they belong to.
CREATE TABLE klaxon.worker (
    id             uuid PRIMARY KEY,
    host           text NOT NULL,
    version        text NOT NULL,
    started_at     timestamptz NOT NULL DEFAULT now(),
    heartbeat_at   timestamptz NOT NULL DEFAULT now(),
    shards         integer[] NOT NULL DEFAULT '{}',
    settings       jsonb NOT NULL DEFAULT '{}',
    pid            integer NOT NULL DEFAULT pg_backend_pid(),
    notified_at    timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE  klaxon.worker IS 'Workers that are alive; one silent for 10 s is fenced, one without a session for 2.5 s forgotten, and its shards are taken over';
COMMENT ON COLUMN klaxon.worker.id IS 'New at every start';
COMMENT ON COLUMN klaxon.worker.host IS 'Where it runs';
COMMENT ON COLUMN klaxon.worker.version IS 'Its version';
COMMENT ON COLUMN klaxon.worker.started_at IS 'When it started';
COMMENT ON COLUMN klaxon.worker.heartbeat_at IS 'When it was last heard from';
COMMENT ON COLUMN klaxon.worker.shards IS 'The shards it owns';
COMMENT ON COLUMN klaxon.worker.settings IS 'Its settings, secrets masked';
COMMENT ON COLUMN klaxon.worker.pid IS 'The backend that holds its shards: ending it fences the worker';
COMMENT ON COLUMN klaxon.worker.notified_at IS 'When its self-test last received a notification; null: none arrives, and polling carries on';

-- What kills workers is found by the shard it is in: see docs/adr/0007-what-kills-workers.md.
CREATE TABLE klaxon.shard (
    shard     integer PRIMARY KEY CHECK (shard BETWEEN 0 AND 63),
    owner     uuid,
    deaths    integer NOT NULL DEFAULT 0 CHECK (deaths >= 0),
    died_at   timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE  klaxon.shard IS 'Who took each shard last, and how often of late its owner ended without giving it up';
COMMENT ON COLUMN klaxon.shard.shard IS '0 to 63';
COMMENT ON COLUMN klaxon.shard.owner IS 'The worker that took it last; null once it gave it up';
COMMENT ON COLUMN klaxon.shard.deaths IS 'Times another worker took it that had not been given up, each within 5 minutes of the one before';
COMMENT ON COLUMN klaxon.shard.died_at IS 'When that happened last: after the third it is worked with care for 5 minutes';

-- A database copied to staging must not page anyone: a worker whose deployment id differs refuses.
CREATE TABLE klaxon.deployment (
    id          uuid,
    public_key  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row)
);
COMMENT ON TABLE  klaxon.deployment IS 'The deployment this database belongs to, and the public key its secrets are sealed to';
COMMENT ON COLUMN klaxon.deployment.id IS 'As in the worker''s configuration; null until klaxon init';
COMMENT ON COLUMN klaxon.deployment.public_key IS 'The worker''s X25519 public key, base64';
COMMENT ON COLUMN klaxon.deployment.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.deployment.updated_at IS 'When the row was last changed';
COMMENT ON COLUMN klaxon.deployment.only_row IS 'There is one row';
CREATE TRIGGER touch BEFORE UPDATE ON klaxon.deployment FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
