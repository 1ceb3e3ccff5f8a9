-- Rights. PUBLIC has nothing; the five group roles have what is written here, and row-level
-- security narrows it to the rows that are theirs. created_at is nobody's to write: a row that
-- says it was made in another transaction counts as restored from a dump.
COMMENT ON FUNCTION klaxon.version() IS 'The library''s version';
COMMENT ON FUNCTION klaxon.principal() IS 'Who acts: klaxon.principal for a member of klaxon_app, else the current role';
COMMENT ON FUNCTION klaxon.traceparent() IS 'The setting klaxon.traceparent, where it is a valid one';
COMMENT ON FUNCTION klaxon.uuid_v7() IS 'A UUID version 7: ordered by time';
COMMENT ON FUNCTION klaxon.check_public_key(text) IS 'Raises where a text is not a key that secrets may be sealed to';
COMMENT ON FUNCTION klaxon.explain_event(text, jsonb, text) IS 'Who would hear of an event, who not and why; emits nothing';
COMMENT ON FUNCTION klaxon.retry_dead(text, timestamptz, uuid, boolean) IS 'Puts dead letters of channels one may edit back to the outbox, or with dry_run counts them; returns how many';
COMMENT ON FUNCTION klaxon.replay(text, timestamptz, timestamptz, text[], boolean) IS 'Sends past events to a channel again, or with dry_run counts them';

-- These switch to the owner's rights for a part of what they do: no object of the caller's path may be
-- met there.
ALTER FUNCTION klaxon.explain_event(text, jsonb, text) SET search_path = pg_catalog, klaxon, pg_temp;
ALTER FUNCTION klaxon.retry_dead(text, timestamptz, uuid, boolean) SET search_path = pg_catalog, klaxon, pg_temp;
ALTER FUNCTION klaxon.request_config_test(text, jsonb) SET search_path = pg_catalog, klaxon, pg_temp;
ALTER FUNCTION klaxon.request_channel_test(text) SET search_path = pg_catalog, klaxon, pg_temp;
ALTER FUNCTION klaxon.replay(text, timestamptz, timestamptz, text[], boolean) SET search_path = pg_catalog, klaxon, pg_temp;

REVOKE ALL ON ALL TABLES IN SCHEMA klaxon FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA klaxon FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA klaxon FROM PUBLIC;

GRANT EXECUTE ON FUNCTION klaxon.version(), klaxon.principal(), klaxon.uuid_v7(), klaxon.traceparent(), klaxon.refuse(text, text, text)
    TO klaxon_emitter, klaxon_user, klaxon_app, klaxon_admin, klaxon_worker;
GRANT EXECUTE ON FUNCTION klaxon.notify_event(text, jsonb, text, text, timestamptz), klaxon.known_event(text, text, text)
    TO klaxon_emitter, klaxon_admin;
GRANT EXECUTE ON FUNCTION klaxon.heartbeat(text, text, text, interval), klaxon.touch_agent(text, text, text, interval)
    TO klaxon_emitter, klaxon_admin;
-- Who may emit may say what of a table to emit; the table's own rights say whether.
GRANT EXECUTE ON FUNCTION klaxon.watch(regclass, text, text, text, text), klaxon.watch_runs(regclass, jsonb),
    klaxon.watch_tasks(regclass, jsonb), klaxon.watch_agents(regclass, jsonb), klaxon.unwatch(regclass)
    TO klaxon_emitter, klaxon_admin;
GRANT EXECUTE ON FUNCTION klaxon.tick_is_due(), klaxon.expire_agents(), klaxon.gather_digests(), klaxon.tidy_cooldowns(), klaxon.tidy_tests(),
    klaxon.polled_watchers(), klaxon.poll_watcher(bigint), klaxon.tidy_watchers(),
    klaxon.settle_cooldowns(bigint[], text[]), klaxon.digest_payload(uuid, bigint), klaxon.digest_data(jsonb), klaxon.is_link(text),
    klaxon.last_checkpoint(), klaxon.checkpoint_is_due(), klaxon.journal_is_due(), klaxon.remove_deliveries()
    TO klaxon_worker;
GRANT EXECUTE ON FUNCTION
    klaxon.is_member(text, text), klaxon.is_project_admin(text, text), klaxon.owns_subscription(bigint, text),
    klaxon.is_channel_kind(text), klaxon.holds_no_secret(jsonb), klaxon.channel_named(text, text, text),
    klaxon.subscribe(text[], text[], text, jsonb, text, time, text, interval, boolean, text),
    klaxon.mute(bigint, timestamptz), klaxon.unmute(bigint), klaxon.mark_read(bigint[]), klaxon.unread_count(),
    klaxon.digest_due(time, text, timestamptz), klaxon.check_public_key(text), klaxon.explain_event(text, jsonb, text),
    klaxon.retry_dead(text, timestamptz, uuid, boolean), klaxon.replay(text, timestamptz, timestamptz, text[], boolean),
    klaxon.copy_channel(text, text), klaxon.request_channel_test(text), klaxon.channel_test_answer(uuid), klaxon.end_channel_test(uuid)
    TO klaxon_user, klaxon_app, klaxon_admin;
GRANT EXECUTE ON FUNCTION klaxon.request_config_test(text, jsonb), klaxon.config_test_answer(uuid), klaxon.end_config_test(uuid)
    TO klaxon_user, klaxon_app, klaxon_admin;
GRANT EXECUTE ON PROCEDURE klaxon.test_config(text, jsonb, boolean, integer, text, text) TO klaxon_user, klaxon_app, klaxon_admin;
GRANT EXECUTE ON PROCEDURE klaxon.test_channel(text, boolean, integer, text, text) TO klaxon_user, klaxon_app, klaxon_admin;
GRANT EXECUTE ON FUNCTION klaxon.status() TO klaxon_user, klaxon_app, klaxon_admin, klaxon_worker;
GRANT EXECUTE ON FUNCTION klaxon.orphans() TO klaxon_admin, klaxon_worker;
GRANT EXECUTE ON FUNCTION klaxon.prune(interval, interval, interval) TO klaxon_admin;

