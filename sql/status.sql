-- Is it working? For a person at a terminal: one function that answers at a glance, and views that
-- say where to look next. Nothing here is written to, and the worker needs none of it.

-- Empty in a sound log, so that counting what stands there reads nothing of the log itself.
CREATE INDEX delivery_unsealed_idx ON klaxon.delivery (seq) WHERE octet_length(mac) <> 32;

CREATE FUNCTION klaxon.status() RETURNS TABLE (item text, value text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    -- The library defines klaxon.wakeup, and this loads it into a session that has not yet needed it.
    library text := klaxon.version();
    -- Not now(): a session that watches from within one transaction must see the time pass.
    at timestamptz := clock_timestamp();
    wakeup_mode text := current_setting('klaxon.wakeup');
    deployed boolean := EXISTS (SELECT FROM klaxon.deployment WHERE id IS NOT NULL);
    alive bigint;
    outdated bigint;
    notified bigint;
    deaf bigint;
    pending bigint;
    oldest timestamptz;
    overdue timestamptz;
    dead bigint;
    died bigint;
    failing bigint;
    disabled bigint;
    sent bigint;
    failed bigint;
    last_sent timestamptz;
    head bigint;
    unsealed bigint;
    unrecorded bigint;
    raised bigint;
    skipped bigint;
    careful bigint;
    schema_version text := (SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'pg_klaxon');
    warned text[];
BEGIN
    -- Rights of the owner: it counts everybody's rows, since a user who waits for a message must
    -- learn that no worker runs; it shows the content of none, not even a channel's name.
    SELECT count(*), count(*) FILTER (WHERE w.version <> library), count(w.notified_at),
           -- It notifies itself when it starts, which takes a moment to arrive.
           count(*) FILTER (WHERE w.notified_at IS NULL AND w.started_at < at - interval '10 s')
    INTO alive, outdated, notified, deaf
    FROM klaxon.worker AS w WHERE w.heartbeat_at > at - interval '10 s';
    SELECT count(*), min(o.created_at), min(o.due_at) FILTER (WHERE o.due_at < at - interval '1 min')
    INTO pending, oldest, overdue FROM klaxon.outbox AS o;
    SELECT count(*), count(*) FILTER (WHERE d.dead_at > at - interval '1 h') INTO dead, died FROM klaxon.dead_letter AS d;
    SELECT count(s.failing_since), count(*) FILTER (WHERE NOT c.enabled) INTO failing, disabled
    FROM klaxon.channel AS c LEFT JOIN klaxon.channel_state AS s ON s.channel_id = c.id;
    SELECT count(*) FILTER (WHERE d.status = 'sent'), count(*) FILTER (WHERE d.status <> 'sent') INTO sent, failed
    FROM klaxon.delivery AS d WHERE d.kind = 'attempt' AND d.attempted_at > at - interval '1 h';
    SELECT d.attempted_at INTO last_sent
    FROM klaxon.delivery AS d WHERE d.kind = 'attempt' AND d.status = 'sent' ORDER BY d.seq DESC LIMIT 1;
    SELECT h.seq INTO head FROM klaxon.audit_head AS h;
    SELECT count(*) INTO unsealed FROM klaxon.delivery AS d WHERE octet_length(d.mac) <> 32;
    SELECT count(*) INTO unrecorded FROM klaxon.config_change AS c;
    SELECT coalesce(sum(f.events), 0) INTO raised FROM klaxon.filter_error AS f;
    -- As Record::careful_until in the worker has it.
    SELECT count(*) INTO careful FROM klaxon.shard AS s WHERE s.deaths >= 3 AND s.died_at > at - interval '5 min';
    SELECT count(*) INTO skipped FROM klaxon.watcher_error AS e WHERE e.failed_at > at - interval '1 h';

    warned := array_remove(ARRAY[
        CASE WHEN NOT deployed THEN 'the database belongs to no deployment: run "klaxon init"' END,
        CASE WHEN alive = 0 THEN 'no worker is alive: run "klaxon run"' END,
        CASE WHEN schema_version <> library THEN format('the schema is %s and the library %s: run "klaxon doctor"', schema_version, library) END,
        CASE WHEN outdated > 0 THEN format('%s of another version than the library, which is %s',
            CASE outdated WHEN 1 THEN '1 worker is' ELSE outdated || ' workers are' END, library) END,
        CASE WHEN deaf > 0 AND wakeup_mode <> 'poll' THEN format('no notification reaches %s, which poll%s: is there a pooler in between?',
            CASE deaf WHEN 1 THEN '1 worker' ELSE deaf || ' workers' END, CASE deaf WHEN 1 THEN 's' ELSE '' END) END,
        CASE WHEN disabled > 0 THEN CASE disabled WHEN 1 THEN '1 channel is' ELSE disabled || ' channels are' END || ' disabled' END,
        CASE WHEN failing > 0 THEN CASE failing WHEN 1 THEN '1 channel is' ELSE failing || ' channels are' END
            || ' failing: see klaxon.channel_health' END,
        CASE WHEN overdue IS NOT NULL THEN format('oldest pending is %s overdue', date_trunc('second', at - overdue)) END,
        CASE WHEN careful > 0 THEN format('workers keep ending in %s worked with care, one delivery at a time',
            CASE careful WHEN 1 THEN '1 shard, which is' ELSE careful || ' shards, which are' END) END,
        CASE WHEN died > 0 THEN format('%s died in the last hour: klaxon.retry_dead() puts them back',
            CASE died WHEN 1 THEN '1 delivery' ELSE died || ' deliveries' END) END,
        CASE WHEN skipped > 0 THEN format('%s of watched tables skipped in the last hour: see klaxon.watcher_error',
            CASE skipped WHEN 1 THEN '1 row' ELSE skipped || ' rows' END) END,
        CASE WHEN unsealed > 0 THEN format('%s not sealed: run "klaxon audit verify"',
            CASE unsealed WHEN 1 THEN '1 row of the audit log is' ELSE unsealed || ' rows of the audit log are' END) END
    ], NULL);

    RETURN QUERY VALUES
        ('workers', alive::text),
        ('pending', pending::text),
        ('oldest_pending', date_trunc('second', at - oldest)::text),
        ('dead', dead::text),
        ('failing_channels', failing::text),
        ('sent_last_hour', sent::text),
        ('failed_last_hour', failed::text),
        ('last_delivery', date_trunc('second', last_sent)::text),
        ('audit_seq', head::text),
        ('audit_unsealed', (unsealed + unrecorded)::text),
        ('wakeup', wakeup_mode || CASE
            WHEN wakeup_mode = 'poll' THEN ''
            WHEN alive = 0 THEN ', no worker listens'
            WHEN notified = alive THEN ', notifications arrive'
            WHEN notified = 0 THEN ', no notification has arrived'
            ELSE format(', notifications arrive at %s of %s workers', notified, alive)
        END),
        ('filter_errors', raised::text),
        ('warnings', array_to_string(warned, '; '));
END
$$;
COMMENT ON FUNCTION klaxon.status() IS
    'Is it working? Counts of everything, readable by every user, and warnings in words; null where there is nothing to tell';

-- The views run with the rights of who looks: row-level security leaves each the rows that are theirs.

CREATE VIEW klaxon.recent_deliveries WITH (security_invoker = true) AS
SELECT date_trunc('second', d.attempted_at) AS attempted_at, d.channel_name AS channel, d.channel_kind AS kind, d.event_type, d.project,
       d.attempt, d.status, d.response_code AS code, d.duration_ms AS ms, left(d.error, 80) AS error
FROM klaxon.delivery AS d
WHERE d.kind = 'attempt'
ORDER BY d.seq DESC
LIMIT 100;
COMMENT ON VIEW   klaxon.recent_deliveries IS 'The newest 100 attempts, newest first; all of them are in klaxon.delivery';
COMMENT ON COLUMN klaxon.recent_deliveries.attempted_at IS 'When the attempt was settled, to the second';
COMMENT ON COLUMN klaxon.recent_deliveries.channel IS 'The channel''s name at the time';
COMMENT ON COLUMN klaxon.recent_deliveries.kind IS 'The channel''s kind';
COMMENT ON COLUMN klaxon.recent_deliveries.event_type IS 'The event''s type, or digest';
COMMENT ON COLUMN klaxon.recent_deliveries.project IS 'The event''s project';
COMMENT ON COLUMN klaxon.recent_deliveries.attempt IS 'Counts from 1';
COMMENT ON COLUMN klaxon.recent_deliveries.status IS 'sent; failed: will be tried again; dead: given up';
COMMENT ON COLUMN klaxon.recent_deliveries.code IS 'HTTP status or SMTP reply code; null where there was no answer';
COMMENT ON COLUMN klaxon.recent_deliveries.ms IS 'Milliseconds from resolving the name to the last byte read';
COMMENT ON COLUMN klaxon.recent_deliveries.error IS 'What went wrong, its first 80 characters';

CREATE VIEW klaxon.channel_health WITH (security_invoker = true) AS
SELECT c.name, c.kind, c.project, c.owner, c.enabled, h.state, s.failing_since, left(s.last_error, 80) AS last_error,
       coalesce(o.deliveries, 0) AS pending, coalesce(d.deliveries, 0) AS dead
FROM klaxon.channel AS c
LEFT JOIN klaxon.channel_state AS s ON s.channel_id = c.id
LEFT JOIN (SELECT channel_id, count(*) AS deliveries FROM klaxon.outbox GROUP BY channel_id) AS o ON o.channel_id = c.id
LEFT JOIN (SELECT channel_id, count(*) AS deliveries FROM klaxon.dead_letter GROUP BY channel_id) AS d ON d.channel_id = c.id
CROSS JOIN LATERAL (SELECT CASE
    WHEN NOT c.enabled THEN 'disabled'
    WHEN s.failing_since IS NOT NULL THEN 'failing'
    WHEN s.last_success_at IS NOT NULL THEN 'working'
    ELSE 'unused'
END AS state) AS h
ORDER BY array_position(ARRAY['failing', 'disabled', 'working', 'unused'], h.state), c.name, c.project, c.owner;
COMMENT ON VIEW   klaxon.channel_health IS 'How each channel fares, those that fail first';
COMMENT ON COLUMN klaxon.channel_health.name IS 'The channel';
COMMENT ON COLUMN klaxon.channel_health.kind IS 'Its kind';
COMMENT ON COLUMN klaxon.channel_health.project IS 'The project it belongs to';
COMMENT ON COLUMN klaxon.channel_health.owner IS 'The principal it belongs to';
COMMENT ON COLUMN klaxon.channel_health.enabled IS 'Whether events are matched to it and pending deliveries sent';
COMMENT ON COLUMN klaxon.channel_health.state IS 'failing, disabled, working or unused: nothing has been sent there yet';
COMMENT ON COLUMN klaxon.channel_health.failing_since IS 'First failure since the last success; null while it works';
COMMENT ON COLUMN klaxon.channel_health.last_error IS 'What the last failed attempt said, its first 80 characters; it stays when the channel works again';
COMMENT ON COLUMN klaxon.channel_health.pending IS 'Deliveries that are pending; to a user those of its own subscriptions';
COMMENT ON COLUMN klaxon.channel_health.dead IS 'Deliveries given up; to a user those of its own subscriptions';

CREATE VIEW klaxon.pending WITH (security_invoker = true) AS
SELECT o.channel_id, c.name AS channel, c.kind, o.deliveries, o.oldest, o.next_try
FROM (
    SELECT channel_id, count(*) AS deliveries, min(created_at) AS oldest, min(due_at) AS next_try
    FROM klaxon.outbox GROUP BY channel_id
) AS o
LEFT JOIN klaxon.channel AS c ON c.id = o.channel_id
ORDER BY o.oldest, o.channel_id;
COMMENT ON VIEW   klaxon.pending IS 'What is pending, by channel, the oldest first; to a user that of its own subscriptions';
COMMENT ON COLUMN klaxon.pending.channel_id IS 'The channel';
COMMENT ON COLUMN klaxon.pending.channel IS 'Its name; null where the channel is gone';
COMMENT ON COLUMN klaxon.pending.kind IS 'Its kind';
COMMENT ON COLUMN klaxon.pending.deliveries IS 'How many deliveries';
COMMENT ON COLUMN klaxon.pending.oldest IS 'When the transaction that wrote the oldest began';
COMMENT ON COLUMN klaxon.pending.next_try IS 'When the next attempt is due';
