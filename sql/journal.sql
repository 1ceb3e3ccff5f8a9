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
