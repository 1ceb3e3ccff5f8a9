-- A personal channel becomes its project's. A sealed secret names the channel it is for, and nobody
-- in the database can open it to seal it again for another; so it is the same channel, with its id
-- and its secrets, that changes hands, and no copy stays behind.

CREATE FUNCTION klaxon.end_personal_uses() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    ended bigint;
BEGIN
    -- Rights of the owner: the uses end whoever's they are. The rules are check_channel_use's.
    DELETE FROM klaxon.subscription_channel AS u USING klaxon.subscription AS s
    WHERE u.channel_id = NEW.id AND s.id = u.subscription_id
      AND (NEW.owner IS NOT NULL AND s.owner IS DISTINCT FROM NEW.owner
           OR NEW.project IS NOT NULL
              AND (s.project <> NEW.project
                   OR s.owner IS NULL AND s.project IS NULL
                   OR s.owner IS NOT NULL AND NOT klaxon.is_member(NEW.project, s.owner)));
    GET DIAGNOSTICS ended = ROW_COUNT;
    IF ended > 0 THEN
        RAISE NOTICE 'channel "%" is no longer used by % of its subscriptions', NEW.name, ended
            USING HINT = 'They are of other projects, or of principals who may not use it.';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION klaxon.end_personal_uses() IS 'Trigger: a channel that is no longer its owner''s loses the uses it may not have';
-- Not where a project is renamed, which changes channels and subscriptions one after the other.
CREATE TRIGGER end_personal_uses AFTER UPDATE OF owner ON klaxon.channel
    FOR EACH ROW WHEN (OLD.owner IS NOT NULL AND NEW.owner IS DISTINCT FROM OLD.owner) EXECUTE FUNCTION klaxon.end_personal_uses();

-- With the caller's rights: it is an UPDATE, and who may make it may call this.
CREATE FUNCTION klaxon.copy_channel(channel text, to_project text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    moved bigint;
BEGIN
    IF klaxon.is_project_admin(copy_channel.to_project, klaxon.principal()) IS NOT TRUE THEN
        RAISE EXCEPTION 'principal "%" is not an admin of project "%"', klaxon.principal(), copy_channel.to_project
            USING ERRCODE = '42501', HINT = 'A member with role admin manages a project''s channels: see klaxon.member.';
    END IF;
    IF EXISTS (SELECT FROM klaxon.channel AS c WHERE c.name = copy_channel.channel AND c.project = copy_channel.to_project) THEN
        RAISE EXCEPTION 'project "%" already has a channel "%"', copy_channel.to_project, copy_channel.channel
            USING ERRCODE = '23505', HINT = 'Rename one of the two first.';
    END IF;
    UPDATE klaxon.channel AS c SET owner = NULL, project = copy_channel.to_project
    WHERE c.name = copy_channel.channel AND c.owner = klaxon.principal()
    RETURNING c.id INTO moved;
    IF moved IS NULL THEN
        RAISE EXCEPTION 'no personal channel "%" of yours', copy_channel.channel
            USING ERRCODE = '42501', HINT = 'SELECT name FROM klaxon.channel WHERE owner = klaxon.principal() shows them.';
    END IF;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION klaxon.copy_channel(text, text) IS
    'Brings one''s personal channel into a project one is admin of, its secrets unseen; the channel is the project''s from then on, no longer personal. Returns its id, which stays';
