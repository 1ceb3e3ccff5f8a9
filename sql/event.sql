-- What happened. Every way to emit ends in an INSERT here; the statement trigger `match_events`
-- does the rest. `type` has no foreign key: checking it in the trigger, once per statement and
-- type, costs nothing, and its error can list the types there are.
CREATE TABLE klaxon.event (
    id           uuid PRIMARY KEY DEFAULT klaxon.uuid_v7(),
    type         text NOT NULL,
    project      text CHECK (length(project) BETWEEN 1 AND 100 OR klaxon.refuse('event.project', project, 'It has 1 to 100 characters; null is none.')),
    payload      jsonb NOT NULL DEFAULT '{}',
    dedup_key    text CHECK (length(dedup_key) BETWEEN 1 AND 500 OR klaxon.refuse('event.dedup_key', dedup_key, 'It has 1 to 500 characters; null is none.')),
    occurred_at  timestamptz NOT NULL DEFAULT now()
                 CHECK (isfinite(occurred_at) OR klaxon.refuse('event.occurred_at', occurred_at::text, 'It is a time, not infinity.')),
    emitted_by   text NOT NULL DEFAULT klaxon.principal(),
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- Null unless the session is traced.
    traceparent  text DEFAULT klaxon.traceparent()
);
COMMENT ON TABLE  klaxon.event IS 'What happened; inserting here is emitting';
COMMENT ON COLUMN klaxon.event.id IS 'UUID version 7';
COMMENT ON COLUMN klaxon.event.type IS 'A name in klaxon.event_type';
COMMENT ON COLUMN klaxon.event.project IS 'The project it happened in, 1 to 100 characters; need not be in klaxon.project';
COMMENT ON COLUMN klaxon.event.payload IS 'Anything; some fields have a meaning. At most klaxon.max_payload_bytes';
COMMENT ON COLUMN klaxon.event.dedup_key IS 'A second event with the same key, type and project is not inserted';
COMMENT ON COLUMN klaxon.event.occurred_at IS 'When it happened';
COMMENT ON COLUMN klaxon.event.emitted_by IS 'klaxon.principal() of the emitter';
COMMENT ON COLUMN klaxon.event.created_at IS 'Start of the emitting transaction. A row with another time is history being restored and is not matched';
COMMENT ON COLUMN klaxon.event.traceparent IS 'Where in a trace it was emitted, by the setting klaxon.traceparent; a traceparent in the payload counts before it';

-- The keys that are known. Apart from the events, because a unique index there would make the second
-- of two emitters fail: ON CONFLICT DO NOTHING waits for another transaction only where both use the
-- same key, however many keys a transaction has. Derived, so not in dumps: restored events write it.
CREATE TABLE klaxon.event_key (
    digest    bytea PRIMARY KEY,
    event_id  uuid NOT NULL
);
COMMENT ON TABLE  klaxon.event_key IS 'The dedup_key of every event that has one; written by trigger';
COMMENT ON COLUMN klaxon.event_key.digest IS 'SHA-256 of type, project and dedup_key';
COMMENT ON COLUMN klaxon.event_key.event_id IS 'The first event with them';

CREATE FUNCTION klaxon.event_key_digest(type text, project text, dedup_key text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    -- Neither a type nor a length holds a line feed, so that no two keys run together.
    SELECT sha256(convert_to(concat_ws(E'\n', type, coalesce(length(project)::text, '-'), project, dedup_key), 'UTF8'));
END;
COMMENT ON FUNCTION klaxon.event_key_digest(text, text, text) IS 'The primary key of klaxon.event_key';

CREATE FUNCTION klaxon.skip_known_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Rights of the owner: nobody writes the keys but through an event.
    INSERT INTO klaxon.event_key (digest, event_id)
    VALUES (klaxon.event_key_digest(NEW.type, NEW.project, NEW.dedup_key), NEW.id)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN NEW;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION klaxon.skip_known_event() IS 'Trigger: drops an event whose dedup_key is known';
CREATE TRIGGER skip_known_event BEFORE INSERT ON klaxon.event
    FOR EACH ROW WHEN (NEW.dedup_key IS NOT NULL) EXECUTE FUNCTION klaxon.skip_known_event();

CREATE FUNCTION klaxon.forget_event_keys() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE klaxon.event_key;
    ELSE
        DELETE FROM klaxon.event_key AS k
        USING gone AS e
        WHERE e.dedup_key IS NOT NULL AND k.digest = klaxon.event_key_digest(e.type, e.project, e.dedup_key);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION klaxon.forget_event_keys() IS 'Trigger: an event that is gone leaves its dedup_key free';
CREATE TRIGGER forget_event_keys AFTER DELETE ON klaxon.event
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION klaxon.forget_event_keys();
CREATE TRIGGER forget_all_event_keys AFTER TRUNCATE ON klaxon.event
    FOR EACH STATEMENT EXECUTE FUNCTION klaxon.forget_event_keys();
