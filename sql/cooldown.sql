-- The second step in which a cooldown is settled: of what the matcher let pass, who may be sent.

-- One transaction decides for a subscription and task at a time, over all their pending deliveries,
-- whichever worker owns their channels. The rows decided on are then either to be sent
-- (`cooldown_task` null) or gone; one that is neither waits for another call.
-- VOLATILE, so that each statement sees what was committed before it, and the lock let pass. With the worker's own rights.
CREATE FUNCTION klaxon.settle_cooldowns(subscription_ids bigint[], tasks text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    -- Rows one call decides on at most for one key: bounds its time.
    most CONSTANT integer := 100000;
    key record;
    cooldown interval;
    last klaxon.cooldown;
    beyond record;
    chosen uuid;
    told bigint;
    since timestamptz;
    dropped bigint;
BEGIN
    -- In one order, so that two workers with the same new keys never wait for each other.
    FOR key IN
        SELECT DISTINCT k.subscription_id, k.task FROM unnest(subscription_ids, tasks) AS k (subscription_id, task)
        ORDER BY k.subscription_id, k.task
    LOOP
        -- By its length in seconds, as the matcher counts it. Null where the subscription is gone.
        cooldown := (SELECT make_interval(secs => extract(epoch FROM s.cooldown)::double precision)
                     FROM klaxon.subscription AS s WHERE s.id = key.subscription_id);
        IF cooldown IS NULL OR cooldown = '0' THEN
            -- It wants no silence any more, or cannot say: what was committed is delivered.
            UPDATE klaxon.outbox AS o SET cooldown_task = NULL
            WHERE o.subscription_id = key.subscription_id AND o.cooldown_task = key.task;
            CONTINUE;
        END IF;
        -- Whose row it is decides. A row, not an advisory lock, which anybody who may connect could take.
        INSERT INTO klaxon.cooldown (subscription_id, task_name, notified_at) VALUES (key.subscription_id, key.task, 'epoch')
        ON CONFLICT DO NOTHING;
        SELECT c.* INTO last FROM klaxon.cooldown AS c
        WHERE c.subscription_id = key.subscription_id AND c.task_name = key.task FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        SELECT o.created_at, o.id INTO beyond FROM klaxon.outbox AS o
        WHERE o.subscription_id = key.subscription_id AND o.cooldown_task = key.task
        ORDER BY o.created_at, o.id OFFSET most LIMIT 1;
        IF last.notified_at + cooldown <= clock_timestamp() THEN
            chosen := (
                SELECT o.event_id FROM klaxon.outbox AS o
                WHERE o.subscription_id = key.subscription_id AND o.cooldown_task = key.task
                      AND o.event_id IS DISTINCT FROM last.event_id
                ORDER BY o.created_at, o.id LIMIT 1
            );
            IF chosen IS NOT NULL THEN
                WITH gone AS (
                    DELETE FROM klaxon.held_back AS h
                    WHERE h.subscription_id = key.subscription_id AND h.task_name = key.task
                    RETURNING h.events, h.held_at
                )
                SELECT coalesce(sum(g.events), 0), min(g.held_at) INTO told, since FROM gone AS g;
                UPDATE klaxon.cooldown AS c
                SET notified_at = clock_timestamp(), event_id = chosen, held_back = told, held_for = clock_timestamp() - since
                WHERE c.subscription_id = key.subscription_id AND c.task_name = key.task;
                UPDATE klaxon.outbox AS o SET cooldown_task = NULL, held_back = c.held_back, held_for = c.held_for
                FROM klaxon.cooldown AS c
                WHERE c.subscription_id = key.subscription_id AND c.task_name = key.task
                  AND o.subscription_id = key.subscription_id AND o.cooldown_task = key.task AND o.event_id = chosen;
            END IF;
        END IF;
        -- The same notification on another channel, should one have come to wait since.
        UPDATE klaxon.outbox AS o SET cooldown_task = NULL, held_back = last.held_back, held_for = last.held_for
        WHERE o.subscription_id = key.subscription_id AND o.cooldown_task = key.task AND o.event_id = last.event_id;
        -- The rest was held back: events are counted, not their channels, and so each goes as a whole.
        WITH gone AS (
            DELETE FROM klaxon.outbox AS o
            WHERE o.subscription_id = key.subscription_id AND o.cooldown_task = key.task AND (
                beyond.id IS NULL OR o.event_id IN (
                    SELECT w.event_id FROM klaxon.outbox AS w
                    WHERE w.subscription_id = key.subscription_id AND w.cooldown_task = key.task
                      AND (w.created_at, w.id) < (beyond.created_at, beyond.id)
                )
            )
            RETURNING o.event_id
        )
        SELECT count(DISTINCT g.event_id) INTO dropped FROM gone AS g;
        IF dropped > 0 THEN
            INSERT INTO klaxon.held_back (subscription_id, task_name, events) VALUES (key.subscription_id, key.task, dropped);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION klaxon.settle_cooldowns(bigint[], text[]) IS
    'Of pending deliveries that wait for these subscriptions'' and tasks'' cooldowns, lets those of one event pass where the window has, and counts the others as held back';

-- Emitters append a row each, so that none waits for another; a long window would gather one an event,
-- and a window that has passed would be remembered for each task there ever was.
CREATE FUNCTION klaxon.tidy_cooldowns() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, klaxon, pg_temp AS $$
BEGIN
    -- Rights of the owner: what is done is the same whoever calls it.
    WITH key AS (
        SELECT h.subscription_id, h.task_name FROM klaxon.held_back AS h
        GROUP BY h.subscription_id, h.task_name HAVING count(*) > 50
    ), gone AS (
        DELETE FROM klaxon.held_back AS h USING key AS k
        WHERE h.subscription_id = k.subscription_id AND h.task_name = k.task_name
        RETURNING h.subscription_id, h.task_name, h.events, h.held_at
    )
    INSERT INTO klaxon.held_back (subscription_id, task_name, events, held_at)
    SELECT g.subscription_id, g.task_name, sum(g.events), min(g.held_at) FROM gone AS g GROUP BY g.subscription_id, g.task_name;

    -- What is kept of subscriptions goes after them, here and not with them: whoever deletes one and does not commit
    -- would be waited for.
    DELETE FROM klaxon.cooldown AS c WHERE NOT EXISTS (
        SELECT FROM klaxon.subscription AS s
        WHERE s.id = c.subscription_id AND c.notified_at + s.cooldown > clock_timestamp() - interval '1 day'
    );
    DELETE FROM klaxon.held_back AS h WHERE NOT EXISTS (SELECT FROM klaxon.subscription AS s WHERE s.id = h.subscription_id);
    DELETE FROM klaxon.filter_error AS f WHERE NOT EXISTS (SELECT FROM klaxon.subscription AS s WHERE s.id = f.subscription_id);
    -- The same of channels: a worker settles what was on its way when one was deleted, and is not waited for.
    DELETE FROM klaxon.channel_state AS s WHERE s.channel_id IN (
        SELECT o.channel_id FROM klaxon.channel_state AS o
        WHERE NOT EXISTS (SELECT FROM klaxon.channel AS c WHERE c.id = o.channel_id)
        FOR UPDATE SKIP LOCKED
    );
END
$$;
COMMENT ON FUNCTION klaxon.tidy_cooldowns() IS
    'Folds the counts of what cooldowns held back into a row for each subscription and task that has many, and forgets windows that passed a day ago and what belongs to no subscription or channel';
