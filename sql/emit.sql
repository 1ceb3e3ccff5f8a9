-- What applications and administrators call.

CREATE FUNCTION klaxon.known_event(event_type text, event_project text, event_dedup_key text) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
    -- Rights of the owner: an emitter may not read events, but may learn the id of what it repeats.
    SELECT k.event_id FROM klaxon.event_key AS k
    WHERE k.digest = klaxon.event_key_digest(event_type, event_project, event_dedup_key)
$$;
COMMENT ON FUNCTION klaxon.known_event(text, text, text) IS 'The id of the event with this type, project and dedup_key';

-- In extension/src/emit/notify.rs. Its cost has whatever else a WHERE asks asked first.
CREATE FUNCTION klaxon.notify_event(
    type text, payload jsonb DEFAULT '{}', project text DEFAULT NULL,
    dedup_key text DEFAULT NULL, occurred_at timestamptz DEFAULT now()
) RETURNS uuid
LANGUAGE c VOLATILE COST 100 AS 'MODULE_PATHNAME', 'klaxon_notify_event';

-- What klaxon.notify_event() does where an event cannot be written without a statement. VOLATILE and with the caller's
-- rights: it is an INSERT, and who may insert may emit. Every name is qualified instead of a search_path being set, which
-- would cost every call some microseconds.
CREATE FUNCTION klaxon.insert_event(type text, payload jsonb, project text, dedup_key text, occurred_at timestamptz) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    event_id pg_catalog.uuid;
BEGIN
    IF insert_event.type IS NULL THEN
        RAISE EXCEPTION 'type is null' USING ERRCODE = '22004', HINT = 'Name one of the types in klaxon.event_type.';
    END IF;
    event_id := klaxon.uuid_v7();
    INSERT INTO klaxon.event (id, type, payload, project, dedup_key, occurred_at)
    VALUES (event_id, insert_event.type, coalesce(insert_event.payload, '{}'), insert_event.project,
            insert_event.dedup_key, coalesce(insert_event.occurred_at, pg_catalog.now()));
    IF NOT FOUND THEN
        RETURN klaxon.known_event(insert_event.type, insert_event.project, insert_event.dedup_key);
    END IF;
    RETURN event_id;
END
$$;
COMMENT ON FUNCTION klaxon.insert_event(text, jsonb, text, text, timestamptz) IS
    'Part of klaxon.notify_event(): emits an event by a statement';
COMMENT ON FUNCTION klaxon.notify_event(text, jsonb, text, text, timestamptz) IS
    'Emits an event in the current transaction; with a known dedup_key returns the first event''s id and does nothing';

-- A personal channel first, then the project's, then a global one.
CREATE FUNCTION klaxon.channel_named(channel text, owner text, project text) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    found_id bigint;
BEGIN
    SELECT c.id INTO found_id FROM klaxon.channel AS c
    WHERE c.name = channel_named.channel
      AND (c.owner = channel_named.owner OR c.project = channel_named.project OR num_nonnulls(c.owner, c.project) = 0)
    ORDER BY c.owner IS NULL, c.project IS NULL
    LIMIT 1;
    IF found_id IS NULL THEN
        RAISE EXCEPTION 'unknown channel "%"', channel_named.channel
            USING ERRCODE = '22023',
                  DETAIL = coalesce('The channels are: ' || (
                      SELECT string_agg(DISTINCT c.name, ', ' ORDER BY c.name) FROM klaxon.channel AS c
                      WHERE c.owner = channel_named.owner OR c.project = channel_named.project OR num_nonnulls(c.owner, c.project) = 0
                  ) || '.', 'There are no channels yet.'),
                  HINT = 'INSERT it into klaxon.channel first.';
    END IF;
    RETURN found_id;
END
$$;
COMMENT ON FUNCTION klaxon.channel_named(text, text, text) IS 'The channel a name means to an owner in a project';

