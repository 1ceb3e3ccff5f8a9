-- A plain trigger that emits: whoever writes to the table, in whatever language, tells of it. Where the table is one of
-- runs, tasks or agents, klaxon.watch_runs() and its like say the same in a line; where it is another, klaxon.watch().
CREATE FUNCTION tell_of_failed_runs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Once a statement, however many rows it wrote: ten thousand are matched in one pass.
    INSERT INTO klaxon.event (type, payload)
    SELECT 'run.failed', jsonb_build_object('run_id', r.id) FROM written AS r WHERE r.status = 'failed';
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_of_failed_runs AFTER INSERT ON run REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION tell_of_failed_runs();
