/* <begin connected objects> */
/*

The ordering of items is not stable, it is driven by a dependency graph.
*/
/* </end connected objects> */

/* <begin connected objects> */
-- bootstrap
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
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON SCHEMA klaxon FROM PUBLIC;
GRANT USAGE ON SCHEMA klaxon TO klaxon_emitter, klaxon_user, klaxon_app, klaxon_admin, klaxon_worker;
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   roles

-- The audit log. Append-only; each row's MAC covers every column and the row before it, under a
-- key that only the worker holds. Plain types only, so that a row re-encodes to the same bytes
-- after a dump and restore: no jsonb, and times in whole microseconds.
CREATE TABLE klaxon.delivery (
    seq              bigint PRIMARY KEY CHECK (seq > 0),
    kind             text NOT NULL DEFAULT 'attempt' CHECK (kind IN ('attempt', 'checkpoint', 'rotation', 'config', 'prune')),
    delivery_id      uuid,
    attempt          integer,
    event_id         uuid,
    event_type       text,
    project          text,
    subscription_id  bigint,
    channel_id       bigint,
    channel_name     text,
    channel_kind     text,
    status           text CHECK (status IN ('sent', 'failed', 'dead')),
    response_code    integer,
    error            text,
    response_body    text CHECK (octet_length(response_body) <= 8192),
    duration_ms      integer,
    attempted_at     timestamptz NOT NULL,
    worker           uuid,
    detail           text,
    chain            uuid NOT NULL,
    key_id           text NOT NULL,
    body_hash        bytea,
    mac              bytea NOT NULL,
    CONSTRAINT delivery_attempt CHECK (kind <> 'attempt' OR num_nulls(delivery_id, attempt, status, channel_id, event_type) = 0)
);
CREATE INDEX delivery_delivery_id_idx ON klaxon.delivery (delivery_id);
CREATE INDEX delivery_attempted_at_idx ON klaxon.delivery USING brin (attempted_at);
COMMENT ON TABLE  klaxon.delivery IS 'The audit log: one row an attempt, each chained to the one before by an HMAC; klaxon audit verify checks it';
COMMENT ON COLUMN klaxon.delivery.seq IS 'Position in the chain, gapless from 1';
COMMENT ON COLUMN klaxon.delivery.kind IS 'attempt, or a record of the log itself: checkpoint, rotation, config, prune';
COMMENT ON COLUMN klaxon.delivery.delivery_id IS 'The delivery: the same on all its attempts';
COMMENT ON COLUMN klaxon.delivery.attempt IS 'Counts from 1';
COMMENT ON COLUMN klaxon.delivery.event_id IS 'The event; null for a digest';
COMMENT ON COLUMN klaxon.delivery.event_type IS 'The event''s type, or digest';
COMMENT ON COLUMN klaxon.delivery.project IS 'The event''s project';
COMMENT ON COLUMN klaxon.delivery.subscription_id IS 'The subscription that matched';
COMMENT ON COLUMN klaxon.delivery.channel_id IS 'The channel';
COMMENT ON COLUMN klaxon.delivery.channel_name IS 'Its name at the time';
COMMENT ON COLUMN klaxon.delivery.channel_kind IS 'Its kind';
COMMENT ON COLUMN klaxon.delivery.status IS 'sent; failed: will be tried again; dead: given up';
COMMENT ON COLUMN klaxon.delivery.response_code IS 'HTTP status or SMTP reply code; null where there was no answer';
COMMENT ON COLUMN klaxon.delivery.error IS 'What went wrong, sanitized';
COMMENT ON COLUMN klaxon.delivery.response_body IS 'What a failed attempt was answered, sanitized, at most 8 KiB; retention may blank it';
COMMENT ON COLUMN klaxon.delivery.duration_ms IS 'From resolving the name to the last byte read';
COMMENT ON COLUMN klaxon.delivery.attempted_at IS 'When the attempt was settled, by the database''s clock';
COMMENT ON COLUMN klaxon.delivery.worker IS 'The worker that made it: worker.id';
COMMENT ON COLUMN klaxon.delivery.detail IS 'JSON, for records that are not attempts; replayed for an attempt of a replay';
COMMENT ON COLUMN klaxon.delivery.chain IS 'The chain''s id';
COMMENT ON COLUMN klaxon.delivery.key_id IS 'Which key the MAC is under';
COMMENT ON COLUMN klaxon.delivery.body_hash IS 'SHA-256 of response_body, which stays when the body is blanked';
COMMENT ON COLUMN klaxon.delivery.mac IS 'HMAC-SHA256 of the row''s canonical encoding and the MAC before it';

CREATE TABLE klaxon.audit_head (
    chain       uuid NOT NULL,
    seq         bigint NOT NULL DEFAULT 0,
    mac         bytea NOT NULL DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000',
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row)
) WITH (fillfactor = 10);
COMMENT ON TABLE  klaxon.audit_head IS 'The end of the chain: locked for a moment by the worker that appends to it';
COMMENT ON COLUMN klaxon.audit_head.chain IS 'The chain''s id';
COMMENT ON COLUMN klaxon.audit_head.seq IS 'seq of the last row of klaxon.delivery';
COMMENT ON COLUMN klaxon.audit_head.mac IS 'mac of the last row of klaxon.delivery';
COMMENT ON COLUMN klaxon.audit_head.only_row IS 'There is one row';

CREATE FUNCTION klaxon.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    IF current_user <> (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = TG_RELID) THEN
        RAISE EXCEPTION 'klaxon.delivery is append-only' USING ERRCODE = '42501', HINT = 'Retention is klaxon.prune().';
    END IF;
    IF TG_LEVEL = 'ROW' AND TG_OP = 'UPDATE' THEN
        RETURN NEW;
    END IF;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION klaxon.refuse_change() IS 'Trigger: the audit log grows at its end only';
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON klaxon.delivery
    FOR EACH STATEMENT EXECUTE FUNCTION klaxon.refuse_change();
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   roles

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

