-- The vocabulary of events. A name that is not here is a typo, and emitting it an error. `resolves`
-- is checked by trigger: a foreign key of the table to itself makes pg_dump warn of a circle.
CREATE TABLE klaxon.event_type (
    name         text PRIMARY KEY
                 CHECK (length(name) BETWEEN 1 AND 100 AND name ~ '^[[:graph:]]+$' AND name !~ '["''`*?\[\]]'
                        OR klaxon.refuse('event_type.name', name, 'It has 1 to 100 printable characters, without spaces, quotes and the signs of a glob: task.done.')),
    description  text,
    severity     text
                 CHECK (severity IN ('critical', 'error', 'warning', 'info')
                        OR klaxon.refuse('event_type.severity', severity, 'It is critical, error, warning or info; null lets the channel decide.')),
    resolves     text CHECK (resolves <> name OR klaxon.refuse('event_type.resolves', resolves, 'A type ends the incidents of another type.')),
    built_in     boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  klaxon.event_type IS 'The types an event may have';
COMMENT ON COLUMN klaxon.event_type.name IS '1 to 100 printable characters without spaces, quotes or glob signs';
COMMENT ON COLUMN klaxon.event_type.description IS 'What happened when such an event is emitted';
COMMENT ON COLUMN klaxon.event_type.severity IS 'critical, error, warning or info; null lets the channel decide';
COMMENT ON COLUMN klaxon.event_type.resolves IS 'The type whose incident an event of this type ends';
COMMENT ON COLUMN klaxon.event_type.built_in IS 'Came with the extension; such a row may be edited but neither renamed nor deleted';
COMMENT ON COLUMN klaxon.event_type.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.event_type.updated_at IS 'When the row was last changed';

INSERT INTO klaxon.event_type (name, description, severity, resolves, built_in) VALUES
    ('run.finished',              'A test run reached its end',                                       'info',     NULL, true),
    ('run.failed',                'A test run failed or has failed tests',                            'error',    NULL, true),
    ('run.failed.default_branch', 'A test run failed on the project''s default branch',               'error',    NULL, true),
    ('cluster.new',               'A failure signature was seen for the first time in a project',     'warning',  NULL, true),
    ('flakiness.spike',           'A finished run has flaky tests',                                   'warning',  NULL, true),
    ('perf.regression',           'A run took at least a fifth longer than the median of those before it', 'warning', NULL, true),
    ('task.failed',               'A task failed for good',                                           'error',    NULL, true),
    ('task.succeeded',            'A task succeeded',                                                 'info',     NULL, true),
    ('task.retried',              'A task failed and will be tried again',                            'warning',  NULL, true),
    ('task.slow',                 'A task has run longer than its budget',                            'warning',  NULL, true),
    ('agent.offline',             'An agent has been silent for longer than its timeout',             'critical', NULL, true),
    ('agent.online',              'An agent that was silent is back',                                 'info',     'agent.offline', true),
    ('channel.disabled',          'A channel was disabled because it only fails',                     'warning',  NULL, true),
    ('test.dispatch',             'Somebody tests a channel',                                         'info',     NULL, true);

CREATE FUNCTION klaxon.event_type_guard() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.built_in THEN
            RAISE EXCEPTION 'event type "%" is built in', OLD.name
                USING ERRCODE = '23001', HINT = 'Edit its severity or description, or leave it unused.';
        END IF;
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.built_in AND NEW.name <> OLD.name THEN
        RAISE EXCEPTION 'event type "%" is built in', OLD.name
            USING ERRCODE = '23001', HINT = 'INSERT a type of your own under the other name.';
    END IF;
    IF NEW.resolves IS NOT NULL AND NOT EXISTS (SELECT FROM klaxon.event_type WHERE name = NEW.resolves)
       AND (TG_OP = 'UPDATE' OR NEW.created_at = now()) THEN
        RAISE EXCEPTION 'event type "%" resolves "%", which is none', NEW.name, NEW.resolves
            USING ERRCODE = '23503', HINT = 'INSERT the type it resolves first.';
    END IF;
    IF TG_OP = 'UPDATE' THEN
        RETURN NEW;
    END IF;
    -- A dump carries the built-in types that were edited; the installation has already written them.
    IF NEW.built_in AND EXISTS (SELECT FROM klaxon.event_type WHERE name = NEW.name AND built_in) THEN
        -- created_at too, by which the journal knows it for history.
        UPDATE klaxon.event_type
        SET description = NEW.description, severity = NEW.severity, resolves = NEW.resolves, created_at = NEW.created_at
        WHERE name = NEW.name;
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION klaxon.event_type_guard() IS 'Trigger: keeps the built-in event types, and lets a dump restore what was edited of them';
CREATE TRIGGER guard_insert BEFORE INSERT ON klaxon.event_type FOR EACH ROW EXECUTE FUNCTION klaxon.event_type_guard();
CREATE TRIGGER guard_update BEFORE UPDATE OF name, resolves ON klaxon.event_type FOR EACH ROW EXECUTE FUNCTION klaxon.event_type_guard();
CREATE TRIGGER guard_delete BEFORE DELETE ON klaxon.event_type FOR EACH ROW EXECUTE FUNCTION klaxon.event_type_guard();

CREATE FUNCTION klaxon.keep_resolved_type() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    resolving text;
BEGIN
    SELECT t.name INTO resolving FROM klaxon.event_type AS t WHERE t.resolves = OLD.name LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'event type "%" is what "%" resolves', OLD.name, resolving
            USING ERRCODE = '23503', HINT = format('UPDATE klaxon.event_type SET resolves = NULL WHERE name = %L first.', resolving);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION klaxon.keep_resolved_type() IS 'Trigger: a type that another resolves stays';
-- AFTER: types that go together may.
CREATE TRIGGER keep_resolved AFTER DELETE ON klaxon.event_type FOR EACH ROW EXECUTE FUNCTION klaxon.keep_resolved_type();
CREATE TRIGGER keep_resolved_name AFTER UPDATE OF name ON klaxon.event_type
    FOR EACH ROW WHEN (NEW.name <> OLD.name) EXECUTE FUNCTION klaxon.keep_resolved_type();
CREATE TRIGGER touch BEFORE UPDATE ON klaxon.event_type FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
