-- What is kept, and for how long. Nothing goes by itself: an administrator calls this, or a timer.

CREATE FUNCTION klaxon.prune(events interval DEFAULT NULL, deliveries interval DEFAULT NULL, inbox interval DEFAULT NULL)
RETURNS TABLE (what text, rows bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Rights of the owner: nobody else may change the audit log. Only administrators may call it.
    IF prune.events < '0' OR prune.deliveries < '0' OR prune.inbox < '0' THEN
        RAISE EXCEPTION 'an age to keep is negative' USING ERRCODE = '22023', HINT = 'Give how old a row may become, such as ''90 days''.';
    END IF;

    -- What nobody has put back for as long as attempts are kept.
    what := 'dead_letter';
    DELETE FROM klaxon.dead_letter AS d WHERE d.dead_at < now() - prune.deliveries;
    GET DIAGNOSTICS rows = ROW_COUNT;
    RETURN NEXT;

    -- An event is what a delivery is rendered from: while one may still be sent, the event stays.
    what := 'event';
    DELETE FROM klaxon.event AS e
    WHERE e.created_at < now() - prune.events
      AND NOT EXISTS (SELECT FROM klaxon.outbox AS o WHERE o.event_id = e.id)
      AND NOT EXISTS (SELECT FROM klaxon.digest_item AS i WHERE i.event_id = e.id)
      AND NOT EXISTS (SELECT FROM klaxon.dead_letter AS d WHERE d.event_id = e.id);
    GET DIAGNOSTICS rows = ROW_COUNT;
    RETURN NEXT;

    -- The chain covers a body by its hash alone, so that blanking one breaks no seal.
    what := 'delivery.response_body';
    UPDATE klaxon.delivery AS d SET response_body = NULL
    WHERE d.attempted_at < now() - prune.deliveries AND d.response_body IS NOT NULL;
    GET DIAGNOSTICS rows = ROW_COUNT;
    RETURN NEXT;

    what := 'inbox';
    DELETE FROM klaxon.inbox AS i WHERE i.created_at < now() - prune.inbox;
    GET DIAGNOSTICS rows = ROW_COUNT;
    RETURN NEXT;

    -- A chain may begin after its first row only where a sealed record says which MAC came before. Only
    -- the worker has the key to write one: it removes rows and writes it, soon, up to a checkpoint.
    what := 'delivery';
    -- Where all of it is older, to a checkpoint that it writes first.
    SELECT coalesce(max(c.seq) - min(f.seq) + 1, 0) INTO rows
    FROM (SELECT min(d.seq) AS seq, max(d.seq) AS last FROM klaxon.delivery AS d) AS f
    JOIN klaxon.delivery AS c ON (c.kind = 'checkpoint' OR c.seq = f.last) AND c.attempted_at < now() - prune.deliveries AND c.seq > f.seq;
    RETURN NEXT;
    -- Last: whoever settles waits for the end of the log until this commits.
    IF prune.deliveries IS NOT NULL THEN
        UPDATE klaxon.audit_head AS h SET prune_before = now() - prune.deliveries;
    END IF;
END
$$;
COMMENT ON FUNCTION klaxon.prune(interval, interval, interval) IS
    'Retention, by age; null keeps. Deletes events that nothing pending or dead needs (and forgets their dedup_key), inbox messages, and with deliveries dead letters and response bodies of the audit log; its rows a worker removes soon after, up to a checkpoint, and leaves a sealed record of it. Returns how many of each';
