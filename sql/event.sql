-- What happened. Every way to emit ends in an INSERT here; the statement trigger `match_events`
-- does the rest. `type` has no foreign key: checking it in the trigger, once per statement and
-- type, costs nothing, and its error can list the types there are.
CREATE TABLE klaxon.event (
    id           uuid PRIMARY KEY DEFAULT klaxon.uuid_v7(),
    type         text NOT NULL,
    project      text,
    payload      jsonb NOT NULL DEFAULT '{}',
    dedup_key    text CHECK (length(dedup_key) BETWEEN 1 AND 500),
    occurred_at  timestamptz NOT NULL DEFAULT now() CHECK (isfinite(occurred_at)),
    emitted_by   text NOT NULL DEFAULT klaxon.principal(),
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX event_dedup_idx ON klaxon.event (type, project, dedup_key) NULLS NOT DISTINCT WHERE dedup_key IS NOT NULL;
COMMENT ON TABLE  klaxon.event IS 'What happened; inserting here is emitting';
COMMENT ON COLUMN klaxon.event.id IS 'UUID version 7';
COMMENT ON COLUMN klaxon.event.type IS 'A name in klaxon.event_type';
COMMENT ON COLUMN klaxon.event.project IS 'The project it happened in; need not be in klaxon.project';
COMMENT ON COLUMN klaxon.event.payload IS 'Anything; some fields have a meaning. At most klaxon.max_payload_bytes';
COMMENT ON COLUMN klaxon.event.dedup_key IS 'A second event with the same key, type and project is not inserted';
COMMENT ON COLUMN klaxon.event.occurred_at IS 'When it happened';
COMMENT ON COLUMN klaxon.event.emitted_by IS 'klaxon.principal() of the emitter';
COMMENT ON COLUMN klaxon.event.created_at IS 'Start of the emitting transaction. A row with another time is history being restored and is not matched';

-- Waits for another emitter only where both use the same key: the lock is the key's own.
CREATE FUNCTION klaxon.skip_known_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Rights of the owner: an emitter may not read other people's events, and need not.
    PERFORM pg_advisory_xact_lock(hashtextextended(concat_ws(E'\x01', NEW.type, NEW.project IS NULL, NEW.project, NEW.dedup_key), 7305));
    IF EXISTS (SELECT FROM klaxon.event AS e
               WHERE e.type = NEW.type AND e.project IS NOT DISTINCT FROM NEW.project AND e.dedup_key = NEW.dedup_key) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION klaxon.skip_known_event() IS 'Trigger: drops an event whose dedup_key is known';
CREATE TRIGGER skip_known_event BEFORE INSERT ON klaxon.event
    FOR EACH ROW WHEN (NEW.dedup_key IS NOT NULL) EXECUTE FUNCTION klaxon.skip_known_event();
