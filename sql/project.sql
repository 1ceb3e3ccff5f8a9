-- Projects give events a home, and their members the right to hear of them.

-- Shared by every table that people edit.
CREATE FUNCTION klaxon.touch() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Not now(): an edit must show even in the transaction that made the row.
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION klaxon.touch() IS 'Trigger: keeps updated_at';

-- The last word of a constraint: what Postgres says of one that does not hold names the constraint alone.
-- STRICT: null, which a constraint lets pass, passes here.
CREATE FUNCTION klaxon.refuse(place text, given text, hint text) RETURNS boolean
LANGUAGE plpgsql STRICT PARALLEL SAFE SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '%: "%" is not allowed', place, left(given, 200)
        USING ERRCODE = '23514', HINT = hint, SCHEMA = 'klaxon', TABLE = split_part(place, '.', 1),
              COLUMN = split_part(place, '.', 2), CONSTRAINT = replace(place, '.', '_') || '_check';
END
$$;
COMMENT ON FUNCTION klaxon.refuse(text, text, text) IS 'Raises where a constraint does not hold: names the column, quotes what it was given, and hints at what it takes';

CREATE TABLE klaxon.project (
    slug            text PRIMARY KEY
                    CHECK (length(slug) BETWEEN 1 AND 100 AND slug !~ '[[:space:][:cntrl:]]' OR klaxon.refuse('project.slug', slug, 'It has 1 to 100 characters, without spaces and control characters.')),
    name            text CHECK (length(name) BETWEEN 1 AND 200 AND name !~ '[[:cntrl:]]' OR klaxon.refuse('project.name', name, 'It has 1 to 200 characters, without control characters; null shows the slug.')),
    url             text CHECK (length(url) <= 2048 AND url ~ '^https?://[^[:space:][:cntrl:]]+$' OR klaxon.refuse('project.url', url, 'It begins with http:// or https://, and has at most 2048 characters, without spaces.')),
    default_branch  text NOT NULL DEFAULT 'main'
                    CHECK (length(default_branch) BETWEEN 1 AND 250 OR klaxon.refuse('project.default_branch', default_branch, 'It has 1 to 250 characters.')),
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  klaxon.project IS 'What events belong to and what people are members of';
COMMENT ON COLUMN klaxon.project.slug IS 'The name events carry: 1 to 100 characters without spaces';
COMMENT ON COLUMN klaxon.project.name IS 'The name messages show; the slug where it is null';
COMMENT ON COLUMN klaxon.project.url IS 'Base of the links in messages';
COMMENT ON COLUMN klaxon.project.default_branch IS 'The branch that the filter default_branch_only and run.failed.default_branch mean';
COMMENT ON COLUMN klaxon.project.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.project.updated_at IS 'When the row was last changed';

CREATE TABLE klaxon.member (
    project     text NOT NULL REFERENCES klaxon.project ON UPDATE CASCADE ON DELETE CASCADE,
    principal   text NOT NULL
                CHECK (length(principal) BETWEEN 1 AND 200 AND principal !~ '[[:cntrl:]]' OR klaxon.refuse('member.principal', principal, 'It has 1 to 200 characters, without control characters.')),
    role        text NOT NULL DEFAULT 'member'
                CHECK (role IN ('member', 'admin') OR klaxon.refuse('member.role', role, 'The roles are member and admin.')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project, principal)
);
CREATE INDEX member_principal_idx ON klaxon.member (principal);
COMMENT ON TABLE  klaxon.member IS 'Who hears of a project; a member with role admin manages its channels and defaults';
COMMENT ON COLUMN klaxon.member.project IS 'The project';
COMMENT ON COLUMN klaxon.member.principal IS 'A database role, or a user that an application acts for: see klaxon.principal()';
COMMENT ON COLUMN klaxon.member.role IS 'member or admin';
COMMENT ON COLUMN klaxon.member.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.member.updated_at IS 'When the row was last changed';

CREATE TRIGGER touch BEFORE UPDATE ON klaxon.project FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
CREATE TRIGGER touch BEFORE UPDATE ON klaxon.member FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
