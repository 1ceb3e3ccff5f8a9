-- What happens because time passes.

-- An idle worker asks this with its heartbeat, so that it costs no statement of its own.
CREATE FUNCTION klaxon.tick_is_due() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
    -- Rights of the owner: the worker reads neither agents nor watchers, and learns only whether.
    SELECT EXISTS (SELECT FROM klaxon.agent AS a WHERE a.online AND a.last_seen_at + a.timeout < clock_timestamp())
        OR EXISTS (SELECT FROM klaxon.digest_item AS i WHERE i.delivery_id IS NULL AND i.due_at <= clock_timestamp())
        OR EXISTS (SELECT FROM klaxon.watcher AS w WHERE w.tick_query IS NOT NULL)
        -- What happens once a minute.
        OR extract(second FROM clock_timestamp()) < 1
$$;
COMMENT ON FUNCTION klaxon.tick_is_due() IS 'Whether klaxon.tick() has anything to do';

-- At most once a second, by the worker that owns the first shard. One part's failure is not the others'.
CREATE FUNCTION klaxon.tick() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Rights of the owner: what is done is the same whoever calls it, and only the worker may.
    BEGIN
        PERFORM klaxon.expire_agents();
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'klaxon: agents were not looked at: % (%)', SQLERRM, SQLSTATE;
    END;
    BEGIN
        PERFORM klaxon.gather_digests();
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'klaxon: digests were not gathered: % (%)', SQLERRM, SQLSTATE;
    END;
    BEGIN
        PERFORM klaxon.tick_watchers();
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'klaxon: watched tables were not looked at: % (%)', SQLERRM, SQLSTATE;
    END;
    -- Once a minute: it reads the whole of what is held back.
    IF extract(second FROM clock_timestamp()) < 1 THEN
        BEGIN
            PERFORM klaxon.tidy_cooldowns();
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'klaxon: cooldowns were not tidied: % (%)', SQLERRM, SQLSTATE;
        END;
    END IF;
END
$$;
COMMENT ON FUNCTION klaxon.tick() IS 'The clock: agents that fell silent, digests that are due, tasks that are slow; called by a worker, at most once a second';
