-- A test message through the real worker. For a saved channel it is a delivery like any other, of an event
-- that is matched by nobody: what the log says of it is the answer.
CREATE TABLE klaxon.channel_test (
    delivery_id   uuid PRIMARY KEY,
    channel_id    bigint,
    principal     text NOT NULL,
    requested_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX channel_test_principal_idx ON klaxon.channel_test (principal, requested_at);
COMMENT ON TABLE  klaxon.channel_test IS 'Tests, to bound them: while a worker runs, those of the last minute or two';
COMMENT ON COLUMN klaxon.channel_test.delivery_id IS 'The delivery';
COMMENT ON COLUMN klaxon.channel_test.channel_id IS 'The channel; null for a configuration that is not saved';
COMMENT ON COLUMN klaxon.channel_test.principal IS 'Who asked for it';
COMMENT ON COLUMN klaxon.channel_test.requested_at IS 'When';

-- A configuration that is not saved: the worker takes it from here, and nothing of it is logged.
CREATE TABLE klaxon.config_test (
    id             uuid PRIMARY KEY,
    kind           text NOT NULL,
    config         jsonb NOT NULL CONSTRAINT config_test_secrets_sealed CHECK (klaxon.holds_no_secret(config)),
    fields         text[] NOT NULL,
    sealed         text[] NOT NULL,
    requested_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    taken_at       timestamptz,
    answered_at    timestamptz,
    success        boolean,
    status_code    integer,
    error          text,
    response_body  text
);
COMMENT ON TABLE  klaxon.config_test IS 'Tests of configurations that are not saved, until they are answered: while a worker runs, for a minute or two';
COMMENT ON COLUMN klaxon.config_test.id IS 'Identity';
COMMENT ON COLUMN klaxon.config_test.kind IS 'As in klaxon.channel';
COMMENT ON COLUMN klaxon.config_test.config IS 'As in klaxon.channel';
COMMENT ON COLUMN klaxon.config_test.fields IS 'The fields that are secret';
COMMENT ON COLUMN klaxon.config_test.sealed IS 'What they hold, sealed';
COMMENT ON COLUMN klaxon.config_test.requested_at IS 'When it was asked for';
COMMENT ON COLUMN klaxon.config_test.taken_at IS 'When a worker took it';
COMMENT ON COLUMN klaxon.config_test.answered_at IS 'When it was answered';
COMMENT ON COLUMN klaxon.config_test.success IS 'Whether the message arrived';
COMMENT ON COLUMN klaxon.config_test.status_code IS 'As klaxon.delivery.response_code';
COMMENT ON COLUMN klaxon.config_test.error IS 'As klaxon.delivery.error';
COMMENT ON COLUMN klaxon.config_test.response_body IS 'As klaxon.delivery.response_body';

-- With the owner's rights.
CREATE FUNCTION klaxon.count_channel_test(test uuid, tested bigint, by text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Two at once would each count nine.
    PERFORM pg_advisory_xact_lock(hashtextextended(by, 7307));
    IF (SELECT count(*) FROM klaxon.channel_test AS t
        WHERE t.principal = by AND t.requested_at >= clock_timestamp() - interval '1 min') >= 10 THEN
        RAISE EXCEPTION 'principal "%" has tested channels 10 times within a minute', by
            USING ERRCODE = '53400', HINT = 'Wait a minute.';
    END IF;
    INSERT INTO klaxon.channel_test (delivery_id, channel_id, principal) VALUES (test, tested, by);
END
$$;
COMMENT ON FUNCTION klaxon.count_channel_test(uuid, bigint, text) IS 'Counts a test, and raises where there are too many';

-- With the owner's rights, which request_channel_test has taken by then: it has asked who calls, and
-- whether that may edit the channel.
CREATE FUNCTION klaxon.create_channel_test(tested bigint, by text) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    delivery uuid := klaxon.uuid_v7();
    event_id uuid := klaxon.uuid_v7();
    c klaxon.channel;
BEGIN
    PERFORM klaxon.count_channel_test(delivery, tested, by);
    SELECT * INTO STRICT c FROM klaxon.channel WHERE id = tested;
    -- Nothing is sent there, which is the answer.
    IF NOT c.enabled THEN
        RETURN delivery;
    END IF;
    -- Another transaction's time: such an event is kept and not matched.
    INSERT INTO klaxon.event (id, type, project, payload, emitted_by, created_at)
    VALUES (event_id, 'test.dispatch', c.project, jsonb_build_object('channel', c.name), by, now() - interval '1 us');
    INSERT INTO klaxon.outbox (id, event_id, event_type, project, channel_id, shard)
    VALUES (delivery, event_id, 'test.dispatch', c.project, c.id, c.id & 63);
    RETURN delivery;
END
$$;
COMMENT ON FUNCTION klaxon.create_channel_test(bigint, text) IS 'Writes the test delivery of a channel';
COMMENT ON FUNCTION klaxon.request_channel_test(text) IS 'Has a channel that one may edit tested; returns the delivery''s id';

CREATE FUNCTION klaxon.channel_test_answer(
    delivery uuid, OUT success boolean, OUT status_code integer, OUT error text, OUT response_body text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Rights of the owner: who tests a channel without a subscription of its own sees no attempts. Ids of
    -- deliveries cannot be guessed, and those of tests alone are answered.
    SELECT d.status = 'sent', d.response_code, d.error, d.response_body INTO success, status_code, error, response_body
    FROM klaxon.delivery AS d JOIN klaxon.channel_test AS t ON t.delivery_id = d.delivery_id
    WHERE d.delivery_id = channel_test_answer.delivery ORDER BY d.seq LIMIT 1;
    -- No attempt is made where a worker finds that none can be, and while the channel is disabled; if it was not before
    -- it was tested, the answer to the test may be what it is disabled for, and is on its way.
    IF NOT FOUND THEN
        SELECT false, coalesce(l.last_error, l.reason, 'channel is disabled') INTO success, error
        FROM klaxon.channel_test AS t
        LEFT JOIN klaxon.dead_letter AS l ON l.id = t.delivery_id
        LEFT JOIN klaxon.channel AS c ON c.id = t.channel_id AND NOT c.enabled AND c.updated_at < t.requested_at
        WHERE t.delivery_id = channel_test_answer.delivery AND (l.id IS NOT NULL OR c.id IS NOT NULL);
    END IF;
END
$$;
COMMENT ON FUNCTION klaxon.channel_test_answer(uuid) IS 'What came of a test; nulls where nothing has yet';

CREATE FUNCTION klaxon.end_channel_test(delivery uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Rights of the owner: a test is not kept as dead. Of the outbox nothing is taken here: a worker that settles would
    -- wait for whoever calls this and goes on. What nobody waits for any more, it gives up.
    DELETE FROM klaxon.dead_letter AS d
    USING klaxon.channel_test AS t
    WHERE d.id = end_channel_test.delivery AND t.delivery_id = d.id;
END
$$;
COMMENT ON FUNCTION klaxon.end_channel_test(uuid) IS 'Forgets a test that failed';

-- No SET here: a procedure with one may not commit, and what is not committed no worker sees. So every
-- name has its schema.
CREATE PROCEDURE klaxon.test_channel(
    channel text, INOUT success boolean DEFAULT NULL, INOUT status_code integer DEFAULT NULL,
    INOUT error text DEFAULT NULL, INOUT response_body text DEFAULT NULL
)
LANGUAGE plpgsql AS $$
DECLARE
    delivery pg_catalog.uuid := klaxon.request_channel_test(channel);
    until pg_catalog.timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => 15);
BEGIN
    COMMIT;
    LOOP
        SELECT a.success, a.status_code, a.error, a.response_body INTO success, status_code, error, response_body
        FROM klaxon.channel_test_answer(delivery) AS a;
        EXIT WHEN success IS NOT NULL OR pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) until;
        -- So that nothing waits for this transaction meanwhile.
        COMMIT;
        PERFORM pg_catalog.pg_sleep(0.05);
    END LOOP;
    IF success IS NULL THEN
        success := false;
        error := 'no worker has answered within 15 s';
    END IF;
    PERFORM klaxon.end_channel_test(delivery);
END
$$;
COMMENT ON PROCEDURE klaxon.test_channel(text, boolean, integer, text, text) IS
    'Sends a test message to a channel one may edit, through the worker, and says within 15 s what came of it; not within a transaction block; at most 10 a minute a principal';

-- With the owner's rights, which request_config_test has taken by then: it has checked and sealed it.
CREATE FUNCTION klaxon.create_config_test(kind text, config jsonb, fields text[], sealed text[], by text) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    test uuid := klaxon.uuid_v7();
BEGIN
    PERFORM klaxon.count_channel_test(test, NULL, by);
    INSERT INTO klaxon.config_test (id, kind, config, fields, sealed) VALUES (test, kind, config, fields, sealed);
    RETURN test;
END
$$;
COMMENT ON FUNCTION klaxon.create_config_test(text, jsonb, text[], text[], text) IS 'Writes a test of a configuration';
COMMENT ON FUNCTION klaxon.request_config_test(text, jsonb) IS 'Has a configuration tested that is not saved; returns the test''s id';

CREATE FUNCTION klaxon.config_test_answer(
    test uuid, OUT success boolean, OUT status_code integer, OUT error text, OUT response_body text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
    -- Rights of the owner: nobody reads the table. Ids of tests cannot be guessed.
    SELECT t.success, t.status_code, t.error, t.response_body FROM klaxon.config_test AS t WHERE t.id = config_test_answer.test
$$;
COMMENT ON FUNCTION klaxon.config_test_answer(uuid) IS 'What came of a test; nulls where nothing has yet';

CREATE FUNCTION klaxon.end_config_test(test uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
    -- Rights of the owner: as config_test_answer. What no worker has answered is left to the clock: a worker that takes it
    -- would wait for whoever calls this and goes on.
    DELETE FROM klaxon.config_test AS t WHERE t.id = end_config_test.test AND t.answered_at IS NOT NULL
$$;
COMMENT ON FUNCTION klaxon.end_config_test(uuid) IS 'Forgets a test that was answered';

-- Called by the worker's clock, alone: rows that a transaction of somebody's has deleted are rows that everybody waits for.
CREATE FUNCTION klaxon.tidy_tests() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    old timestamptz := clock_timestamp() - interval '1 min';
BEGIN
    -- Rights of the owner: what is done is the same whoever calls it.
    DELETE FROM klaxon.config_test AS t WHERE t.id IN (
        SELECT c.id FROM klaxon.config_test AS c WHERE c.requested_at < old FOR UPDATE SKIP LOCKED
    );
    DELETE FROM klaxon.outbox AS o USING klaxon.channel_test AS t
    WHERE t.requested_at < old AND o.channel_id = t.channel_id AND o.id = t.delivery_id;
    DELETE FROM klaxon.channel_test AS t WHERE t.requested_at < old;
    -- Also of tests that a dump brought. What is being put back is passed over.
    DELETE FROM klaxon.dead_letter AS d WHERE d.id IN (
        SELECT l.id FROM klaxon.dead_letter AS l
        WHERE l.event_type = 'test.dispatch' AND l.subscription_id IS NULL AND NOT l.replayed AND l.dead_at < old
        FOR UPDATE SKIP LOCKED
    );
END
$$;
COMMENT ON FUNCTION klaxon.tidy_tests() IS 'Forgets tests that are older than a minute, and what is left of their deliveries';

-- No SET here, as test_channel.
CREATE PROCEDURE klaxon.test_config(
    kind text, config jsonb, INOUT success boolean DEFAULT NULL, INOUT status_code integer DEFAULT NULL,
    INOUT error text DEFAULT NULL, INOUT response_body text DEFAULT NULL
)
LANGUAGE plpgsql AS $$
DECLARE
    test pg_catalog.uuid := klaxon.request_config_test(kind, config);
    until pg_catalog.timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => 15);
BEGIN
    COMMIT;
    LOOP
        SELECT a.success, a.status_code, a.error, a.response_body INTO success, status_code, error, response_body
        FROM klaxon.config_test_answer(test) AS a;
        EXIT WHEN success IS NOT NULL OR pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) until;
        COMMIT;
        PERFORM pg_catalog.pg_sleep(0.05);
    END LOOP;
    IF success IS NULL THEN
        success := false;
        error := 'no worker has answered within 15 s';
    END IF;
    PERFORM klaxon.end_config_test(test);
END
$$;
COMMENT ON PROCEDURE klaxon.test_config(text, jsonb, boolean, integer, text, text) IS
    'Sends a test message by a configuration that is not saved, through the worker, and says within 15 s what came of it; nothing is logged; not within a transaction block; at most 10 a minute a principal';
