-- The audit log. Append-only; each row's MAC covers every column and the row before it, under a
-- key that only the worker holds. Plain types only, so that a row re-encodes to the same bytes
-- after a dump and restore: no jsonb, and times in whole microseconds.
CREATE TABLE klaxon.delivery (
    seq              bigint PRIMARY KEY CHECK (seq > 0),
    kind             text NOT NULL DEFAULT 'attempt' CHECK (kind IN ('attempt', 'checkpoint', 'rotation', 'config', 'prune', 'adoption')),
    delivery_id      uuid,
    attempt          integer,
    event_id         uuid,
    event_type       text,
    project          text,
    subscription_id  bigint,
    channel_id       bigint,
    channel_name     text,
    channel_kind     text,
    status           text CHECK (status IN ('sent', 'failed', 'dead')),
    response_code    integer,
    error            text,
    response_body    text CHECK (octet_length(response_body) <= 8192),
    duration_ms      integer,
    attempted_at     timestamptz NOT NULL,
    worker           uuid,
    detail           text,
    chain            uuid NOT NULL,
    key_id           text NOT NULL,
    body_hash        bytea,
    mac              bytea NOT NULL,
    CONSTRAINT delivery_attempt CHECK (kind <> 'attempt' OR num_nulls(delivery_id, attempt, status, channel_id, event_type) = 0)
);
CREATE INDEX delivery_delivery_id_idx ON klaxon.delivery (delivery_id);
-- The log's own records: few among many.
CREATE INDEX delivery_kind_idx ON klaxon.delivery (kind, seq) WHERE kind <> 'attempt';
CREATE INDEX delivery_attempted_at_idx ON klaxon.delivery USING brin (attempted_at);
COMMENT ON TABLE  klaxon.delivery IS 'The audit log: one row an attempt, each chained to the one before by an HMAC; klaxon audit verify checks it';
COMMENT ON COLUMN klaxon.delivery.seq IS 'Position in the chain, gapless from 1';
COMMENT ON COLUMN klaxon.delivery.kind IS 'attempt, or a record of the log itself: checkpoint, rotation, config, prune, adoption';
COMMENT ON COLUMN klaxon.delivery.delivery_id IS 'The delivery: the same on all its attempts';
COMMENT ON COLUMN klaxon.delivery.attempt IS 'Counts from 1';
COMMENT ON COLUMN klaxon.delivery.event_id IS 'The event; null for a digest';
COMMENT ON COLUMN klaxon.delivery.event_type IS 'The event''s type, or digest';
COMMENT ON COLUMN klaxon.delivery.project IS 'The event''s project';
COMMENT ON COLUMN klaxon.delivery.subscription_id IS 'The subscription that matched';
COMMENT ON COLUMN klaxon.delivery.channel_id IS 'The channel';
COMMENT ON COLUMN klaxon.delivery.channel_name IS 'Its name at the time';
COMMENT ON COLUMN klaxon.delivery.channel_kind IS 'Its kind';
COMMENT ON COLUMN klaxon.delivery.status IS 'sent; failed: will be tried again; dead: given up';
COMMENT ON COLUMN klaxon.delivery.response_code IS 'HTTP status or SMTP reply code; null where there was no answer';
COMMENT ON COLUMN klaxon.delivery.error IS 'What went wrong, sanitized';
COMMENT ON COLUMN klaxon.delivery.response_body IS 'What a failed attempt was answered, sanitized, at most 8 KiB; retention may blank it';
COMMENT ON COLUMN klaxon.delivery.duration_ms IS 'From resolving the name to the last byte read';
COMMENT ON COLUMN klaxon.delivery.attempted_at IS 'When the attempt was settled, by the database''s clock';
COMMENT ON COLUMN klaxon.delivery.worker IS 'The worker that made it: worker.id';
COMMENT ON COLUMN klaxon.delivery.detail IS 'JSON, for records that are not attempts; replayed for an attempt of a replay';
COMMENT ON COLUMN klaxon.delivery.chain IS 'The chain''s id';
COMMENT ON COLUMN klaxon.delivery.key_id IS 'Which key the MAC is under';
COMMENT ON COLUMN klaxon.delivery.body_hash IS 'SHA-256 of response_body, which stays when the body is blanked';
COMMENT ON COLUMN klaxon.delivery.mac IS 'HMAC-SHA256 of the row''s canonical encoding and the MAC before it';

-- One row, updated with every batch. While any transaction holds back vacuum its former versions stay, by
-- the hundred thousand: so it is read from the newest end of its index, and nothing that all versions have in
-- common is in one, where every update would look at all of them for a duplicate.
CREATE TABLE klaxon.audit_head (
    chain         uuid NOT NULL,
    seq           bigint PRIMARY KEY DEFAULT 0,
    mac           bytea NOT NULL DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000',
    key_id        text,
    prune_before  timestamptz
);
COMMENT ON TABLE  klaxon.audit_head IS 'The end of the chain: locked for a moment by the worker that appends to it';
COMMENT ON COLUMN klaxon.audit_head.chain IS 'The chain''s id';
COMMENT ON COLUMN klaxon.audit_head.seq IS 'seq of the last row of klaxon.delivery';
COMMENT ON COLUMN klaxon.audit_head.mac IS 'mac of the last row of klaxon.delivery';
COMMENT ON COLUMN klaxon.audit_head.key_id IS 'Which key the next row must be under; null until the first';
COMMENT ON COLUMN klaxon.audit_head.prune_before IS 'Rows of the log before this are to be removed, as far as a checkpoint reaches; null where none are';

CREATE FUNCTION klaxon.refuse_second_head() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Of two at once, the second waits and then sees the first.
    LOCK TABLE klaxon.audit_head IN SHARE ROW EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM klaxon.audit_head) THEN
        RAISE EXCEPTION 'klaxon.audit_head has its row' USING ERRCODE = '23505', HINT = 'A database has one chain.';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION klaxon.refuse_second_head() IS 'Trigger: there is one chain';
CREATE TRIGGER refuse_second_head BEFORE INSERT ON klaxon.audit_head FOR EACH ROW EXECUTE FUNCTION klaxon.refuse_second_head();

CREATE FUNCTION klaxon.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    IF current_user <> (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = TG_RELID) THEN
        RAISE EXCEPTION 'klaxon.delivery is append-only' USING ERRCODE = '42501', HINT = 'Retention is klaxon.prune().';
    END IF;
    IF TG_LEVEL = 'ROW' AND TG_OP = 'UPDATE' THEN
        RETURN NEW;
    END IF;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION klaxon.refuse_change() IS 'Trigger: the audit log grows at its end only';
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON klaxon.delivery
    FOR EACH STATEMENT EXECUTE FUNCTION klaxon.refuse_change();