-- Emitters.
GRANT INSERT (id, type, project, payload, dedup_key, occurred_at), SELECT (id) ON klaxon.event TO klaxon_emitter, klaxon_admin;

-- Users, and applications acting for them.
GRANT SELECT ON klaxon.project, klaxon.member, klaxon.event_type, klaxon.channel, klaxon.channel_state, klaxon.subscription,
    klaxon.subscription_channel, klaxon.default_subscription, klaxon.event, klaxon.inbox, klaxon.agent, klaxon.outbox,
    klaxon.digest_item, klaxon.dead_letter, klaxon.delivery,
    klaxon.recent_deliveries, klaxon.channel_health, klaxon.pending
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
GRANT SELECT ON klaxon.worker, klaxon.shard, klaxon.deployment, klaxon.cooldown, klaxon.held_back, klaxon.filter_error, klaxon.audit_head, klaxon.config_change TO klaxon_admin;
GRANT SELECT, UPDATE (on_error) ON klaxon.watcher TO klaxon_emitter, klaxon_admin;
GRANT SELECT ON klaxon.watcher_error TO klaxon_emitter, klaxon_admin;
GRANT INSERT (slug, name, url, default_branch), UPDATE (slug, name, url, default_branch), DELETE ON klaxon.project TO klaxon_admin;
GRANT INSERT (project, principal, role), UPDATE (project, principal, role), DELETE ON klaxon.member TO klaxon_admin;
GRANT INSERT (name, description, severity, resolves), UPDATE (name, description, severity, resolves), DELETE ON klaxon.event_type TO klaxon_admin;
GRANT INSERT (project, agent_id, name, timeout, last_seen_at, online), UPDATE (name, timeout, last_seen_at, online), DELETE ON klaxon.agent TO klaxon_admin;
GRANT INSERT (principal, project, event_id, subscription_id, event_type, reason, title, body, data), DELETE ON klaxon.inbox TO klaxon_admin;
-- What must not be kept can be struck from an event, or the event removed; that it happened, when and where is not rewritten.
GRANT UPDATE (payload), DELETE ON klaxon.event TO klaxon_admin;

-- The worker: what it reads to deliver, and what it writes to settle.
GRANT SELECT ON klaxon.project, klaxon.event_type, klaxon.event, klaxon.channel, klaxon.channel_secret, klaxon.subscription,
    klaxon.subscription_channel, klaxon.deployment, klaxon.member TO klaxon_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON klaxon.outbox, klaxon.digest_item, klaxon.dead_letter, klaxon.channel_state,
    klaxon.cooldown, klaxon.held_back, klaxon.filter_error, klaxon.worker, klaxon.shard TO klaxon_worker;
-- For those who look: klaxon status and klaxon doctor have the worker's connection.
GRANT SELECT ON klaxon.recent_deliveries, klaxon.channel_health, klaxon.pending TO klaxon_worker;
GRANT SELECT, INSERT ON klaxon.delivery TO klaxon_worker;
GRANT SELECT, DELETE ON klaxon.config_change TO klaxon_worker;
GRANT SELECT, UPDATE (taken_at, answered_at, success, status_code, error, response_body) ON klaxon.config_test TO klaxon_worker;
GRANT SELECT, INSERT, UPDATE ON klaxon.audit_head TO klaxon_worker;
GRANT INSERT (id, type, project, payload, dedup_key, occurred_at) ON klaxon.event TO klaxon_worker;
GRANT UPDATE (enabled, disabled_reason) ON klaxon.channel TO klaxon_worker;
-- Asked by the constraints of every row it changes.
GRANT EXECUTE ON FUNCTION klaxon.is_channel_kind(text), klaxon.holds_no_secret(jsonb) TO klaxon_worker;
GRANT UPDATE (sealed) ON klaxon.channel_secret TO klaxon_worker;
GRANT USAGE ON SEQUENCE klaxon.digest_item_id_seq TO klaxon_worker;

DO $$
DECLARE
    guarded text;
BEGIN
    FOREACH guarded IN ARRAY ARRAY[
        'project', 'member', 'event_type', 'channel', 'channel_secret', 'channel_state', 'subscription', 'subscription_channel',
        'subscription_pattern', 'default_subscription', 'event', 'event_key', 'inbox', 'agent', 'outbox', 'digest_item', 'dead_letter',
        'cooldown', 'held_back', 'filter_error', 'delivery', 'config_change', 'watcher', 'watcher_error', 'channel_test', 'config_test', 'seen_signature', 'audit_head', 'worker', 'shard', 'deployment'
    ] LOOP
        EXECUTE pg_catalog.format('ALTER TABLE klaxon.%I ENABLE ROW LEVEL SECURITY', guarded);
        EXECUTE pg_catalog.format('CREATE POLICY worker ON klaxon.%I TO klaxon_worker USING (true) WITH CHECK (true)', guarded);
        EXECUTE pg_catalog.format('CREATE POLICY admin ON klaxon.%I TO klaxon_admin USING (true) WITH CHECK (true)', guarded);
    END LOOP;
END
$$;

CREATE POLICY own ON klaxon.watcher TO klaxon_emitter USING (created_by = current_user) WITH CHECK (created_by = current_user);
CREATE POLICY own ON klaxon.watcher_error FOR SELECT TO klaxon_emitter
    USING (EXISTS (SELECT FROM klaxon.watcher AS w WHERE w.id = watcher_id));
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
