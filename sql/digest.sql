-- Digests: what was collected becomes one delivery a channel when it is due, and is put into words
-- when that is read.
COMMENT ON FUNCTION klaxon.known_timezone(text) IS 'That time zone, or UTC where the server knows none of that name';

CREATE FUNCTION klaxon.gather_digests() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    -- Items a call takes at most: bounds its time. A channel that has more gets several digests.
    most CONSTANT integer := 50000;
    at timestamptz := clock_timestamp();
    channels bigint[];
    items bigint[];
    gathered bigint;
BEGIN
    -- Rights of the owner: the worker writes no digest.
    -- One at a time, by a row that nobody else may lock, as anybody may an advisory lock: who comes second finds
    -- nothing, and looks again in a second.
    IF NOT EXISTS (SELECT FROM klaxon.digest_item AS i WHERE i.delivery_id IS NULL AND i.due_at <= at) THEN
        RETURN 0;
    END IF;
    PERFORM FROM klaxon.deployment FOR UPDATE SKIP LOCKED;
    IF NOT FOUND AND EXISTS (SELECT FROM klaxon.deployment) THEN
        RETURN 0;
    END IF;
    -- Of a channel all or nothing: those that do not fit have their turn in a second.
    channels := ARRAY(
        SELECT d.channel_id
        FROM (
            SELECT i.channel_id, row_number() OVER earliest AS place, sum(count(*)) OVER earliest AS items
            FROM klaxon.digest_item AS i
            WHERE i.delivery_id IS NULL AND i.due_at <= at
            GROUP BY i.channel_id
            WINDOW earliest AS (ORDER BY min(i.due_at), i.channel_id)
        ) AS d
        WHERE d.place = 1 OR d.items <= most
    );
    items := ARRAY(
        SELECT i.id FROM klaxon.digest_item AS i
        WHERE i.delivery_id IS NULL AND i.due_at <= at AND i.channel_id = ANY (channels)
        ORDER BY i.id LIMIT most
    );

    -- What nobody wants any more, or may have any more, or what cannot be sent: judged now, not when it
    -- happened.
    DELETE FROM klaxon.digest_item AS i
    WHERE i.id = ANY (items) AND NOT EXISTS (
        SELECT FROM klaxon.subscription AS s
        JOIN klaxon.subscription_channel AS u ON u.subscription_id = s.id
        JOIN klaxon.channel AS c ON c.id = u.channel_id
        CROSS JOIN klaxon.event AS e
        WHERE s.id = i.subscription_id AND s.enabled AND (s.muted_until IS NULL OR s.muted_until <= at)
          AND u.channel_id = i.channel_id AND c.enabled AND e.id = i.event_id
          AND (s.owner IS NULL OR e.project IS NULL
               OR NOT EXISTS (SELECT FROM klaxon.project AS p WHERE p.slug = e.project)
               OR EXISTS (SELECT FROM klaxon.member AS m WHERE m.project = e.project AND m.principal = s.owner))
    );

    WITH digest AS MATERIALIZED (
        SELECT klaxon.uuid_v7() AS id, c.channel_id FROM unnest(channels) AS c (channel_id)
    ), item AS (
        UPDATE klaxon.digest_item AS i SET delivery_id = d.id
        FROM digest AS d
        WHERE i.id = ANY (items) AND i.delivery_id IS NULL AND i.channel_id = d.channel_id
        RETURNING i.delivery_id, i.channel_id, i.subscription_id, i.event_id
    ), held AS (
        DELETE FROM klaxon.held_back AS h
        WHERE h.subscription_id IN (SELECT i.subscription_id FROM item AS i)
        RETURNING h.subscription_id, h.events
    ), told AS (
        SELECT s.delivery_id, sum(h.events) AS events
        FROM (SELECT DISTINCT i.delivery_id, i.subscription_id FROM item AS i) AS s
        JOIN held AS h ON h.subscription_id = s.subscription_id
        GROUP BY s.delivery_id
    )
    INSERT INTO klaxon.outbox (id, event_type, project, subscription_id, channel_id, shard, held_back)
    SELECT i.delivery_id, 'digest', CASE WHEN count(*) = count(e.project) AND min(e.project) = max(e.project) THEN min(e.project) END,
           min(i.subscription_id), i.channel_id, i.channel_id & 63, coalesce(min(t.events), 0)
    FROM item AS i
    JOIN klaxon.event AS e ON e.id = i.event_id
    LEFT JOIN told AS t ON t.delivery_id = i.delivery_id
    GROUP BY i.delivery_id, i.channel_id;
    GET DIAGNOSTICS gathered = ROW_COUNT;
    IF gathered > 0 AND current_setting('klaxon.wakeup', true) IS DISTINCT FROM 'poll' THEN
        PERFORM pg_notify('klaxon_outbox', '');
    END IF;
    RETURN gathered;
