-- An application's own table, and its own trigger: the events are part of the transaction that
-- writes the row, and of its rollback.
CREATE TABLE test_run (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project       text NOT NULL,
    branch        text NOT NULL,
    total_tests   integer NOT NULL,
    failed_tests  integer NOT NULL,
    duration_ms   integer NOT NULL,
    failures      text[] NOT NULL,
    finished_at   timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION tell_of_test_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    payload jsonb := jsonb_build_object(
        'run_id', NEW.id, 'branch', NEW.branch, 'duration_ms', NEW.duration_ms,
        'status', CASE WHEN NEW.failed_tests > 0 THEN 'failed' ELSE 'passed' END,
        'total_tests', NEW.total_tests, 'failed_tests', NEW.failed_tests,
        'passed_tests', NEW.total_tests - NEW.failed_tests, 'top_failures', to_jsonb(NEW.failures));
BEGIN
    PERFORM klaxon.notify_event('run.finished', payload, NEW.project);
    IF NEW.failed_tests > 0 THEN
        PERFORM klaxon.notify_event('run.failed', payload, NEW.project);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_of_test_run AFTER INSERT ON test_run FOR EACH ROW EXECUTE FUNCTION tell_of_test_run();

INSERT INTO klaxon.project (slug, name, url) VALUES ('klaxon-model', 'klaxon-model', 'https://ci.example.com/klaxon-model');
