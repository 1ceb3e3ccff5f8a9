-- What pg_dump carries: everything users wrote and everything that is pending. Derived rows
-- (subscription_pattern, event_key) and living ones (worker) are written anew.
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
