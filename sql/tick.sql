-- What happens because time passes.

-- An idle worker asks this with its heartbeat, so that it costs no statement of its own.
CREATE FUNCTION klaxon.tick_is_due() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
    -- Rights of the owner: the worker reads neither agents nor watchers, and learns only whether. A timeout is at most a
    -- year, and what an agent was last seen at may be the end of time, to which nothing can be added.
    SELECT EXISTS (SELECT FROM klaxon.agent AS a WHERE a.online AND a.last_seen_at < clock_timestamp() - a.timeout)
        OR EXISTS (SELECT FROM klaxon.digest_item AS i WHERE i.delivery_id IS NULL AND i.due_at <= clock_timestamp())
        OR EXISTS (SELECT FROM klaxon.watcher AS w WHERE w.tick_query IS NOT NULL)
        -- What happens once a minute.
        OR extract(second FROM clock_timestamp()) < 1
$$;
COMMENT ON FUNCTION klaxon.tick_is_due() IS 'Whether the clock has anything to do';

-- All of it at once, without a worker. A worker does each part in a transaction of its own. One part's failure is not
-- the others'.
CREATE FUNCTION klaxon.tick() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
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
END
$$;
COMMENT ON FUNCTION klaxon.tick() IS 'The clock, at once and by hand: agents that fell silent, digests that are due, tasks that are slow';
