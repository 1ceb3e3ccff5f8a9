-- Who may do what is a matter of group roles: administration is GRANT, and nothing else.
--
-- A schema `klaxon` that somebody else owns would let that role replace our functions, so the
-- installation stops rather than move in.
DO $$
DECLARE
    schema_owner text := (SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = 'klaxon');
    role_name text;
    may text;
BEGIN
    IF schema_owner <> current_user THEN
        RAISE EXCEPTION 'schema "klaxon" is owned by role "%", not by "%"', schema_owner, current_user
            USING ERRCODE = '42501',
                  HINT = 'Drop or rename that schema, or make the installing role its owner.';
    END IF;
    FOR role_name, may IN VALUES
        ('klaxon_emitter', 'May emit events, say that agents are alive, and watch tables it may make triggers on'),
        ('klaxon_user', 'May manage its own channels and subscriptions, and use those of its projects and global ones'),
        ('klaxon_app', 'As klaxon_user for any principal, as SET klaxon.principal says: for a backend with one login for many users'),
        ('klaxon_admin', 'May do everything in the schema klaxon but open secrets'),
        ('klaxon_worker', 'May do what the worker needs, and no more')
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', role_name);
                EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', role_name, may);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                -- Roles are the cluster's: an installation in another database was faster.
                NULL;
            END;
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON SCHEMA klaxon FROM PUBLIC;
GRANT USAGE ON SCHEMA klaxon TO klaxon_emitter, klaxon_user, klaxon_app, klaxon_admin, klaxon_worker;
