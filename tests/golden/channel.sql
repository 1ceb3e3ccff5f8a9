-- What a channel's config may be, per kind, and how a refusal reads.
SELECT klaxon.set_public_key('3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=');
INSERT INTO klaxon.project (slug) VALUES ('billing');

-- Each kind, accepted: secrets read back masked.
INSERT INTO klaxon.channel (name, kind, config) VALUES
    ('hook', 'webhook', '{"url": "https://hooks.example.com/in?a=1", "hmac_secret": "correct horse", "headers": {"Authorization": "Bearer x", "X-Team": "billing"}, "retry_schedule": [0, 60]}'),
    ('mail', 'email', '{"smtp_host": "smtp.example.com", "smtp_port": 587, "smtp_user": "bot@example.com", "smtp_pass": "swordfish", "to_addrs": ["ops@example.com"]}'),
    ('chat', 'slack', '{"webhook_url": "https://hooks.slack.com/services/T0/B0/x"}'),
    ('bot', 'telegram', '{"bot_token": "123:abc_DEF-1", "chat_id": "-1001234567"}'),
    ('pager', 'pagerduty', '{"integration_key": "0123456789abcdef0123456789abcdef", "severity_map": {"task.failed": "critical"}}'),
    ('disc', 'discord', '{"webhook_url": "https://discord.com/api/webhooks/1/x", "max_age": null}');
SELECT name, kind, jsonb_pretty(config) FROM klaxon.channel ORDER BY id;
SELECT c.name, s.field, s.sealed LIKE 'sealed:v1:%' AS sealed, s.destination
FROM klaxon.channel_secret AS s JOIN klaxon.channel AS c ON c.id = s.channel_id ORDER BY c.name, s.field;

-- Refused: the kind, the shape, the scope.
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'pigeon', '{}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', '[]');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', NULL);
INSERT INTO klaxon.channel (name, kind, config) VALUES ('hook', 'webhook', '{"url": "https://example.com/"}');
INSERT INTO klaxon.channel (name, kind, config, project, owner) VALUES ('x', 'webhook', '{"url": "https://example.com/"}', 'billing', 'alice');
INSERT INTO klaxon.channel (name, kind, config, project) VALUES ('x', 'webhook', '{"url": "https://example.com/"}', 'nowhere');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', jsonb_build_object('url', 'https://example.com/', 'template', jsonb_build_object('title', repeat('x', 17000))));

-- Refused: a webhook's fields.
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', '{}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', '{"url": "https://example.com/", "colour": "red"}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', '{"url": "example.com"}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', '{"url": "ftp://example.com/"}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', '{"url": "http://example.com/"}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', '{"url": "https://example.com/", "headers": {"Host": "a"}}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', '{"url": "https://example.com/", "headers": {"X-A": "a", "x-a": "b"}}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', '{"url": "https://example.com/", "headers": {"X-A": "a\nb"}}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'webhook', '{"url": "https://example.com/", "retry_schedule": [-1]}');

-- Refused: the others'.
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'email', '{"to_addrs": ["ops@example.com"], "smtp_host": "smtp.example.com", "smtp_port": 26}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'email', '{"smtp_host": "smtp.example.com", "smtp_port": 587}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'email', '{"from_addr": "bot@example.com", "to_addrs": ["ops"], "smtp_host": "smtp.example.com", "smtp_port": 587}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'email', '{"to_addrs": ["ops@example.com"], "smtp_host": "smtp.example.com", "smtp_port": 587, "smtp_tls": false}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'slack', '{"webhook_url": "https://hooks.slack.com.example.com/services/x"}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'slack', '{"webhook_url": "http://hooks.slack.com/services/x"}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'telegram', '{"bot_token": "123:a/../b", "chat_id": "1"}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'telegram', '{"bot_token": "123:abc"}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'pagerduty', '{"integration_key": "short"}');
INSERT INTO klaxon.channel (name, kind, config) VALUES ('x', 'discord', '{"webhook_url": "https://example.com/api/webhooks/1/x"}');

-- A secret given as the mask or empty is kept, one left out is dropped, and none may follow the url elsewhere.
UPDATE klaxon.channel SET config = config || '{"retry_schedule": []}' WHERE name = 'hook';
SELECT field FROM klaxon.channel_secret JOIN klaxon.channel ON id = channel_id WHERE name = 'hook' ORDER BY field;
UPDATE klaxon.channel SET config = config || '{"url": "https://elsewhere.example.com/"}' WHERE name = 'hook';
UPDATE klaxon.channel SET config = '{"url": "https://hooks.example.com/in", "hmac_secret": ""}' WHERE name = 'hook';
SELECT field FROM klaxon.channel_secret JOIN klaxon.channel ON id = channel_id WHERE name = 'hook' ORDER BY field;
UPDATE klaxon.channel SET config = '{}' WHERE name = 'chat';

-- In clear a secret is refused even with triggers off.
BEGIN;
SET LOCAL session_replication_role = replica;
INSERT INTO klaxon.channel (name, kind, config) VALUES ('clear', 'webhook', '{"url": "https://example.com/", "hmac_secret": "in clear"}');
ROLLBACK;

-- The superuser of a database may allow http.
SET klaxon.allow_http = on;
INSERT INTO klaxon.channel (name, kind, config) VALUES ('plain', 'webhook', '{"url": "http://example.com/"}');

-- Who may edit a channel may test it; a test needs to commit.
CREATE ROLE channel_alice IN ROLE klaxon_user;
CREATE ROLE channel_nobody;
SET ROLE channel_alice;
CALL klaxon.test_channel('hook');
CALL klaxon.test_channel(NULL);
SELECT klaxon.create_channel_test(1, 'channel_alice');
SELECT * FROM klaxon.channel_test_answer(gen_random_uuid());
SELECT klaxon.end_channel_test(gen_random_uuid());
SET ROLE channel_nobody;
CALL klaxon.test_channel('hook');
RESET ROLE;
BEGIN;
CALL klaxon.test_channel('hook');
ROLLBACK;
SELECT count(*) FROM klaxon.outbox;
DROP ROLE channel_alice, channel_nobody;
CREATE ROLE channel_bob IN ROLE klaxon_user;
SET ROLE channel_bob;
CALL klaxon.test_config('pigeon', '{}');
CALL klaxon.test_config('webhook', '{}');
CALL klaxon.test_config('webhook', NULL);
CALL klaxon.test_config('webhook', '{"url": "https://example.com/", "hmac_secret": "••••••••"}');
CALL klaxon.test_config('telegram', '{"bot_token": "nonsense", "chat_id": 1}');
SELECT klaxon.create_config_test('webhook', '{}', '{}', '{}', 'channel_bob');
SELECT * FROM klaxon.config_test;
RESET ROLE;
SELECT count(*) FROM klaxon.config_test;
DROP ROLE channel_bob;