CREATE FUNCTION klaxon.subscribe(
    channels text[], events text[], project text DEFAULT NULL, filters jsonb DEFAULT '{}',
    mode text DEFAULT 'realtime', digest_at time DEFAULT NULL, digest_timezone text DEFAULT 'UTC',
    cooldown interval DEFAULT '0', in_app boolean DEFAULT false, owner text DEFAULT klaxon.principal()
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    new_id bigint;
BEGIN
    IF cardinality(coalesce(subscribe.channels, '{}')) = 0 AND NOT coalesce(subscribe.in_app, false) THEN
        RAISE EXCEPTION 'channels is empty' USING ERRCODE = '22023', HINT = 'Name a channel, or subscribe with in_app => true.';
    END IF;
    INSERT INTO klaxon.subscription (owner, project, events, filters, mode, digest_at, digest_timezone, cooldown, in_app)
    VALUES (subscribe.owner, subscribe.project, subscribe.events, coalesce(subscribe.filters, '{}'), subscribe.mode,
            subscribe.digest_at, coalesce(subscribe.digest_timezone, 'UTC'), coalesce(subscribe.cooldown, '0'),
            coalesce(subscribe.in_app, false))
    RETURNING id INTO new_id;
    INSERT INTO klaxon.subscription_channel (subscription_id, channel_id)
    SELECT DISTINCT new_id, klaxon.channel_named(name, subscribe.owner, subscribe.project)
    FROM unnest(subscribe.channels) AS name;
    RETURN new_id;
END
$$;
COMMENT ON FUNCTION klaxon.subscribe(text[], text[], text, jsonb, text, time, text, interval, boolean, text) IS
    'A subscription and its channels by name, in one call; returns its id';

CREATE FUNCTION klaxon.mute(subscription_id bigint, until timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    UPDATE klaxon.subscription SET muted_until = mute.until WHERE id = mute.subscription_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no subscription % of yours', mute.subscription_id
            USING ERRCODE = '42704', HINT = 'SELECT id, events FROM klaxon.subscription shows them.';
    END IF;
END
$$;
COMMENT ON FUNCTION klaxon.mute(bigint, timestamptz) IS 'A subscription matches nothing until then';

CREATE FUNCTION klaxon.unmute(subscription_id bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT klaxon.mute(unmute.subscription_id, NULL)
$$;
COMMENT ON FUNCTION klaxon.unmute(bigint) IS 'A muted subscription matches again';

-- The next time it is digest_at in the subscription's time zone. Of a time that exists twice where
-- clocks are set back, AT TIME ZONE takes the second, and so every call does: it fires once. A time that
-- is skipped where clocks are set forward AT TIME ZONE moves on by the length of the gap (02:30 to
-- 03:30): shown again it is another time. Then it is the first minute after the gap (03:00).
CREATE FUNCTION klaxon.digest_due(digest_at time, digest_timezone text, at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT min(d.due) FROM (
        SELECT CASE WHEN t.due AT TIME ZONE digest_timezone = t.shown THEN t.due ELSE (
            SELECT min(minute)
            FROM generate_series(date_trunc('minute', t.due - (t.due AT TIME ZONE digest_timezone - t.shown)), t.due, '1 minute') AS minute
            WHERE minute AT TIME ZONE digest_timezone >= t.shown
        ) END AS due
        FROM generate_series(0, 2) AS day
        CROSS JOIN LATERAL (SELECT (at AT TIME ZONE digest_timezone)::date + day + digest_at AS shown) AS s
        CROSS JOIN LATERAL (SELECT s.shown, s.shown AT TIME ZONE digest_timezone AS due) AS t
    ) AS d
    WHERE d.due > at
$$;
COMMENT ON FUNCTION klaxon.digest_due(time, text, timestamptz) IS 'When the next digest is due';

CREATE FUNCTION klaxon.set_public_key(key text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION 'only a superuser may set the public key' USING ERRCODE = '42501',
            HINT = 'Whoever sets it decides who can read the secrets written from now on. Run "klaxon init" as a superuser.';
    END IF;
    PERFORM klaxon.check_public_key(set_public_key.key);
    INSERT INTO klaxon.deployment (public_key) VALUES (set_public_key.key)
    ON CONFLICT (only_row) DO UPDATE SET public_key = EXCLUDED.public_key;
END
$$;
COMMENT ON FUNCTION klaxon.set_public_key(text) IS 'The key that secrets are sealed to from now on; the superuser''s';

CREATE FUNCTION klaxon.mark_read(ids bigint[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    marked bigint;
BEGIN
    UPDATE klaxon.inbox SET read_at = now()
    WHERE principal = klaxon.principal() AND read_at IS NULL AND (mark_read.ids IS NULL OR id = ANY (mark_read.ids));
    GET DIAGNOSTICS marked = ROW_COUNT;
    RETURN marked;
END
$$;
COMMENT ON FUNCTION klaxon.mark_read(bigint[]) IS 'Marks messages of one''s inbox as read, all of them without ids; returns how many';

CREATE FUNCTION klaxon.unread_count() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT count(*) FROM klaxon.inbox WHERE principal = klaxon.principal() AND read_at IS NULL
$$;
COMMENT ON FUNCTION klaxon.unread_count() IS 'How many messages of one''s inbox are unread';

CREATE FUNCTION klaxon.touch_agent(
    agent_id text, project text, name text, timeout interval, OUT came_back boolean, OUT known_name text
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Rights of the owner: an emitter may say that an agent lives, and write nothing else about it.
    IF touch_agent.project IS NULL THEN
        SELECT NOT a.online INTO came_back FROM klaxon.agent AS a
        WHERE a.agent_id = touch_agent.agent_id AND a.project IS NULL FOR UPDATE;
    ELSE
        SELECT NOT a.online INTO came_back FROM klaxon.agent AS a
        WHERE a.agent_id = touch_agent.agent_id AND a.project = touch_agent.project FOR UPDATE;
    END IF;
    INSERT INTO klaxon.agent AS a (project, agent_id, name, timeout, last_seen_at)
    VALUES (touch_agent.project, touch_agent.agent_id, touch_agent.name, coalesce(touch_agent.timeout, '60 s'), clock_timestamp())
    ON CONFLICT ON CONSTRAINT agent_key DO UPDATE
    SET name = coalesce(EXCLUDED.name, a.name), timeout = EXCLUDED.timeout, last_seen_at = EXCLUDED.last_seen_at, online = true
    RETURNING a.name INTO known_name;
    came_back := coalesce(came_back, false);
END
$$;
COMMENT ON FUNCTION klaxon.touch_agent(text, text, text, interval) IS
    'Notes that an agent is alive; says whether it was silent until now, and its name';

-- With the caller's rights, as notify_event: agent.online is the caller's event.
CREATE FUNCTION klaxon.heartbeat(
    agent_id text, project text DEFAULT NULL, name text DEFAULT NULL, timeout interval DEFAULT '60 s'
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    touched record;
BEGIN
    IF heartbeat.agent_id IS NULL THEN
        RAISE EXCEPTION 'agent_id is null' USING ERRCODE = '22004', HINT = 'Name the agent that is alive.';
    END IF;
    touched := klaxon.touch_agent(heartbeat.agent_id, heartbeat.project, heartbeat.name, heartbeat.timeout);
    IF touched.came_back THEN
        INSERT INTO klaxon.event (type, project, payload)
        VALUES ('agent.online', heartbeat.project,
                jsonb_strip_nulls(jsonb_build_object('agent_id', heartbeat.agent_id, 'agent_name', touched.known_name)));
    END IF;
END
$$;
COMMENT ON FUNCTION klaxon.heartbeat(text, text, text, interval) IS
    'An agent is alive; silence for longer than its timeout becomes agent.offline, its return agent.online';

-- Called by the worker about once a second. An agent that is being written just then is
-- not silent: its row is skipped rather than waited for.
CREATE FUNCTION klaxon.expire_agents() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    expired bigint;
BEGIN
    -- Rights of the owner: the worker may not write agents.
    WITH silent AS (
        SELECT a.ctid AS place FROM klaxon.agent AS a
        WHERE a.online AND a.last_seen_at < clock_timestamp() - a.timeout
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        UPDATE klaxon.agent AS a SET online = false FROM silent WHERE a.ctid = silent.place
        RETURNING a.project, a.agent_id, a.name, a.last_seen_at
    )
    -- A watched table that is written anew tells no silence a second time. Whoever emits with the same key is waited for,
    -- so it holds what no emitter knows.
    INSERT INTO klaxon.event (type, project, payload, dedup_key)
    SELECT 'agent.offline', project,
           jsonb_strip_nulls(jsonb_build_object('agent_id', agent_id, 'agent_name', name, 'last_seen_at', last_seen_at)),
           encode(sha256(convert_to(concat_ws(' ', (SELECT d.id FROM klaxon.deployment AS d), agent_id, extract(epoch FROM last_seen_at)), 'UTF8')), 'hex')
    FROM gone;
    GET DIAGNOSTICS expired = ROW_COUNT;
    RETURN expired;
END
$$;
COMMENT ON FUNCTION klaxon.expire_agents() IS 'Emits agent.offline for agents silent for longer than their timeout; returns how many';
