-- Who may use what. These rules hold for everyone, administrators included; who may write which
-- row at all is row-level security's (policy.sql).

CREATE FUNCTION klaxon.is_member(project text, principal text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
    -- Rights of the owner: policies on klaxon.member itself ask this.
    SELECT EXISTS (SELECT FROM klaxon.member AS m WHERE m.project = is_member.project AND m.principal = is_member.principal)
$$;
COMMENT ON FUNCTION klaxon.is_member(text, text) IS 'Whether a principal is a member of a project';

CREATE FUNCTION klaxon.is_project_admin(project text, principal text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT EXISTS (SELECT FROM klaxon.member AS m
                   WHERE m.project = is_project_admin.project AND m.principal = is_project_admin.principal AND m.role = 'admin')
$$;
COMMENT ON FUNCTION klaxon.is_project_admin(text, text) IS 'Whether a principal is a member of a project with role admin';

CREATE FUNCTION klaxon.owns_subscription(subscription_id bigint, principal text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT EXISTS (SELECT FROM klaxon.subscription AS s
                   WHERE s.id = owns_subscription.subscription_id AND s.owner = owns_subscription.principal)
$$;
COMMENT ON FUNCTION klaxon.owns_subscription(bigint, text) IS 'Whether a subscription belongs to a principal';

CREATE FUNCTION klaxon.check_owner() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Rights of the owner: the rules are about the subscription's owner, whoever writes it.
    -- What a dump brings was allowed once, by a server that may have known other time zones.
    IF TG_OP = 'INSERT' AND NEW.created_at <> now() THEN
        RETURN NEW;
    END IF;
    -- The view reads every zone's file: some 50 ms, which the usual answer does not need.
    IF NEW.digest_timezone <> 'UTC' AND NEW.digest_timezone IS DISTINCT FROM OLD.digest_timezone
       AND NOT EXISTS (SELECT FROM pg_timezone_names WHERE name = NEW.digest_timezone) THEN
        RAISE EXCEPTION 'unknown digest_timezone "%"', NEW.digest_timezone
            USING ERRCODE = '22023', HINT = 'SELECT name FROM pg_timezone_names lists them.';
    END IF;
    IF TG_TABLE_NAME = 'subscription' THEN
        IF NEW.owner IS NOT NULL AND NEW.project IS NOT NULL
           -- A project that is being renamed changes its subscriptions before its members.
           AND NOT (TG_OP = 'UPDATE' AND NEW.owner IS NOT DISTINCT FROM OLD.owner AND NOT EXISTS (SELECT FROM klaxon.project WHERE slug = OLD.project))
           AND EXISTS (SELECT FROM klaxon.project WHERE slug = NEW.project)
           AND NOT klaxon.is_member(NEW.project, NEW.owner) THEN
            RAISE EXCEPTION 'principal "%" is not a member of project "%"', NEW.owner, NEW.project
                USING ERRCODE = '42501', HINT = 'An administrator can INSERT the principal into klaxon.member.';
        END IF;
        IF NEW.owner IS NULL AND NEW.in_app THEN
            RAISE EXCEPTION 'a shared subscription has no inbox'
                USING ERRCODE = '22023', HINT = 'Set in_app to false, or give the subscription an owner.';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION klaxon.check_owner() IS 'Trigger: a subscription''s time zone, and its owner''s membership';
-- A copy is what its default is, whatever the server knows by then.
CREATE TRIGGER check_owner_new BEFORE INSERT ON klaxon.subscription
    FOR EACH ROW WHEN (NEW.default_subscription_id IS NULL) EXECUTE FUNCTION klaxon.check_owner();
CREATE TRIGGER check_owner_changed BEFORE UPDATE OF owner, project, digest_timezone, in_app ON klaxon.subscription
    FOR EACH ROW EXECUTE FUNCTION klaxon.check_owner();
CREATE TRIGGER check_owner BEFORE INSERT OR UPDATE OF digest_timezone ON klaxon.default_subscription
    FOR EACH ROW EXECUTE FUNCTION klaxon.check_owner();

-- Messages name a channel by its id: who may not use it may not learn its name either.
CREATE FUNCTION klaxon.refuse_channel_use(s klaxon.subscription, c klaxon.channel) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    IF c.owner IS NOT NULL AND c.owner IS DISTINCT FROM s.owner THEN
        RAISE EXCEPTION 'channel % is another principal''s', c.id
            USING ERRCODE = '42501', HINT = 'A personal channel is for its owner''s own subscriptions.';
    END IF;
    IF c.project IS NOT NULL THEN
        IF s.owner IS NOT NULL AND NOT klaxon.is_member(c.project, s.owner) THEN
            RAISE EXCEPTION 'principal "%" is not a member of the project whose channel % is', s.owner, c.id
                USING ERRCODE = '42501', HINT = 'An administrator can INSERT the principal into klaxon.member.';
        END IF;
        IF s.project <> c.project OR s.project IS NULL AND s.owner IS NULL THEN
            RAISE EXCEPTION 'channel "%" belongs to project "%"', c.name, c.project
                USING ERRCODE = '42501', HINT = 'Subscribe with that project, or use a global channel.';
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION klaxon.refuse_channel_use(klaxon.subscription, klaxon.channel) IS
    'Raises where a subscription may not use a channel';

CREATE FUNCTION klaxon.check_channel_use() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    s klaxon.subscription;
    c klaxon.channel;
BEGIN
    SELECT * INTO s FROM klaxon.subscription WHERE id = NEW.subscription_id;
    SELECT * INTO c FROM klaxon.channel WHERE id = NEW.channel_id;
    -- What does not exist is the foreign keys' to refuse; what a dump brings was allowed once.
    IF s.id IS NULL OR c.id IS NULL OR TG_OP = 'INSERT' AND NEW.created_at <> now() THEN
        RETURN NEW;
    END IF;
    PERFORM klaxon.refuse_channel_use(s, c);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION klaxon.check_channel_use() IS 'Trigger: a subscription uses only channels its owner may use';
CREATE TRIGGER check_channel_use BEFORE INSERT OR UPDATE ON klaxon.subscription_channel
    FOR EACH ROW EXECUTE FUNCTION klaxon.check_channel_use();

-- A subscription that changes hands or projects keeps only channels that it might have chosen.
CREATE FUNCTION klaxon.check_channels_kept() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Rights of the owner: as check_channel_use.
    PERFORM klaxon.refuse_channel_use(NEW, c)
    FROM klaxon.subscription_channel AS u JOIN klaxon.channel AS c ON c.id = u.channel_id
    WHERE u.subscription_id = NEW.id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION klaxon.check_channels_kept() IS 'Trigger: as check_channel_use, where the subscription changes';
-- AFTER: a project that is renamed has by then changed its channels and members too.
CREATE TRIGGER check_channels_kept AFTER UPDATE OF owner, project ON klaxon.subscription
    FOR EACH ROW WHEN (OLD.owner IS DISTINCT FROM NEW.owner OR OLD.project IS DISTINCT FROM NEW.project)
    EXECUTE FUNCTION klaxon.check_channels_kept();

CREATE FUNCTION klaxon.copy_defaults() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    d klaxon.default_subscription;
    copy_id bigint;
BEGIN
    -- Rights of the owner: the copies are the new member's, whoever makes it one.
    IF NEW.created_at <> now() THEN
        RETURN NULL;
    END IF;
    FOR d IN SELECT * FROM klaxon.default_subscription WHERE project = NEW.project ORDER BY id LOOP
        INSERT INTO klaxon.subscription (owner, project, events, filters, mode, digest_at, digest_timezone, cooldown, in_app, default_subscription_id)
        VALUES (NEW.principal, d.project, d.events, d.filters, d.mode, d.digest_at, d.digest_timezone, d.cooldown, d.in_app, d.id)
        ON CONFLICT (default_subscription_id, owner) WHERE default_subscription_id IS NOT NULL DO NOTHING
        RETURNING id INTO copy_id;
        IF FOUND THEN
            INSERT INTO klaxon.subscription_channel (subscription_id, channel_id)
            SELECT DISTINCT copy_id, c.id FROM klaxon.channel AS c
            WHERE c.id = ANY (d.channel_ids) AND c.owner IS NULL AND (c.project IS NULL OR c.project = d.project);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION klaxon.copy_defaults() IS 'Trigger: gives a new member copies of its project''s default subscriptions';
CREATE TRIGGER copy_defaults AFTER INSERT ON klaxon.member FOR EACH ROW EXECUTE FUNCTION klaxon.copy_defaults();
