-- What of this goes to other servers, and how it comes back. pg_restore with several jobs loads an extension's tables in no particular order, so
-- that foreign keys would refuse rows that come before those they point to. While it loads these tables they
-- step aside; see docs/adr/0009-foreign-keys-step-aside.md.
COMMENT ON FUNCTION klaxon.begin_restore() IS 'Trigger: where the statement is pg_restore''s, foreign keys step aside';
COMMENT ON FUNCTION klaxon.end_restore() IS 'Trigger: they are back';

DO $$
DECLARE
    pointing text;
BEGIN
    -- Those with foreign keys that are in dumps.
    FOREACH pointing IN ARRAY ARRAY['member', 'channel', 'channel_secret', 'default_subscription', 'subscription', 'subscription_channel'] LOOP
        EXECUTE pg_catalog.format('CREATE TRIGGER begin_restore BEFORE INSERT ON klaxon.%I FOR EACH STATEMENT EXECUTE FUNCTION klaxon.begin_restore()', pointing);
        EXECUTE pg_catalog.format('CREATE TRIGGER end_restore AFTER INSERT ON klaxon.%I FOR EACH STATEMENT EXECUTE FUNCTION klaxon.end_restore()', pointing);
        EXECUTE pg_catalog.format('ALTER TABLE klaxon.%I ENABLE ALWAYS TRIGGER end_restore', pointing);
    END LOOP;
    -- What is derived from restored rows, and who must learn of them. The rest checks, seals or records what
    -- was checked, sealed and recorded when it was written.
    FOREACH pointing IN ARRAY ARRAY['member', 'channel', 'channel_secret', 'subscription', 'subscription_channel'] LOOP
        EXECUTE pg_catalog.format('ALTER TABLE klaxon.%I ENABLE ALWAYS TRIGGER configuration_changed', pointing);
    END LOOP;
END
$$;
ALTER TABLE klaxon.subscription ENABLE ALWAYS TRIGGER index_patterns;

-- A publication for all tables, as many tools make it, has these too. Without a primary key there must be
-- something else by which a row is known, or it can be neither changed nor deleted any more.
ALTER TABLE klaxon.agent REPLICA IDENTITY FULL;
ALTER TABLE klaxon.subscription_pattern REPLICA IDENTITY FULL;
ALTER TABLE klaxon.held_back REPLICA IDENTITY FULL;
ALTER TABLE klaxon.filter_error REPLICA IDENTITY FULL;
ALTER TABLE klaxon.watcher_error REPLICA IDENTITY FULL;

-- A restore of a part, or one whose errors nobody read, may leave rows that point nowhere.
CREATE FUNCTION klaxon.orphans() RETURNS TABLE (relation text, field text, target text, orphans bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    key text;
BEGIN
    -- Rights of the owner: who may not see the rows may learn that there are some.
    FOR relation, field, target, key IN
        SELECT format('klaxon.%I', c.relname), quote_ident(a.attname), format('klaxon.%I', t.relname), quote_ident(k.attname)
        FROM pg_constraint AS f
        JOIN pg_class AS c ON c.oid = f.conrelid
        JOIN pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
        JOIN pg_class AS t ON t.oid = f.confrelid
        JOIN pg_attribute AS k ON k.attrelid = f.confrelid AND k.attnum = f.confkey[1]
        WHERE f.contype = 'f' AND f.connamespace = 'klaxon'::regnamespace
        ORDER BY 1, 2
    LOOP
        EXECUTE format('SELECT count(*) FROM %s AS c WHERE c.%s IS NOT NULL AND NOT EXISTS (SELECT FROM %s AS t WHERE t.%s = c.%s)',
                       relation, field, target, key, field) INTO orphans;
        IF orphans > 0 THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION klaxon.orphans() IS 'Foreign keys with rows that point nowhere, and how many; none unless a restore was incomplete';
