-- Who changed what of the configuration. A row waits here until the worker has sealed it into the audit
-- log; klaxon.status() counts what waits as unsealed.
CREATE TABLE klaxon.config_change (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    detail      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE  klaxon.config_change IS 'Changes of the configuration that are not yet in the audit log';
COMMENT ON COLUMN klaxon.config_change.id IS 'Order of the changes';
COMMENT ON COLUMN klaxon.config_change.detail IS 'JSON: table, operation, by, session_user, at, and the row, of an update what it changed; secrets masked';
COMMENT ON COLUMN klaxon.config_change.created_at IS 'When it was made';

-- With the owner's rights, which record_change has taken by then: nobody may call it.
CREATE FUNCTION klaxon.write_config_change(by text, changed text, operation text, old_row jsonb, new_row jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    -- Sealed values say nothing, and would be kept in the log after the secret is gone.
    noise CONSTANT text[] := ARRAY['created_at', 'updated_at', 'sealed'];
    was jsonb := old_row - noise;
    is_now jsonb := new_row - noise;
    told jsonb := jsonb_build_object('table', changed, 'operation', operation, 'by', by, 'session_user', session_user, 'at', clock_timestamp());
BEGIN
    IF operation = 'update' THEN
        -- Of a channel too: a secret that is given anew shows nowhere else, and by whom only here.
        IF was = is_now AND changed NOT IN ('channel', 'channel_secret') THEN
            RETURN;
        END IF;
        told := told || jsonb_build_object(
            'row', (SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(was)
                    WHERE key IN ('id', 'slug', 'name', 'project', 'principal', 'subscription_id', 'channel_id', 'field')),
            'changed', (SELECT coalesce(jsonb_object_agg(n.key, jsonb_build_array(was -> n.key, n.value)), '{}')
                        FROM jsonb_each(is_now) AS n WHERE was -> n.key IS DISTINCT FROM n.value));
    ELSE
        told := told || jsonb_build_object('row', coalesce(is_now, was));
    END IF;
    INSERT INTO klaxon.config_change (detail) VALUES (told::text);
END
$$;
COMMENT ON FUNCTION klaxon.write_config_change(text, text, text, jsonb, jsonb) IS 'Writes down a change of the configuration';
-- The log's own upkeep, asked by the worker with every heartbeat: what it finds, only it can seal.
CREATE FUNCTION klaxon.last_checkpoint(OUT seq bigint, OUT at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    -- Before the first, time counts from the log's first row.
    SELECT coalesce(c.seq, 0), coalesce(c.attempted_at, (SELECT d.attempted_at FROM klaxon.delivery AS d ORDER BY d.seq LIMIT 1))
    FROM (VALUES (true)) AS one (row)
    LEFT JOIN LATERAL (
        SELECT d.seq, d.attempted_at FROM klaxon.delivery AS d WHERE d.kind = 'checkpoint' ORDER BY d.seq DESC LIMIT 1
    ) AS c ON true
$$;
COMMENT ON FUNCTION klaxon.last_checkpoint() IS 'The last checkpoint in the log, seq 0 where there is none';

CREATE FUNCTION klaxon.checkpoint_is_due() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT coalesce(h.seq - c.seq >= 10000 OR h.seq > c.seq AND (
            c.at < clock_timestamp() - interval '1 hour'
            -- All of it is to go, and that goes as far as a checkpoint.
            OR (SELECT d.attempted_at FROM klaxon.delivery AS d WHERE d.seq = h.seq) < h.prune_before
        ), false)
    FROM (SELECT h.seq, h.prune_before FROM klaxon.audit_head AS h ORDER BY h.seq DESC LIMIT 1) AS h, klaxon.last_checkpoint() AS c
$$;
COMMENT ON FUNCTION klaxon.checkpoint_is_due() IS
    'Whether 10,000 rows or an hour with any row have passed since the last checkpoint, or all rows since are to be removed';

CREATE FUNCTION klaxon.journal_is_due() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT EXISTS (SELECT FROM klaxon.config_change)
        OR coalesce((SELECT h.prune_before IS NOT NULL FROM klaxon.audit_head AS h ORDER BY h.seq DESC LIMIT 1), false)
        OR coalesce(klaxon.checkpoint_is_due(), false)
$$;
COMMENT ON FUNCTION klaxon.journal_is_due() IS 'Whether the log has records of its own to take';

-- Removes the oldest rows of the log up to a checkpoint, some ten thousand a call, and says what the
-- record of that must say. Null where there is nothing left to remove.
CREATE FUNCTION klaxon.remove_deliveries(OUT through bigint, OUT mac bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    head klaxon.audit_head;
BEGIN
    -- Rights of the owner: nobody else may take a row from the log. Only the worker may call it, which
    -- has locked the log's end and writes the record in the same transaction.
    SELECT h.* INTO head FROM klaxon.audit_head AS h ORDER BY h.seq DESC LIMIT 1;
    IF head.prune_before IS NULL THEN
        RETURN;
    END IF;
    SELECT d.seq, d.mac INTO through, mac FROM klaxon.delivery AS d
    WHERE d.kind = 'checkpoint' AND d.seq > (SELECT min(f.seq) FROM klaxon.delivery AS f)
    ORDER BY d.seq LIMIT 1;
    -- Rows are in the order of their times: the last one before it is the youngest that would go.
    IF (SELECT d.attempted_at FROM klaxon.delivery AS d WHERE d.seq < remove_deliveries.through ORDER BY d.seq DESC LIMIT 1) < head.prune_before THEN
        DELETE FROM klaxon.delivery AS d WHERE d.seq <= remove_deliveries.through;
    ELSE
        SELECT NULL, NULL INTO through, mac;
        UPDATE klaxon.audit_head AS h SET prune_before = NULL WHERE h.seq = head.seq;
    END IF;
END
$$;
COMMENT ON FUNCTION klaxon.remove_deliveries() IS
    'Removes rows of the log up to the first checkpoint that is old enough; returns the last one''s seq and mac';

COMMENT ON FUNCTION klaxon.record_change() IS 'Trigger: writes down a change of the configuration, and who made it';
ALTER FUNCTION klaxon.record_change() SET search_path = pg_catalog, klaxon, pg_temp;

DO $$
DECLARE
    configured text;
BEGIN
    FOREACH configured IN ARRAY ARRAY[
        'project', 'member', 'event_type', 'channel', 'channel_secret', 'subscription', 'subscription_channel', 'default_subscription', 'deployment'
    ] LOOP
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER record_change AFTER INSERT OR UPDATE OR DELETE ON klaxon.%I
             FOR EACH ROW EXECUTE FUNCTION klaxon.record_change()', configured);
    END LOOP;
END
$$;