END
$$;
COMMENT ON FUNCTION klaxon.gather_digests() IS 'Makes one delivery a channel of the digest items that are due; returns how many deliveries';

COMMENT ON FUNCTION klaxon.is_link(text) IS 'Whether a text is a link that messages carry: http or https, a host, and no user before it';

-- Twenty payloads of 256 kB would be a message of 5 MB, which no receiver takes.
CREATE FUNCTION klaxon.digest_data(payload jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT CASE
        WHEN octet_length(payload::text) <= 8192 THEN payload
        ELSE '{"truncated": true}'::jsonb || coalesce((
            SELECT jsonb_object_agg(f.key, CASE WHEN jsonb_typeof(f.value) = 'string' THEN to_jsonb(left(f.value #>> '{}', 150)) ELSE f.value END)
            FROM jsonb_each(CASE WHEN jsonb_typeof(payload) = 'object' THEN payload ELSE '{}' END) AS f (key, value)
            WHERE f.key = ANY (ARRAY[
                'priority', 'task_id', 'task_name', 'queue', 'engine', 'state', 'exception', 'duration_ms', 'budget_ms', 'run_id', 'branch',
                'is_default_branch', 'status', 'total_tests', 'failed_tests', 'passed_tests', 'flaky_tests', 'flakiness_rate', 'regression_pct',
                'baseline_duration_ms', 'cluster_id', 'signature', 'sample_error', 'affected_cases', 'agent_id', 'agent_name', 'title', 'url'
            ]) AND (jsonb_typeof(f.value) = 'string' OR octet_length(f.value::text) <= 150)
        ), '{}')
    END
$$;
COMMENT ON FUNCTION klaxon.digest_data(jsonb) IS
    'A payload as a digest lists it: whole up to 8 kB, else its fields with a meaning, texts cut to 150 characters, and "truncated": true';

CREATE FUNCTION klaxon.digest_payload(delivery uuid, held_back bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    -- Two subscriptions of a channel may have collected the same event. Null where there is none.
    WITH happened AS MATERIALIZED (
        SELECT e.id, e.type, e.project, e.occurred_at
        FROM (SELECT DISTINCT i.event_id FROM klaxon.digest_item AS i WHERE i.delivery_id = digest_payload.delivery) AS i
        JOIN klaxon.event AS e ON e.id = i.event_id
    ), kind AS (
        SELECT h.type, h.project, count(*) AS events FROM happened AS h GROUP BY h.type, h.project
    )
    SELECT jsonb_build_object(
        'count', count(*),
        'held_back', digest_payload.held_back,
        'severity', (
            SELECT t.severity FROM kind AS k JOIN klaxon.event_type AS t ON t.name = k.type
            WHERE t.severity IS NOT NULL
            ORDER BY array_position(ARRAY['critical', 'error', 'warning', 'info'], t.severity) LIMIT 1
        ),
        'groups', (
            SELECT jsonb_agg(jsonb_build_object('type', g.type, 'project', g.project, 'count', g.events) ORDER BY g.events DESC, g.type, g.project)
            FROM (SELECT * FROM kind AS k ORDER BY k.events DESC, k.type, k.project LIMIT 50) AS g
        ),
        'events', (
            SELECT jsonb_agg(jsonb_build_object(
                'id', n.id, 'type', n.type, 'project', n.project,
                -- As a webhook says it: no zero where a fraction ends, no fraction where there is none.
                'timestamp', regexp_replace(to_char(n.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '\.?0+$', '') || 'Z',
                -- As its own message does.
                'url', CASE WHEN klaxon.is_link(e.payload ->> 'url') THEN e.payload ->> 'url' ELSE p.url END,
                'data', klaxon.digest_data(e.payload)
            ) ORDER BY n.occurred_at DESC, n.id DESC)
            FROM (SELECT * FROM happened AS h ORDER BY h.occurred_at DESC, h.id DESC LIMIT 20) AS n
            JOIN klaxon.event AS e ON e.id = n.id
            LEFT JOIN klaxon.project AS p ON p.slug = n.project
        )
    )
    FROM happened
    HAVING count(*) > 0
$$;
COMMENT ON FUNCTION klaxon.digest_payload(uuid, bigint) IS
    'What a digest says: its count, how many events cooldowns held back, the worst severity, counts by type and project (the 50 greatest), and its newest 20 events';
