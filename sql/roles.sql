-- Who may do what is a matter of group roles: administration is GRANT, and nothing else.
--
-- A schema `klaxon` that somebody else owns would let that role replace our functions, so the
-- installation stops rather than move in.
DO $$
DECLARE
    schema_owner text := (SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = 'klaxon');
    role_name text;
BEGIN
    IF schema_owner <> current_user THEN
        RAISE EXCEPTION 'schema "klaxon" is owned by role "%", not by "%"', schema_owner, current_user
            USING ERRCODE = '42501',
                  HINT = 'Drop or rename that schema, or make the installing role its owner.';
    END IF;
    FOREACH role_name IN ARRAY ARRAY['klaxon_emitter', 'klaxon_user', 'klaxon_app', 'klaxon_admin', 'klaxon_worker'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', role_name);
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
