-- Where the Rust half takes hold. The functions read and write tables their callers may not, so
-- they run with the owner's rights and a pinned search_path; none of them takes SQL from anyone.
ALTER FUNCTION klaxon.match_events() SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp;
ALTER FUNCTION klaxon.begin_channels() SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp;
ALTER FUNCTION klaxon.mask_channel() SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp;
ALTER FUNCTION klaxon.seal_channel() SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp;
ALTER FUNCTION klaxon.check_subscription() SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp;
COMMENT ON FUNCTION klaxon.match_events() IS 'Trigger: matches a statement''s events to subscriptions';
COMMENT ON FUNCTION klaxon.begin_channels() IS 'Trigger: forgets secrets an earlier statement put aside';
COMMENT ON FUNCTION klaxon.mask_channel() IS 'Trigger: validates a channel''s config and takes its secrets out of the row';
COMMENT ON FUNCTION klaxon.seal_channel() IS 'Trigger: seals a channel''s secrets';
COMMENT ON FUNCTION klaxon.check_subscription() IS 'Trigger: validates events and filters';
COMMENT ON FUNCTION klaxon.configuration_changed() IS 'Trigger: has every backend compile its matchers anew, and the worker look again';

CREATE TRIGGER match_events AFTER INSERT ON klaxon.event
    REFERENCING NEW TABLE AS emitted FOR EACH STATEMENT EXECUTE FUNCTION klaxon.match_events();

CREATE TRIGGER begin_channels BEFORE INSERT OR UPDATE ON klaxon.channel
    FOR EACH STATEMENT EXECUTE FUNCTION klaxon.begin_channels();
CREATE TRIGGER mask_channel BEFORE INSERT OR UPDATE OF kind, config ON klaxon.channel
    FOR EACH ROW EXECUTE FUNCTION klaxon.mask_channel();
CREATE TRIGGER seal_channel_new AFTER INSERT ON klaxon.channel
    FOR EACH ROW EXECUTE FUNCTION klaxon.seal_channel();
CREATE TRIGGER seal_channel_changed AFTER UPDATE OF kind, config ON klaxon.channel
    FOR EACH ROW EXECUTE FUNCTION klaxon.seal_channel();

CREATE TRIGGER check_subscription BEFORE INSERT OR UPDATE OF events, filters ON klaxon.subscription
    FOR EACH ROW EXECUTE FUNCTION klaxon.check_subscription();
CREATE TRIGGER check_subscription BEFORE INSERT OR UPDATE OF events, filters ON klaxon.default_subscription
    FOR EACH ROW EXECUTE FUNCTION klaxon.check_subscription();

-- Each table the matcher or the worker's directory reads.
DO $$
DECLARE
    configured text;
BEGIN
    FOREACH configured IN ARRAY ARRAY['project', 'member', 'event_type', 'channel', 'channel_secret', 'subscription', 'subscription_channel'] LOOP
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON klaxon.%I
             FOR EACH STATEMENT EXECUTE FUNCTION klaxon.configuration_changed()', configured);
    END LOOP;
END
$$;