CREATE TABLE klaxon.project (
    slug            text PRIMARY KEY CHECK (length(slug) BETWEEN 1 AND 100 AND slug !~ '[[:space:][:cntrl:]]'),
    name            text CHECK (length(name) BETWEEN 1 AND 200 AND name !~ '[[:cntrl:]]'),
    url             text CHECK (length(url) <= 2048 AND url ~ '^https?://[^[:space:][:cntrl:]]+$'),
    default_branch  text NOT NULL DEFAULT 'main' CHECK (length(default_branch) BETWEEN 1 AND 250),
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
    principal   text NOT NULL CHECK (length(principal) BETWEEN 1 AND 200 AND principal !~ '[[:cntrl:]]'),
    role        text NOT NULL DEFAULT 'member' CHECK (role IN ('member', 'admin')),
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
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   project

-- The workers that are alive, and the deployment they belong to.
CREATE TABLE klaxon.worker (
    id             uuid PRIMARY KEY,
    host           text NOT NULL,
    version        text NOT NULL,
    started_at     timestamptz NOT NULL DEFAULT now(),
    heartbeat_at   timestamptz NOT NULL DEFAULT now(),
    shards         integer[] NOT NULL DEFAULT '{}',
    settings       jsonb NOT NULL DEFAULT '{}',
    pid            integer NOT NULL DEFAULT pg_backend_pid(),
    notified_at    timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE  klaxon.worker IS 'Workers that are alive; one silent for 10 s is fenced and its shards are taken over';
COMMENT ON COLUMN klaxon.worker.id IS 'New at every start';
COMMENT ON COLUMN klaxon.worker.host IS 'Where it runs';
COMMENT ON COLUMN klaxon.worker.version IS 'Its version';
COMMENT ON COLUMN klaxon.worker.started_at IS 'When it started';
COMMENT ON COLUMN klaxon.worker.heartbeat_at IS 'When it was last heard from';
COMMENT ON COLUMN klaxon.worker.shards IS 'The shards it owns';
COMMENT ON COLUMN klaxon.worker.settings IS 'Its settings, secrets masked';
COMMENT ON COLUMN klaxon.worker.pid IS 'The backend that holds its shards: ending it fences the worker';
COMMENT ON COLUMN klaxon.worker.notified_at IS 'When its self-test last received a notification; null: none arrives, and polling carries on';

-- A database copied to staging must not page anyone: a worker whose deployment id differs refuses.
CREATE TABLE klaxon.deployment (
    id          uuid,
    public_key  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row)
);
COMMENT ON TABLE  klaxon.deployment IS 'The deployment this database belongs to, and the public key its secrets are sealed to';
COMMENT ON COLUMN klaxon.deployment.id IS 'As in the worker''s configuration; null until klaxon init';
COMMENT ON COLUMN klaxon.deployment.public_key IS 'The worker''s X25519 public key, base64';
COMMENT ON COLUMN klaxon.deployment.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.deployment.updated_at IS 'When the row was last changed';
COMMENT ON COLUMN klaxon.deployment.only_row IS 'There is one row';
CREATE TRIGGER touch BEFORE UPDATE ON klaxon.deployment FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   project

-- What an application shows its users under a bell.
CREATE TABLE klaxon.inbox (
    id               bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    principal        text NOT NULL,
    project          text,
    event_id         uuid NOT NULL,
    subscription_id  bigint,
    event_type       text NOT NULL,
    reason           text NOT NULL CHECK (reason IN ('subscribed', 'default')),
    title            text NOT NULL,
    body             text,
    data             jsonb NOT NULL DEFAULT '{}',
    read_at          timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX inbox_principal_idx ON klaxon.inbox (principal, id);
CREATE INDEX inbox_unread_idx ON klaxon.inbox (principal) WHERE read_at IS NULL;
COMMENT ON TABLE  klaxon.inbox IS 'Messages to principals inside the application; LISTEN klaxon_inbox says when to look again';
COMMENT ON COLUMN klaxon.inbox.id IS 'Identity';
COMMENT ON COLUMN klaxon.inbox.principal IS 'Whose it is';
COMMENT ON COLUMN klaxon.inbox.project IS 'The event''s project';
COMMENT ON COLUMN klaxon.inbox.event_id IS 'The event';
COMMENT ON COLUMN klaxon.inbox.subscription_id IS 'The subscription that matched';
COMMENT ON COLUMN klaxon.inbox.event_type IS 'The event''s type';
COMMENT ON COLUMN klaxon.inbox.reason IS 'subscribed, or default: through a copy of a default subscription';
COMMENT ON COLUMN klaxon.inbox.title IS 'What happened, in a line';
COMMENT ON COLUMN klaxon.inbox.body IS 'More of it';
COMMENT ON COLUMN klaxon.inbox.data IS 'The event''s payload';
COMMENT ON COLUMN klaxon.inbox.read_at IS 'When it was read; the only column its reader may change';
COMMENT ON COLUMN klaxon.inbox.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.inbox.updated_at IS 'When the row was last changed';
CREATE TRIGGER touch BEFORE UPDATE ON klaxon.inbox FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   project

-- Who must be heard from. Silence becomes agent.offline, return agent.online.
CREATE TABLE klaxon.agent (
    project       text,
    agent_id      text NOT NULL CHECK (length(agent_id) BETWEEN 1 AND 200),
    name          text,
    timeout       interval NOT NULL DEFAULT '60 s' CHECK (timeout > '0' AND timeout <= '1 year'),
    last_seen_at  timestamptz NOT NULL DEFAULT now(),
    online        boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT agent_key UNIQUE NULLS NOT DISTINCT (project, agent_id)
);
CREATE INDEX agent_online_idx ON klaxon.agent (last_seen_at) WHERE online;
COMMENT ON TABLE  klaxon.agent IS 'Agents that send heartbeats';
COMMENT ON COLUMN klaxon.agent.project IS 'The project its events are of';
COMMENT ON COLUMN klaxon.agent.agent_id IS 'Its name among the project''s agents';
COMMENT ON COLUMN klaxon.agent.name IS 'What messages call it';
COMMENT ON COLUMN klaxon.agent.timeout IS 'How long it may be silent';
COMMENT ON COLUMN klaxon.agent.last_seen_at IS 'Its last heartbeat';
COMMENT ON COLUMN klaxon.agent.online IS 'False from agent.offline to agent.online';
COMMENT ON COLUMN klaxon.agent.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.agent.updated_at IS 'When the row was last changed';
CREATE TRIGGER touch BEFORE UPDATE ON klaxon.agent FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   project

-- Where messages go. Secrets never stand here: the trigger `mask_channel` takes them out of the
-- row before it is written, `seal_channel` puts them, sealed to the worker's public key, into
-- klaxon.channel_secret, and the constraint below refuses one in clear even with triggers off.
CREATE FUNCTION klaxon.holds_no_secret(config jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT NOT EXISTS (
        SELECT
        FROM unnest(ARRAY['hmac_secret', 'previous_hmac_secret', 'smtp_pass', 'webhook_url', 'bot_token', 'integration_key']) AS secret (field)
        WHERE config ? secret.field AND (config ->> secret.field) IS DISTINCT FROM '••••••••'
    ) AND NOT jsonb_path_exists(config, '$.headers.* ? (@ != "••••••••")');
END;
COMMENT ON FUNCTION klaxon.holds_no_secret(jsonb) IS 'Whether every secret field of a channel''s config is masked';

CREATE TABLE klaxon.channel (
    id               bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    name             text NOT NULL CHECK (length(name) BETWEEN 1 AND 100 AND name !~ '[[:cntrl:]]'),
    kind             text NOT NULL CHECK (kind IN ('webhook', 'email', 'slack', 'telegram', 'pagerduty', 'discord')),
    project          text REFERENCES klaxon.project ON UPDATE CASCADE ON DELETE CASCADE,
    owner            text CHECK (length(owner) BETWEEN 1 AND 200),
    config           jsonb NOT NULL CHECK (jsonb_typeof(config) = 'object'),
    enabled          boolean NOT NULL DEFAULT true,
    disabled_reason  text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT channel_scope CHECK (num_nonnulls(project, owner) <= 1),
    CONSTRAINT channel_name_per_scope UNIQUE NULLS NOT DISTINCT (name, project, owner),
    CONSTRAINT channel_secrets_sealed CHECK (klaxon.holds_no_secret(config))
);
CREATE INDEX channel_project_idx ON klaxon.channel (project) WHERE project IS NOT NULL;
COMMENT ON TABLE  klaxon.channel IS 'Where messages go: global (neither project nor owner), a project''s, or personal (an owner''s)';
COMMENT ON COLUMN klaxon.channel.id IS 'Identity';
COMMENT ON COLUMN klaxon.channel.name IS 'Unique within its scope';
COMMENT ON COLUMN klaxon.channel.kind IS 'webhook, email, slack, telegram, pagerduty or discord';
COMMENT ON COLUMN klaxon.channel.project IS 'The project it belongs to';
COMMENT ON COLUMN klaxon.channel.owner IS 'The principal it belongs to';
COMMENT ON COLUMN klaxon.channel.config IS 'Fields of its kind, at most 16 KiB; a secret reads as ••••••••, and writing that back keeps it';
COMMENT ON COLUMN klaxon.channel.enabled IS 'Whether events are matched to it and pending deliveries sent';
COMMENT ON COLUMN klaxon.channel.disabled_reason IS 'Why it was disabled';
COMMENT ON COLUMN klaxon.channel.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.channel.updated_at IS 'When the row was last changed';

CREATE TABLE klaxon.channel_secret (
    channel_id   bigint NOT NULL REFERENCES klaxon.channel ON DELETE CASCADE,
    field        text NOT NULL,
    sealed       text NOT NULL CHECK (sealed LIKE 'sealed:v1:%'),
    destination  text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel_id, field)
);
COMMENT ON TABLE  klaxon.channel_secret IS 'Channels'' secrets, sealed: only the worker''s private key opens them';
COMMENT ON COLUMN klaxon.channel_secret.channel_id IS 'The channel';
COMMENT ON COLUMN klaxon.channel_secret.field IS 'The field of its config, or headers.Name';
COMMENT ON COLUMN klaxon.channel_secret.sealed IS 'sealed:v1: and the base64 of a libsodium sealed box';
COMMENT ON COLUMN klaxon.channel_secret.destination IS 'Scheme, host and port the secret was given for; null where the secret itself says it';
COMMENT ON COLUMN klaxon.channel_secret.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.channel_secret.updated_at IS 'When the row was last changed';

CREATE TABLE klaxon.channel_state (
    channel_id        bigint PRIMARY KEY,
    failing_since     timestamptz,
    failures          bigint NOT NULL DEFAULT 0,
    last_success_at   timestamptz,
    last_failure_at   timestamptz,
    last_error        text
);
COMMENT ON TABLE  klaxon.channel_state IS 'How each channel has fared, written by the worker as it settles';
COMMENT ON COLUMN klaxon.channel_state.channel_id IS 'The channel';
COMMENT ON COLUMN klaxon.channel_state.failing_since IS 'First failure since the last success; null while it works';
COMMENT ON COLUMN klaxon.channel_state.failures IS 'Failed attempts since the last success';
COMMENT ON COLUMN klaxon.channel_state.last_success_at IS 'Last attempt that succeeded';
COMMENT ON COLUMN klaxon.channel_state.last_failure_at IS 'Last attempt that failed';
COMMENT ON COLUMN klaxon.channel_state.last_error IS 'What the last failed attempt said, sanitized';

CREATE TRIGGER touch BEFORE UPDATE ON klaxon.channel FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   channel

-- Who wants to hear of what, and where.
CREATE TABLE klaxon.default_subscription (
    id               bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    project          text NOT NULL REFERENCES klaxon.project ON UPDATE CASCADE ON DELETE CASCADE,
    events           text[] NOT NULL,
    filters          jsonb NOT NULL DEFAULT '{}',
    mode             text NOT NULL DEFAULT 'realtime' CHECK (mode IN ('realtime', 'digest')),
    digest_at        time,
    digest_timezone  text NOT NULL DEFAULT 'UTC',
    cooldown         interval NOT NULL DEFAULT '0' CHECK (cooldown BETWEEN '0' AND '1 year'),
    in_app           boolean NOT NULL DEFAULT false,
    channel_ids      bigint[] NOT NULL DEFAULT '{}',
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT default_subscription_digest CHECK (mode <> 'digest' OR digest_at IS NOT NULL)
);
COMMENT ON TABLE  klaxon.default_subscription IS 'Copied to each principal that becomes a member of the project; the copy is the principal''s own';
COMMENT ON COLUMN klaxon.default_subscription.id IS 'Identity';
COMMENT ON COLUMN klaxon.default_subscription.project IS 'The project whose new members get a copy';
COMMENT ON COLUMN klaxon.default_subscription.events IS 'As in klaxon.subscription';
COMMENT ON COLUMN klaxon.default_subscription.filters IS 'As in klaxon.subscription';
COMMENT ON COLUMN klaxon.default_subscription.mode IS 'As in klaxon.subscription';
COMMENT ON COLUMN klaxon.default_subscription.digest_at IS 'As in klaxon.subscription';
COMMENT ON COLUMN klaxon.default_subscription.digest_timezone IS 'As in klaxon.subscription';
COMMENT ON COLUMN klaxon.default_subscription.cooldown IS 'As in klaxon.subscription';
COMMENT ON COLUMN klaxon.default_subscription.in_app IS 'As in klaxon.subscription';
COMMENT ON COLUMN klaxon.default_subscription.channel_ids IS 'Channels of the copy: global ones or the project''s';
COMMENT ON COLUMN klaxon.default_subscription.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.default_subscription.updated_at IS 'When the row was last changed';

CREATE TABLE klaxon.subscription (
    id                       bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    owner                    text CHECK (length(owner) BETWEEN 1 AND 200),
    project                  text REFERENCES klaxon.project ON UPDATE CASCADE ON DELETE CASCADE,
    events                   text[] NOT NULL,
    filters                  jsonb NOT NULL DEFAULT '{}',
    mode                     text NOT NULL DEFAULT 'realtime' CHECK (mode IN ('realtime', 'digest')),
    digest_at                time,
    digest_timezone          text NOT NULL DEFAULT 'UTC',
    cooldown                 interval NOT NULL DEFAULT '0' CHECK (cooldown BETWEEN '0' AND '1 year'),
    muted_until              timestamptz,
    in_app                   boolean NOT NULL DEFAULT false,
    enabled                  boolean NOT NULL DEFAULT true,
    default_subscription_id  bigint REFERENCES klaxon.default_subscription ON DELETE SET NULL,
    created_at               timestamptz NOT NULL DEFAULT now(),
    updated_at               timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT subscription_digest CHECK (mode <> 'digest' OR digest_at IS NOT NULL)
);
CREATE INDEX subscription_project_idx ON klaxon.subscription (project);
CREATE INDEX subscription_owner_idx ON klaxon.subscription (owner);
CREATE UNIQUE INDEX subscription_default_idx ON klaxon.subscription (default_subscription_id, owner) WHERE default_subscription_id IS NOT NULL;
COMMENT ON TABLE  klaxon.subscription IS 'Who wants to hear of which events';
COMMENT ON COLUMN klaxon.subscription.id IS 'Identity';
COMMENT ON COLUMN klaxon.subscription.owner IS 'The principal it belongs to; null: shared, made by an administrator';
COMMENT ON COLUMN klaxon.subscription.project IS 'Events of this project only; null: of all projects';
COMMENT ON COLUMN klaxon.subscription.events IS 'Event types, by name or glob (run.*)';
COMMENT ON COLUMN klaxon.subscription.filters IS 'What else must hold of an event: see the list of filters; {} is everything';
COMMENT ON COLUMN klaxon.subscription.mode IS 'realtime, or digest: one message a day';
COMMENT ON COLUMN klaxon.subscription.digest_at IS 'Time of day a digest is due, in digest_timezone';
COMMENT ON COLUMN klaxon.subscription.digest_timezone IS 'A time zone name as in pg_timezone_names';
COMMENT ON COLUMN klaxon.subscription.cooldown IS 'Silence after a notification, per task_name; 0 is none, at most a year';
COMMENT ON COLUMN klaxon.subscription.muted_until IS 'Nothing matches before this time';
COMMENT ON COLUMN klaxon.subscription.in_app IS 'Whether matches go to the owner''s inbox too';
COMMENT ON COLUMN klaxon.subscription.enabled IS 'Whether it matches at all';
COMMENT ON COLUMN klaxon.subscription.default_subscription_id IS 'The default it was copied from';
COMMENT ON COLUMN klaxon.subscription.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.subscription.updated_at IS 'When the row was last changed';

CREATE TABLE klaxon.subscription_channel (
    subscription_id  bigint NOT NULL REFERENCES klaxon.subscription ON DELETE CASCADE,
    channel_id       bigint NOT NULL REFERENCES klaxon.channel ON DELETE CASCADE,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subscription_id, channel_id)
);
CREATE INDEX subscription_channel_channel_idx ON klaxon.subscription_channel (channel_id);
COMMENT ON TABLE  klaxon.subscription_channel IS 'Where a subscription''s matches are sent';
COMMENT ON COLUMN klaxon.subscription_channel.subscription_id IS 'The subscription';
COMMENT ON COLUMN klaxon.subscription_channel.channel_id IS 'A channel its owner may use';
COMMENT ON COLUMN klaxon.subscription_channel.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.subscription_channel.updated_at IS 'When the row was last changed';

-- The matcher asks "which subscriptions could an event of this type in this project reach?" once
-- per type, project and backend. This is that question's index: one row a pattern. It is derived,
-- so it is not in dumps; restoring subscriptions writes it again.
CREATE TABLE klaxon.subscription_pattern (
    pattern          text NOT NULL,
    is_glob          boolean NOT NULL,
    project          text,
    subscription_id  bigint NOT NULL REFERENCES klaxon.subscription ON DELETE CASCADE
);
CREATE INDEX subscription_pattern_name_idx ON klaxon.subscription_pattern (pattern, project, subscription_id) WHERE NOT is_glob;
CREATE INDEX subscription_pattern_glob_idx ON klaxon.subscription_pattern (project, subscription_id) WHERE is_glob;
CREATE INDEX subscription_pattern_subscription_idx ON klaxon.subscription_pattern (subscription_id);
COMMENT ON TABLE  klaxon.subscription_pattern IS 'subscription.events, one row a pattern, for the matcher to look up; written by trigger';
COMMENT ON COLUMN klaxon.subscription_pattern.pattern IS 'An event type or a glob';
COMMENT ON COLUMN klaxon.subscription_pattern.is_glob IS 'Whether pattern is a glob';
COMMENT ON COLUMN klaxon.subscription_pattern.project IS 'The subscription''s project';
COMMENT ON COLUMN klaxon.subscription_pattern.subscription_id IS 'The subscription';

CREATE FUNCTION klaxon.index_patterns() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Rights of the owner: nobody writes this table but through a subscription.
    DELETE FROM klaxon.subscription_pattern WHERE subscription_id = NEW.id;
    INSERT INTO klaxon.subscription_pattern (pattern, is_glob, project, subscription_id)
    SELECT DISTINCT pattern, pattern ~ '[*?\[]', NEW.project, NEW.id FROM unnest(NEW.events) AS pattern;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION klaxon.index_patterns() IS 'Trigger: keeps klaxon.subscription_pattern';
CREATE TRIGGER index_patterns AFTER INSERT OR UPDATE OF id, events, project ON klaxon.subscription
    FOR EACH ROW EXECUTE FUNCTION klaxon.index_patterns();

CREATE TRIGGER touch BEFORE UPDATE ON klaxon.subscription FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
CREATE TRIGGER touch BEFORE UPDATE ON klaxon.default_subscription FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
CREATE TRIGGER touch BEFORE UPDATE ON klaxon.subscription_channel FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   subscription

-- What is pending. One row a delivery, written by the matcher in the emitting transaction, deleted
-- by the worker that owns its shard when it is settled. No foreign keys: they would lock rows of
-- other tables for every delivery, and a row whose channel is gone is dead-lettered, not refused.
--
-- The worker finds rows in two ways, each without walking what is already settled: by `xid` what
-- became visible since its last snapshot, and by (channel_id, due_at, id) what it had no room for.
CREATE TABLE klaxon.outbox (
    id               uuid PRIMARY KEY,
    event_id         uuid,
    subscription_id  bigint,
    channel_id       bigint NOT NULL,
    due_at           timestamptz NOT NULL DEFAULT now(),
    created_at       timestamptz NOT NULL DEFAULT now(),
    xid              xid8 NOT NULL DEFAULT pg_current_xact_id(),
    attempts         integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    shard            smallint NOT NULL CHECK (shard BETWEEN 0 AND 63),
    replayed         boolean NOT NULL DEFAULT false,
    event_type       text NOT NULL,
    project          text,
    last_error       text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX outbox_xid_idx ON klaxon.outbox (xid);
CREATE INDEX outbox_backlog_idx ON klaxon.outbox (channel_id, due_at, id);
COMMENT ON TABLE  klaxon.outbox IS 'Deliveries that are pending';
COMMENT ON COLUMN klaxon.outbox.id IS 'The delivery id: webhook-id on every attempt';
COMMENT ON COLUMN klaxon.outbox.event_id IS 'The event; null for a digest';
COMMENT ON COLUMN klaxon.outbox.subscription_id IS 'The subscription that matched';
COMMENT ON COLUMN klaxon.outbox.channel_id IS 'Where it goes';
COMMENT ON COLUMN klaxon.outbox.due_at IS 'When the next attempt is due';
COMMENT ON COLUMN klaxon.outbox.created_at IS 'When the transaction that wrote it began';
COMMENT ON COLUMN klaxon.outbox.xid IS 'The transaction that wrote it';
COMMENT ON COLUMN klaxon.outbox.attempts IS 'Attempts made so far';
COMMENT ON COLUMN klaxon.outbox.shard IS 'Hash of the channel, 0 to 63; one worker at a time owns a shard';
COMMENT ON COLUMN klaxon.outbox.replayed IS 'Whether klaxon.replay() wrote it';
COMMENT ON COLUMN klaxon.outbox.event_type IS 'The event''s type, or digest';
COMMENT ON COLUMN klaxon.outbox.project IS 'The event''s project';
COMMENT ON COLUMN klaxon.outbox.last_error IS 'What the last attempt said, sanitized';

-- A dump carries the transaction ids of the cluster it was taken from, which mean nothing here.
CREATE FUNCTION klaxon.restamp() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    NEW.xid := pg_current_xact_id();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION klaxon.restamp() IS 'Trigger: gives restored deliveries a transaction id of this cluster';
CREATE TRIGGER restamp BEFORE INSERT ON klaxon.outbox
    FOR EACH ROW WHEN (NEW.xid <> pg_current_xact_id()) EXECUTE FUNCTION klaxon.restamp();

CREATE TABLE klaxon.digest_item (
    id               bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    subscription_id  bigint NOT NULL REFERENCES klaxon.subscription ON DELETE CASCADE,
    channel_id       bigint NOT NULL,
    event_id         uuid NOT NULL,
    due_at           timestamptz NOT NULL,
    delivery_id      uuid,
    created_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX digest_item_due_idx ON klaxon.digest_item (due_at, subscription_id, channel_id) WHERE delivery_id IS NULL;
CREATE INDEX digest_item_delivery_idx ON klaxon.digest_item (delivery_id) WHERE delivery_id IS NOT NULL;
CREATE INDEX digest_item_subscription_idx ON klaxon.digest_item (subscription_id);
COMMENT ON TABLE  klaxon.digest_item IS 'Events waiting for their digest';
COMMENT ON COLUMN klaxon.digest_item.id IS 'Identity';
COMMENT ON COLUMN klaxon.digest_item.subscription_id IS 'The subscription that matched';
COMMENT ON COLUMN klaxon.digest_item.channel_id IS 'Where the digest goes';
COMMENT ON COLUMN klaxon.digest_item.event_id IS 'The event';
COMMENT ON COLUMN klaxon.digest_item.due_at IS 'When the digest is due';
COMMENT ON COLUMN klaxon.digest_item.delivery_id IS 'The delivery that carries it, once its digest is on its way';
COMMENT ON COLUMN klaxon.digest_item.created_at IS 'When the row was written';

CREATE TABLE klaxon.dead_letter (
    id               uuid PRIMARY KEY,
    event_id         uuid,
    event_type       text NOT NULL,
    project          text,
    subscription_id  bigint,
    channel_id       bigint NOT NULL,
    due_at           timestamptz NOT NULL,
    attempts         integer NOT NULL,
    last_error       text,
    replayed         boolean NOT NULL DEFAULT false,
    created_at       timestamptz NOT NULL,
    dead_at          timestamptz NOT NULL DEFAULT now(),
    reason           text NOT NULL
);
CREATE INDEX dead_letter_channel_idx ON klaxon.dead_letter (channel_id, dead_at);
COMMENT ON TABLE  klaxon.dead_letter IS 'Deliveries given up; klaxon.retry_dead() puts them back';
COMMENT ON COLUMN klaxon.dead_letter.id IS 'The delivery id';
COMMENT ON COLUMN klaxon.dead_letter.event_id IS 'The event; null for a digest';
COMMENT ON COLUMN klaxon.dead_letter.event_type IS 'The event''s type, or digest';
COMMENT ON COLUMN klaxon.dead_letter.project IS 'The event''s project';
COMMENT ON COLUMN klaxon.dead_letter.subscription_id IS 'The subscription that matched';
COMMENT ON COLUMN klaxon.dead_letter.channel_id IS 'Where it was to go';
COMMENT ON COLUMN klaxon.dead_letter.due_at IS 'When its last attempt was due';
COMMENT ON COLUMN klaxon.dead_letter.attempts IS 'Attempts made';
COMMENT ON COLUMN klaxon.dead_letter.last_error IS 'What the last attempt said, sanitized';
COMMENT ON COLUMN klaxon.dead_letter.replayed IS 'Whether klaxon.replay() wrote it';
COMMENT ON COLUMN klaxon.dead_letter.created_at IS 'When the transaction that emitted it began';
COMMENT ON COLUMN klaxon.dead_letter.dead_at IS 'When it was given up';
COMMENT ON COLUMN klaxon.dead_letter.reason IS 'Why it was given up';

-- Cooldown is settled in two steps, so that emitters never wait for one another: the matcher drops
-- what is clearly inside a committed window and appends a row to `held_back`; the worker, which
-- owns the channel, adjudicates what passed and folds those rows into the next notification.
CREATE TABLE klaxon.cooldown (
    subscription_id  bigint NOT NULL REFERENCES klaxon.subscription ON DELETE CASCADE,
    task_name        text NOT NULL DEFAULT '',
    notified_at      timestamptz NOT NULL,
    event_id         uuid,
    PRIMARY KEY (subscription_id, task_name)
);
COMMENT ON TABLE  klaxon.cooldown IS 'When each subscription with a cooldown was last notified';
COMMENT ON COLUMN klaxon.cooldown.subscription_id IS 'The subscription';
COMMENT ON COLUMN klaxon.cooldown.task_name IS 'The task, empty for events without one';
COMMENT ON COLUMN klaxon.cooldown.notified_at IS 'When its last notification was allowed, by the database''s clock';
COMMENT ON COLUMN klaxon.cooldown.event_id IS 'The event that was notified: its deliveries to other channels are the same notification';

CREATE TABLE klaxon.held_back (
    subscription_id  bigint NOT NULL REFERENCES klaxon.subscription ON DELETE CASCADE,
    task_name        text NOT NULL DEFAULT '',
    events           bigint NOT NULL,
    held_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX held_back_idx ON klaxon.held_back (subscription_id, task_name);
COMMENT ON TABLE  klaxon.held_back IS 'Events a cooldown held back, to be told in the next notification';
COMMENT ON COLUMN klaxon.held_back.subscription_id IS 'The subscription';
COMMENT ON COLUMN klaxon.held_back.task_name IS 'The task, empty for events without one';
COMMENT ON COLUMN klaxon.held_back.events IS 'How many';
COMMENT ON COLUMN klaxon.held_back.held_at IS 'When';

-- A jsonpath that raises is the subscription's problem, not the application's: the event does not
-- match, and klaxon.status() says how often. Appended, so that emitters never wait for one another.
CREATE TABLE klaxon.filter_error (
    subscription_id  bigint NOT NULL REFERENCES klaxon.subscription ON DELETE CASCADE,
    events           bigint NOT NULL,
    failed_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX filter_error_idx ON klaxon.filter_error (subscription_id);
COMMENT ON TABLE  klaxon.filter_error IS 'Events whose filter "where" raised an error';
COMMENT ON COLUMN klaxon.filter_error.subscription_id IS 'The subscription';
COMMENT ON COLUMN klaxon.filter_error.events IS 'How many';
COMMENT ON COLUMN klaxon.filter_error.failed_at IS 'When';
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   project

-- The vocabulary of events. A name that is not here is a typo, and emitting it an error.
CREATE TABLE klaxon.event_type (
    name         text PRIMARY KEY
                 CHECK (length(name) BETWEEN 1 AND 100 AND name ~ '^[[:graph:]]+$' AND name !~ '["''`*?\[\]]'),
    description  text,
    severity     text CHECK (severity IN ('critical', 'error', 'warning', 'info')),
    resolves     text REFERENCES klaxon.event_type (name) ON UPDATE CASCADE CHECK (resolves <> name),
    built_in     boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  klaxon.event_type IS 'The types an event may have';
COMMENT ON COLUMN klaxon.event_type.name IS '1 to 100 printable characters without spaces, quotes or glob signs';
COMMENT ON COLUMN klaxon.event_type.description IS 'What happened when such an event is emitted';
COMMENT ON COLUMN klaxon.event_type.severity IS 'critical, error, warning or info; null lets the channel decide';
COMMENT ON COLUMN klaxon.event_type.resolves IS 'The type whose incident an event of this type ends';
COMMENT ON COLUMN klaxon.event_type.built_in IS 'Came with the extension; such a row may be edited but not deleted';
COMMENT ON COLUMN klaxon.event_type.created_at IS 'When the row was written';
COMMENT ON COLUMN klaxon.event_type.updated_at IS 'When the row was last changed';

INSERT INTO klaxon.event_type (name, description, severity, resolves, built_in) VALUES
    ('run.finished',              'A test run reached its end',                                       'info',     NULL, true),
    ('run.failed',                'A test run failed or has failed tests',                            'error',    NULL, true),
    ('run.failed.default_branch', 'A test run failed on the project''s default branch',               'error',    NULL, true),
    ('cluster.new',               'A failure signature was seen for the first time in a project',     'warning',  NULL, true),
    ('flakiness.spike',           'A finished run has flaky tests',                                   'warning',  NULL, true),
    ('perf.regression',           'A run took at least a fifth longer than the median of those before it', 'warning', NULL, true),
    ('task.failed',               'A task failed for good',                                           'error',    NULL, true),
    ('task.succeeded',            'A task succeeded',                                                 'info',     NULL, true),
    ('task.retried',              'A task failed and will be tried again',                            'warning',  NULL, true),
    ('task.slow',                 'A task has run longer than its budget',                            'warning',  NULL, true),
    ('agent.offline',             'An agent has been silent for longer than its timeout',             'critical', NULL, true),
    ('agent.online',              'An agent that was silent is back',                                 'info',     'agent.offline', true),
    ('channel.disabled',          'A channel was disabled because it only fails',                     'warning',  NULL, true),
    ('test.dispatch',             'Somebody tests a channel',                                         'info',     NULL, true);

CREATE FUNCTION klaxon.event_type_guard() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.built_in THEN
            RAISE EXCEPTION 'event type "%" is built in', OLD.name
                USING ERRCODE = '23001', HINT = 'Edit its severity or description, or leave it unused.';
        END IF;
        RETURN OLD;
    END IF;
    -- A dump carries the built-in types that were edited; the installation has already written them.
    IF NEW.built_in AND EXISTS (SELECT FROM klaxon.event_type WHERE name = NEW.name AND built_in) THEN
        UPDATE klaxon.event_type
        SET description = NEW.description, severity = NEW.severity, resolves = NEW.resolves
        WHERE name = NEW.name;
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION klaxon.event_type_guard() IS 'Trigger: keeps the built-in event types, and lets a dump restore what was edited of them';
CREATE TRIGGER guard_insert BEFORE INSERT ON klaxon.event_type FOR EACH ROW EXECUTE FUNCTION klaxon.event_type_guard();
CREATE TRIGGER guard_delete BEFORE DELETE ON klaxon.event_type FOR EACH ROW EXECUTE FUNCTION klaxon.event_type_guard();
CREATE TRIGGER touch BEFORE UPDATE ON klaxon.event_type FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::channel::check_public_key
CREATE  FUNCTION "check_public_key"(
	"key" TEXT /* & str */
) RETURNS bool /* bool */
IMMUTABLE STRICT
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'check_public_key_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::explain::explain_event
CREATE  FUNCTION "explain_event"(
	"r#type" TEXT, /* & str */
	"payload" jsonb DEFAULT '{}', /* Option < JsonB > */
	"project" TEXT DEFAULT NULL /* Option < & str > */
) RETURNS TABLE (
	"subscription_id" bigint,  /* i64 */
	"owner" TEXT,  /* Option < String > */
	"channel" TEXT,  /* Option < String > */
	"verdict" TEXT,  /* String */
	"reason" TEXT  /* String */
)
VOLATILE
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'explain_event_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::identity::principal
CREATE  FUNCTION "principal"() RETURNS TEXT /* String */
STRICT STABLE PARALLEL SAFE
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'principal_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::redeliver::replay
CREATE  FUNCTION "replay"(
	"channel" TEXT, /* & str */
	"since" timestamp with time zone, /* TimestampWithTimeZone */
	"until" timestamp with time zone DEFAULT now(), /* TimestampWithTimeZone */
	"events" TEXT[] DEFAULT NULL, /* :: std :: option :: Option < Vec < String > > */
	"dry_run" bool DEFAULT true /* bool */
) RETURNS bigint /* i64 */
VOLATILE
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'replay_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::redeliver::retry_dead
CREATE  FUNCTION "retry_dead"(
	"channel" TEXT DEFAULT NULL, /* Option < & str > */
	"since" timestamp with time zone DEFAULT NULL, /* Option < TimestampWithTimeZone > */
	"delivery_id" uuid DEFAULT NULL /* Option < pgrx :: Uuid > */
) RETURNS bigint /* i64 */
VOLATILE
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'retry_dead_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::identity::uuid_v7
CREATE  FUNCTION "uuid_v7"() RETURNS uuid /* pgrx :: Uuid */
STRICT VOLATILE PARALLEL SAFE
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'uuid_v7_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   event_type
--   identity::uuid_v7
--   identity::principal

-- What happened. Every way to emit ends in an INSERT here; the statement trigger `match_events`
-- does the rest. `type` has no foreign key: checking it in the trigger, once per statement and
-- type, costs nothing, and its error can list the types there are.
CREATE TABLE klaxon.event (
    id           uuid PRIMARY KEY DEFAULT klaxon.uuid_v7(),
    type         text NOT NULL,
    project      text,
    payload      jsonb NOT NULL DEFAULT '{}',
    dedup_key    text CHECK (length(dedup_key) BETWEEN 1 AND 500),
    occurred_at  timestamptz NOT NULL DEFAULT now() CHECK (isfinite(occurred_at)),
    emitted_by   text NOT NULL DEFAULT klaxon.principal(),
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX event_dedup_idx ON klaxon.event (type, project, dedup_key) NULLS NOT DISTINCT WHERE dedup_key IS NOT NULL;
COMMENT ON TABLE  klaxon.event IS 'What happened; inserting here is emitting';
COMMENT ON COLUMN klaxon.event.id IS 'UUID version 7';
COMMENT ON COLUMN klaxon.event.type IS 'A name in klaxon.event_type';
COMMENT ON COLUMN klaxon.event.project IS 'The project it happened in; need not be in klaxon.project';
COMMENT ON COLUMN klaxon.event.payload IS 'Anything; some fields have a meaning. At most klaxon.max_payload_bytes';
COMMENT ON COLUMN klaxon.event.dedup_key IS 'A second event with the same key, type and project is not inserted';
COMMENT ON COLUMN klaxon.event.occurred_at IS 'When it happened';
COMMENT ON COLUMN klaxon.event.emitted_by IS 'klaxon.principal() of the emitter';
COMMENT ON COLUMN klaxon.event.created_at IS 'Start of the emitting transaction. A row with another time is history being restored and is not matched';

-- Waits for another emitter only where both use the same key: the lock is the key's own.
CREATE FUNCTION klaxon.skip_known_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Rights of the owner: an emitter may not read other people's events, and need not.
    PERFORM pg_advisory_xact_lock(hashtextextended(concat_ws(E'\x01', NEW.type, NEW.project IS NULL, NEW.project, NEW.dedup_key), 7305));
    IF EXISTS (SELECT FROM klaxon.event AS e
               WHERE e.type = NEW.type AND e.project IS NOT DISTINCT FROM NEW.project AND e.dedup_key = NEW.dedup_key) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION klaxon.skip_known_event() IS 'Trigger: drops an event whose dedup_key is known';
CREATE TRIGGER skip_known_event BEFORE INSERT ON klaxon.event
    FOR EACH ROW WHEN (NEW.dedup_key IS NOT NULL) EXECUTE FUNCTION klaxon.skip_known_event();
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::identity::version
CREATE  FUNCTION "version"() RETURNS TEXT /* & '_ str */
IMMUTABLE STRICT PARALLEL SAFE
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'version_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::channel::begin_channels
CREATE FUNCTION "begin_channels"()
	RETURNS TRIGGER
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'begin_channels_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::subscription::check_subscription
CREATE FUNCTION "check_subscription"()
	RETURNS TRIGGER
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'check_subscription_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::relcache::configuration_changed
CREATE FUNCTION "configuration_changed"()
	RETURNS TRIGGER
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'configuration_changed_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::channel::mask_channel
CREATE FUNCTION "mask_channel"()
	RETURNS TRIGGER
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'mask_channel_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::emit::match_events
CREATE FUNCTION "match_events"()
	RETURNS TRIGGER
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'match_events_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- pg_klaxon::channel::seal_channel
CREATE FUNCTION "seal_channel"()
	RETURNS TRIGGER
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'seal_channel_wrapper';
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   event
--   outbox
--   inbox
--   worker
--   emit::match_events
--   relcache::configuration_changed
--   channel::begin_channels
--   channel::mask_channel
--   channel::seal_channel
--   subscription::check_subscription

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
CREATE TRIGGER mask_channel BEFORE INSERT OR UPDATE OF kind, config, name, project, owner ON klaxon.channel
    FOR EACH ROW EXECUTE FUNCTION klaxon.mask_channel();
CREATE TRIGGER seal_channel_new AFTER INSERT ON klaxon.channel
    FOR EACH ROW EXECUTE FUNCTION klaxon.seal_channel();
CREATE TRIGGER seal_channel_changed AFTER UPDATE OF kind, config, name, project, owner ON klaxon.channel
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
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   trigger
--   delivery
--   agent
--   channel::check_public_key

-- What applications and administrators call.

CREATE FUNCTION klaxon.known_event(event_type text, event_project text, event_dedup_key text) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
    -- Rights of the owner: an emitter may not read events, but may learn the id of what it repeats.
    SELECT id FROM klaxon.event
    WHERE type = event_type AND project IS NOT DISTINCT FROM event_project AND dedup_key = event_dedup_key
$$;
COMMENT ON FUNCTION klaxon.known_event(text, text, text) IS 'The id of the event with this type, project and dedup_key';

-- VOLATILE and with the caller's rights: it is an INSERT, and who may insert may call it.
CREATE FUNCTION klaxon.notify_event(
    type text, payload jsonb DEFAULT '{}', project text DEFAULT NULL,
    dedup_key text DEFAULT NULL, occurred_at timestamptz DEFAULT now()
) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    event_id uuid := klaxon.uuid_v7();
BEGIN
    IF notify_event.type IS NULL THEN
        RAISE EXCEPTION 'type is null' USING ERRCODE = '22004', HINT = 'Name one of the types in klaxon.event_type.';
    END IF;
    INSERT INTO klaxon.event (id, type, payload, project, dedup_key, occurred_at)
    VALUES (event_id, notify_event.type, coalesce(notify_event.payload, '{}'), notify_event.project,
            notify_event.dedup_key, coalesce(notify_event.occurred_at, now()));
    IF NOT FOUND THEN
        RETURN klaxon.known_event(notify_event.type, notify_event.project, notify_event.dedup_key);
    END IF;
    RETURN event_id;
END
$$;
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

-- The next time it is digest_at in the subscription's time zone. AT TIME ZONE moves a time that a
-- daylight-saving change skips to the next one that exists, and takes one that exists twice once.
CREATE FUNCTION klaxon.digest_due(digest_at time, digest_timezone text, at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT min(due) FROM (
        SELECT ((at AT TIME ZONE digest_timezone)::date + day + digest_at) AT TIME ZONE digest_timezone AS due
        FROM generate_series(0, 2) AS day
    ) AS days
    WHERE due > at
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
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   trigger

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
    IF NOT EXISTS (SELECT FROM pg_timezone_names WHERE name = NEW.digest_timezone) THEN
        RAISE EXCEPTION 'unknown digest_timezone "%"', NEW.digest_timezone
            USING ERRCODE = '22023', HINT = 'SELECT name FROM pg_timezone_names lists them.';
    END IF;
    IF TG_TABLE_NAME = 'subscription' AND NEW.created_at = now() THEN
        IF NEW.owner IS NOT NULL AND NEW.project IS NOT NULL
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
-- pg_timezone_names reads the disk, so it is asked only when the answer may have changed.
CREATE TRIGGER check_owner_new BEFORE INSERT ON klaxon.subscription FOR EACH ROW EXECUTE FUNCTION klaxon.check_owner();
CREATE TRIGGER check_owner_changed BEFORE UPDATE OF owner, project, digest_timezone, in_app ON klaxon.subscription
    FOR EACH ROW EXECUTE FUNCTION klaxon.check_owner();
CREATE TRIGGER check_owner BEFORE INSERT OR UPDATE OF digest_timezone ON klaxon.default_subscription
    FOR EACH ROW EXECUTE FUNCTION klaxon.check_owner();

CREATE FUNCTION klaxon.check_channel_use() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    s klaxon.subscription;
    c klaxon.channel;
BEGIN
    SELECT * INTO s FROM klaxon.subscription WHERE id = NEW.subscription_id;
    SELECT * INTO c FROM klaxon.channel WHERE id = NEW.channel_id;
    -- What does not exist is the foreign keys' to refuse; what a dump brings was allowed once.
    IF s.id IS NULL OR c.id IS NULL OR NEW.created_at <> now() OR num_nonnulls(c.owner, c.project) = 0 THEN
        RETURN NEW;
    END IF;
    IF c.owner IS NOT NULL AND c.owner IS DISTINCT FROM s.owner THEN
        RAISE EXCEPTION 'channel "%" is another principal''s', c.name
            USING ERRCODE = '42501', HINT = 'A personal channel is for its owner''s own subscriptions.';
    END IF;
    IF c.project IS NOT NULL THEN
        IF s.project IS NOT NULL AND s.project <> c.project OR s.project IS NULL AND s.owner IS NULL THEN
            RAISE EXCEPTION 'channel "%" belongs to project "%"', c.name, c.project
                USING ERRCODE = '42501', HINT = 'Subscribe with that project, or use a global channel.';
        END IF;
        IF s.owner IS NOT NULL AND NOT klaxon.is_member(c.project, s.owner) THEN
            RAISE EXCEPTION 'principal "%" is not a member of project "%", whose channel "%" is', s.owner, c.project, c.name
                USING ERRCODE = '42501', HINT = 'An administrator can INSERT the principal into klaxon.member.';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION klaxon.check_channel_use() IS 'Trigger: a subscription uses only channels its owner may use';
CREATE TRIGGER check_channel_use BEFORE INSERT OR UPDATE ON klaxon.subscription_channel
    FOR EACH ROW EXECUTE FUNCTION klaxon.check_channel_use();

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
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   emit
--   membership
--   explain::explain_event
--   redeliver::retry_dead
--   redeliver::replay

-- Rights. PUBLIC has nothing; the five group roles have what is written here, and row-level
-- security narrows it to the rows that are theirs. created_at is nobody's to write: a row that
-- says it was made in another transaction counts as restored from a dump.
REVOKE ALL ON ALL TABLES IN SCHEMA klaxon FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA klaxon FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA klaxon FROM PUBLIC;

GRANT EXECUTE ON FUNCTION klaxon.version(), klaxon.principal(), klaxon.uuid_v7()
    TO klaxon_emitter, klaxon_user, klaxon_app, klaxon_admin, klaxon_worker;
GRANT EXECUTE ON FUNCTION klaxon.notify_event(text, jsonb, text, text, timestamptz), klaxon.known_event(text, text, text)
    TO klaxon_emitter, klaxon_admin;
GRANT EXECUTE ON FUNCTION
    klaxon.is_member(text, text), klaxon.is_project_admin(text, text), klaxon.owns_subscription(bigint, text),
    klaxon.holds_no_secret(jsonb), klaxon.channel_named(text, text, text),
    klaxon.subscribe(text[], text[], text, jsonb, text, time, text, interval, boolean, text),
    klaxon.mute(bigint, timestamptz), klaxon.unmute(bigint), klaxon.mark_read(bigint[]), klaxon.unread_count(),
    klaxon.digest_due(time, text, timestamptz), klaxon.check_public_key(text), klaxon.explain_event(text, jsonb, text),
    klaxon.retry_dead(text, timestamptz, uuid), klaxon.replay(text, timestamptz, timestamptz, text[], boolean)
    TO klaxon_user, klaxon_app, klaxon_admin;

-- Emitters.
GRANT INSERT (id, type, project, payload, dedup_key, occurred_at), SELECT (id) ON klaxon.event TO klaxon_emitter, klaxon_admin;

-- Users, and applications acting for them.
GRANT SELECT ON klaxon.project, klaxon.member, klaxon.event_type, klaxon.channel, klaxon.channel_state, klaxon.subscription,
    klaxon.subscription_channel, klaxon.default_subscription, klaxon.event, klaxon.inbox, klaxon.agent, klaxon.outbox,
    klaxon.digest_item, klaxon.dead_letter, klaxon.delivery
    TO klaxon_user, klaxon_app, klaxon_admin;
GRANT INSERT (name, kind, project, owner, config, enabled), UPDATE (name, kind, project, owner, config, enabled, disabled_reason), DELETE
    ON klaxon.channel TO klaxon_user, klaxon_app, klaxon_admin;
GRANT INSERT (owner, project, events, filters, mode, digest_at, digest_timezone, cooldown, muted_until, in_app, enabled),
      UPDATE (owner, project, events, filters, mode, digest_at, digest_timezone, cooldown, muted_until, in_app, enabled), DELETE
    ON klaxon.subscription TO klaxon_user, klaxon_app, klaxon_admin;
GRANT INSERT (subscription_id, channel_id), UPDATE (subscription_id, channel_id), DELETE
    ON klaxon.subscription_channel TO klaxon_user, klaxon_app, klaxon_admin;
GRANT INSERT (project, events, filters, mode, digest_at, digest_timezone, cooldown, in_app, channel_ids),
      UPDATE (project, events, filters, mode, digest_at, digest_timezone, cooldown, in_app, channel_ids), DELETE
    ON klaxon.default_subscription TO klaxon_user, klaxon_app, klaxon_admin;
GRANT UPDATE (read_at) ON klaxon.inbox TO klaxon_user, klaxon_app, klaxon_admin;

-- Administrators.
GRANT SELECT ON klaxon.worker, klaxon.deployment, klaxon.cooldown, klaxon.held_back, klaxon.filter_error, klaxon.audit_head TO klaxon_admin;
GRANT INSERT (slug, name, url, default_branch), UPDATE (slug, name, url, default_branch), DELETE ON klaxon.project TO klaxon_admin;
GRANT INSERT (project, principal, role), UPDATE (project, principal, role), DELETE ON klaxon.member TO klaxon_admin;
GRANT INSERT (name, description, severity, resolves), UPDATE (name, description, severity, resolves), DELETE ON klaxon.event_type TO klaxon_admin;
GRANT INSERT (project, agent_id, name, timeout, last_seen_at, online), UPDATE (name, timeout, last_seen_at, online), DELETE ON klaxon.agent TO klaxon_admin;

-- The worker: what it reads to deliver, and what it writes to settle.
GRANT SELECT ON klaxon.project, klaxon.event_type, klaxon.event, klaxon.channel, klaxon.channel_secret, klaxon.subscription,
    klaxon.subscription_channel, klaxon.deployment, klaxon.member TO klaxon_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON klaxon.outbox, klaxon.digest_item, klaxon.dead_letter, klaxon.channel_state,
    klaxon.cooldown, klaxon.held_back, klaxon.filter_error, klaxon.worker TO klaxon_worker;
GRANT SELECT, INSERT ON klaxon.delivery TO klaxon_worker;
GRANT SELECT, INSERT, UPDATE ON klaxon.audit_head TO klaxon_worker;
GRANT INSERT (id, type, project, payload, dedup_key, occurred_at) ON klaxon.event TO klaxon_worker;
GRANT UPDATE (enabled, disabled_reason) ON klaxon.channel TO klaxon_worker;
GRANT UPDATE (sealed) ON klaxon.channel_secret TO klaxon_worker;
GRANT SELECT, UPDATE (online, last_seen_at) ON klaxon.agent TO klaxon_worker;
GRANT USAGE ON SEQUENCE klaxon.digest_item_id_seq TO klaxon_worker;

DO $$
DECLARE
    guarded text;
BEGIN
    FOREACH guarded IN ARRAY ARRAY[
        'project', 'member', 'event_type', 'channel', 'channel_secret', 'channel_state', 'subscription', 'subscription_channel',
        'subscription_pattern', 'default_subscription', 'event', 'inbox', 'agent', 'outbox', 'digest_item', 'dead_letter',
        'cooldown', 'held_back', 'filter_error', 'delivery', 'audit_head', 'worker', 'deployment'
    ] LOOP
        EXECUTE pg_catalog.format('ALTER TABLE klaxon.%I ENABLE ROW LEVEL SECURITY', guarded);
        EXECUTE pg_catalog.format('CREATE POLICY worker ON klaxon.%I TO klaxon_worker USING (true) WITH CHECK (true)', guarded);
        EXECUTE pg_catalog.format('CREATE POLICY admin ON klaxon.%I TO klaxon_admin USING (true) WITH CHECK (true)', guarded);
    END LOOP;
END
$$;

CREATE POLICY emit ON klaxon.event FOR INSERT TO klaxon_emitter WITH CHECK (true);
CREATE POLICY emitted ON klaxon.event FOR SELECT TO klaxon_emitter USING (emitted_by = klaxon.principal());
CREATE POLICY readable ON klaxon.event FOR SELECT TO klaxon_user, klaxon_app USING (klaxon.is_member(project, klaxon.principal()));

CREATE POLICY readable ON klaxon.project FOR SELECT TO klaxon_user, klaxon_app USING (klaxon.is_member(slug, klaxon.principal()));
CREATE POLICY readable ON klaxon.member FOR SELECT TO klaxon_user, klaxon_app USING (klaxon.is_member(project, klaxon.principal()));
CREATE POLICY readable ON klaxon.event_type FOR SELECT TO klaxon_user, klaxon_app, klaxon_emitter USING (true);
CREATE POLICY readable ON klaxon.agent FOR SELECT TO klaxon_user, klaxon_app USING (klaxon.is_member(project, klaxon.principal()));

CREATE POLICY readable ON klaxon.channel FOR SELECT TO klaxon_user, klaxon_app
    USING (num_nonnulls(owner, project) = 0 OR owner = klaxon.principal() OR klaxon.is_member(project, klaxon.principal()));
CREATE POLICY insertable ON klaxon.channel FOR INSERT TO klaxon_user, klaxon_app
    WITH CHECK (owner = klaxon.principal() OR klaxon.is_project_admin(project, klaxon.principal()));
CREATE POLICY updatable ON klaxon.channel FOR UPDATE TO klaxon_user, klaxon_app
    USING (owner = klaxon.principal() OR klaxon.is_project_admin(project, klaxon.principal()))
    WITH CHECK (owner = klaxon.principal() OR klaxon.is_project_admin(project, klaxon.principal()));
CREATE POLICY deletable ON klaxon.channel FOR DELETE TO klaxon_user, klaxon_app
    USING (owner = klaxon.principal() OR klaxon.is_project_admin(project, klaxon.principal()));
CREATE POLICY readable ON klaxon.channel_state FOR SELECT TO klaxon_user, klaxon_app
    USING (EXISTS (SELECT FROM klaxon.channel AS c WHERE c.id = channel_id));

CREATE POLICY own ON klaxon.subscription TO klaxon_user, klaxon_app
    USING (owner = klaxon.principal()) WITH CHECK (owner = klaxon.principal());
CREATE POLICY own ON klaxon.subscription_channel TO klaxon_user, klaxon_app
    USING (klaxon.owns_subscription(subscription_id, klaxon.principal()))
    WITH CHECK (klaxon.owns_subscription(subscription_id, klaxon.principal()));
CREATE POLICY readable ON klaxon.default_subscription FOR SELECT TO klaxon_user, klaxon_app
    USING (klaxon.is_member(project, klaxon.principal()));
CREATE POLICY managed ON klaxon.default_subscription TO klaxon_user, klaxon_app
    USING (klaxon.is_project_admin(project, klaxon.principal()))
    WITH CHECK (klaxon.is_project_admin(project, klaxon.principal()));

CREATE POLICY own ON klaxon.inbox TO klaxon_user, klaxon_app
    USING (principal = klaxon.principal()) WITH CHECK (principal = klaxon.principal());
CREATE POLICY own ON klaxon.outbox FOR SELECT TO klaxon_user, klaxon_app
    USING (klaxon.owns_subscription(subscription_id, klaxon.principal()));
CREATE POLICY own ON klaxon.digest_item FOR SELECT TO klaxon_user, klaxon_app
    USING (klaxon.owns_subscription(subscription_id, klaxon.principal()));
CREATE POLICY own ON klaxon.dead_letter FOR SELECT TO klaxon_user, klaxon_app
    USING (klaxon.owns_subscription(subscription_id, klaxon.principal()));
CREATE POLICY own ON klaxon.delivery FOR SELECT TO klaxon_user, klaxon_app
    USING (klaxon.owns_subscription(subscription_id, klaxon.principal()));
/* </end connected objects> */

/* <begin connected objects> */
-- requires:
--   policy

-- finalize
-- What pg_dump carries: everything users wrote and everything that is pending. Derived rows
-- (subscription_pattern) and living ones (worker) are written anew.
SELECT pg_catalog.pg_extension_config_dump('klaxon.project', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.member', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.event_type', 'WHERE NOT built_in OR updated_at <> created_at');
SELECT pg_catalog.pg_extension_config_dump('klaxon.channel', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.channel_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.channel_secret', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.channel_state', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.default_subscription', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.default_subscription_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.subscription', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.subscription_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.subscription_channel', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.event', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.outbox', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.digest_item', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.digest_item_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.dead_letter', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.cooldown', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.held_back', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.filter_error', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.delivery', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.audit_head', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.inbox', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.inbox_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.agent', '');
SELECT pg_catalog.pg_extension_config_dump('klaxon.deployment', '');
/* </end connected objects> */

