-- Events from ordinary tables: what each kind derives, what fires again and what does not, what is refused.
\set VERBOSITY default
CREATE ROLE watch_app LOGIN IN ROLE klaxon_emitter;
CREATE ROLE watch_other LOGIN IN ROLE klaxon_emitter;
CREATE ROLE watch_writer LOGIN;
CREATE SCHEMA "My App" AUTHORIZATION watch_app;
GRANT USAGE ON SCHEMA "My App" TO PUBLIC;
INSERT INTO klaxon.project (slug, default_branch) VALUES ('billing', 'trunk');
INSERT INTO klaxon.event_type (name) VALUES ('order.paid'), ('order.changed');
CREATE FUNCTION pg_temp.told() RETURNS TABLE (type text, project text, payload jsonb, by text) LANGUAGE sql AS $$
    WITH taken AS (DELETE FROM klaxon.event RETURNING *) SELECT type, project, payload - 'last_seen_at', emitted_by FROM taken ORDER BY id
$$;

-- Orders: a condition, a payload and a project of SQL, on a table with odd names.
SET ROLE watch_app;
CREATE TABLE "My App"."Orders" ("Id" int PRIMARY KEY, status text, "Total €" numeric, shop text);
GRANT SELECT, INSERT, UPDATE, DELETE ON "My App"."Orders" TO watch_writer;
SELECT klaxon.watch('"My App"."Orders"', 'order.paid', 'NEW.status = ''paid'' -- only then', 'jsonb_build_object(''order'', NEW."Id", ''total'', NEW."Total €")', 'NEW.shop') > 0 AS watched;
SELECT klaxon.watch('"My App"."Orders"', 'order.changed', 'OLD."Total €" <> NEW."Total €"', 'jsonb_build_object(''from'', OLD."Total €", ''to'', NEW."Total €")') > 0 AS watched;
SET ROLE watch_writer;
INSERT INTO "My App"."Orders" VALUES (1, 'new', 10, 'billing'), (2, 'paid', 20, NULL);
UPDATE "My App"."Orders" SET status = 'paid';
UPDATE "My App"."Orders" SET status = 'paid', "Total €" = "Total €" + 1;
UPDATE "My App"."Orders" SET status = NULL WHERE "Id" = 1;
UPDATE "My App"."Orders" SET status = 'paid' WHERE "Id" = 1;
DELETE FROM "My App"."Orders" WHERE "Id" = 2;
RESET ROLE;
SELECT * FROM pg_temp.told();
SELECT target, kind, event, condition, on_error, created_by FROM klaxon.watcher ORDER BY id;

-- Refused.
SET ROLE watch_app;
SELECT klaxon.watch('"My App"."Orders"', 'order.payed');
SELECT klaxon.watch('"My App"."Orders"', NULL);
SELECT klaxon.watch(NULL, 'order.paid');
SELECT klaxon.watch('"My App"."Orders"', 'order.paid', 'NEW.statsu = 1');
SELECT klaxon.watch('"My App"."Orders"', 'order.paid', 'NEW."Id"');
SELECT klaxon.watch('"My App"."Orders"', 'order.paid', 'true) UNION SELECT (true');
SELECT klaxon.watch('"My App"."Orders"', 'order.paid', 'true); DROP TABLE klaxon.event; SELECT (true');
SELECT klaxon.watch('"My App"."Orders"', 'order.paid', '');
SELECT klaxon.watch('"My App"."Orders"', 'order.paid', 'true, true');
SELECT klaxon.watch('"My App"."Orders"', 'order.paid', payload => 'NEW.nothing');
SELECT klaxon.watch('"My App"."Orders"', 'order.paid', project => '(SELECT 1 FROM nowhere)');
SELECT klaxon.watch_runs('"My App"."Orders"');
SELECT klaxon.watch_runs('"My App"."Orders"', '{"run_id": "id"}');
SELECT klaxon.watch_runs('"My App"."Orders"', '{"run": "Id"}');
SELECT klaxon.watch_runs('"My App"."Orders"', '{"run_id": 1}');
SELECT klaxon.watch_runs('"My App"."Orders"', '[]');
SELECT klaxon.watch('klaxon.event', 'order.paid');
SELECT klaxon.watch('pg_class', 'order.paid');
CREATE VIEW "My App".v AS SELECT 1 AS x;
SELECT klaxon.watch('"My App".v', 'order.paid');
SET ROLE watch_other;
SELECT klaxon.watch('"My App"."Orders"', 'order.paid');
SELECT klaxon.unwatch('"My App"."Orders"');
SELECT count(*) FROM klaxon.watcher;
UPDATE klaxon.watcher SET on_error = 'fail';
UPDATE klaxon.watcher SET created_by = 'postgres';
SELECT klaxon.emit_watched('x', '{order.paid}', '{NULL}', '{"{}"}', '{NULL}', '{f}');
SELECT klaxon.poll_watcher(1);
SET ROLE watch_writer;
SELECT klaxon.watch('"My App"."Orders"', 'order.paid');
-- Not even an administrator of klaxon's reads other people's rows; ending a watch reads nothing.
RESET ROLE;
CREATE ROLE watch_boss IN ROLE klaxon_admin;
GRANT USAGE ON SCHEMA "My App" TO watch_boss;
CREATE TABLE "My App".others (id int);
SET ROLE watch_boss;
SELECT klaxon.watch('"My App".others', 'order.paid');
SELECT klaxon.watch_runs('"My App".others', '{"run_id": "id", "status": "id"}');
SELECT klaxon.unwatch('"My App".others');
RESET ROLE;

-- A row that raises is skipped and recorded, the others are told of; or it aborts the statement.
SET ROLE watch_app;
SELECT klaxon.unwatch('"My App"."Orders"');
SELECT klaxon.watch('"My App"."Orders"', 'order.changed', '1 / (NEW."Id" - 5) > -1') > 0 AS watched;
SET ROLE watch_writer;
INSERT INTO "My App"."Orders" VALUES (4, 'new', 1), (5, 'new', 1), (6, 'new', 1);
SET ROLE watch_app;
SELECT e.row, e.sqlstate, e.message FROM klaxon.watcher_error AS e JOIN klaxon.watcher AS w ON w.id = e.watcher_id;
UPDATE klaxon.watcher SET on_error = 'fail';
SET ROLE watch_writer;
INSERT INTO "My App"."Orders" VALUES (7, 'new', 1);
UPDATE "My App"."Orders" SET status = 'x' WHERE "Id" IN (4, 5);
SET ROLE watch_app;
UPDATE klaxon.watcher SET on_error = 'skip';
ALTER TABLE "My App"."Orders" RENAME TO "Sales";
ALTER TABLE "My App"."Sales" RENAME "Id" TO "No";
SET ROLE watch_writer;
INSERT INTO "My App"."Sales" VALUES (8, 'new', 1);
SET ROLE watch_app;
SELECT e.row, e.sqlstate, e.message FROM klaxon.watcher_error AS e ORDER BY failed_at DESC LIMIT 1;
DROP TABLE "My App"."Sales";
RESET ROLE;
SELECT value FROM klaxon.status() WHERE item = 'warnings';
SELECT type, payload FROM pg_temp.told();

-- Expressions have their author's rights, and a table's own code its owner's: neither is the extension's.
CREATE TABLE secrets (x text);
INSERT INTO secrets VALUES ('swordfish');
SET ROLE watch_app;
CREATE TABLE "My App".spied (id int PRIMARY KEY, status text);
GRANT INSERT ON "My App".spied TO watch_writer;
SELECT klaxon.watch('"My App".spied', 'order.paid', payload => '(SELECT to_jsonb(s) FROM public.secrets AS s)') > 0 AS watched;
CREATE TABLE "My App".log (who text);
CREATE FUNCTION "My App".spy() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO "My App".log VALUES (current_user); RETURN true; END $$;
SELECT klaxon.watch('"My App".spied', 'order.changed', '"My App".spy()') > 0 AS watched;
CREATE TYPE "My App".state AS ENUM ('passed', 'failed');
CREATE FUNCTION "My App".cast_state("My App".state) RETURNS json LANGUAGE plpgsql AS $$ BEGIN INSERT INTO "My App".log VALUES (current_user); RETURN '"cast"'; END $$;
CREATE CAST ("My App".state AS json) WITH FUNCTION "My App".cast_state("My App".state);
CREATE TABLE "My App".typed_runs (run_id int PRIMARY KEY, status "My App".state);
GRANT INSERT ON "My App".typed_runs TO watch_writer;
SELECT klaxon.watch_runs('"My App".typed_runs') > 0 AS watched;
SET ROLE watch_writer;
INSERT INTO "My App".spied VALUES (1, 'x');
INSERT INTO "My App".typed_runs VALUES (1, 'failed');
RESET ROLE;
SELECT DISTINCT who FROM "My App".log;
SELECT sqlstate, message FROM klaxon.watcher_error ORDER BY failed_at DESC LIMIT 1;
SELECT type, payload, by FROM pg_temp.told();

-- Runs.
SET ROLE watch_app;
CREATE TABLE "My App".runs (
    id text PRIMARY KEY, status text, repo text, branch text, total_tests int, failed_tests int, flaky_tests int, duration_ms bigint,
    top_failures jsonb, finished_at timestamptz
);
SELECT klaxon.watch_runs('"My App".runs', '{"run_id": "id", "project": "repo"}') > 0 AS watched;
INSERT INTO "My App".runs (id, status, repo, branch, duration_ms, finished_at)
SELECT 'r' || n, 'passed', 'billing', 'trunk', d, timestamptz '2026-01-01Z' + n * interval '1 hour' FROM (VALUES (1, 9000), (2, 100), (3, 110), (4, 90), (5, 100), (6, 105)) AS v (n, d);
INSERT INTO "My App".runs (id, status, repo, branch) VALUES ('r7', 'running', 'billing', 'trunk');
RESET ROLE;
SELECT type, payload ->> 'run_id' AS run FROM pg_temp.told();
UPDATE "My App".runs SET status = 'failed', total_tests = 412, failed_tests = 3, flaky_tests = 4, duration_ms = 125, finished_at = '2026-01-02Z',
    top_failures = '[{"test": "a", "signature": "NullPointer at X", "sample_error": "boom"}, {"test": "b"}]' WHERE id = 'r7';
UPDATE "My App".runs SET status = 'failed', branch = 'trunk' WHERE id = 'r7';
INSERT INTO "My App".runs (id, status, repo, branch, failed_tests, flaky_tests, top_failures, duration_ms) VALUES
    ('r8', 'passed', 'billing', 'try', 1, 0, '[{"signature": "NullPointer at X"}]', 9999), ('r9', 'cancelled', NULL, 'trunk', 0, NULL, NULL, NULL);
SELECT * FROM pg_temp.told();
-- A replayed load tells nothing again; a run that is run again does.
CREATE TEMP TABLE kept AS TABLE "My App".runs;
TRUNCATE "My App".runs;
INSERT INTO "My App".runs TABLE kept;
SELECT count(*) FROM klaxon.event;
TRUNCATE "My App".runs;
INSERT INTO "My App".runs TABLE kept;
SELECT count(*) FROM klaxon.event;
UPDATE "My App".runs SET status = 'running' WHERE id = 'r9';
UPDATE "My App".runs SET status = 'passed' WHERE id = 'r9';
SELECT type, payload ->> 'run_id' AS run FROM klaxon.event WHERE payload ->> 'run_id' = 'r9' ORDER BY id;
DELETE FROM klaxon.event;

-- Tasks.
SET ROLE watch_app;
CREATE TABLE "My App".tasks (task_id int PRIMARY KEY, state text, name text, queue text, duration_ms int, budget_ms int, started timestamptz, exception text);
SELECT klaxon.watch_tasks('"My App".tasks', '{"task_name": "name", "started_at": "started"}') > 0 AS watched;
RESET ROLE;
INSERT INTO "My App".tasks VALUES (1, 'running', 'report.daily', 'q', NULL, 1000, now(), NULL), (2, 'running', 'mail', 'q', NULL, 1000, now() - interval '1 min', NULL), (3, 'failure', 'x', 'q', 5, 10, now(), 'Timeout');
UPDATE "My App".tasks SET state = 'success', duration_ms = 1500 WHERE task_id = 1;
UPDATE "My App".tasks SET state = 'succeeded' WHERE task_id = 1;
UPDATE "My App".tasks SET state = 'retry' WHERE task_id = 3;
UPDATE "My App".tasks SET state = 'failed' WHERE task_id = 3;
SELECT klaxon.tick_watchers();
SELECT klaxon.tick_watchers();
UPDATE "My App".tasks SET state = 'success', duration_ms = 60000 WHERE task_id = 2;
SELECT type, project, CASE WHEN (payload ->> 'duration_ms')::int > 59000 THEN payload - 'duration_ms' ELSE payload END AS payload FROM klaxon.event ORDER BY id;
DELETE FROM klaxon.event;

-- Agents: any write is a heartbeat.
SET ROLE watch_app;
CREATE TABLE "My App".agents (agent_id text PRIMARY KEY, agent_name text, project text, last_seen_at timestamptz, timeout interval);
SELECT klaxon.watch_agents('"My App".agents') > 0 AS watched;
INSERT INTO "My App".agents VALUES ('a1', 'One', 'billing', now() - interval '10 min', '1 min'), ('a2', 'Two', NULL, now(), NULL), ('a3', NULL, NULL, NULL, '1 day'), ('a4', NULL, NULL, now() - interval '1 hour', '1 min');
DELETE FROM "My App".agents WHERE agent_id = 'a4';
RESET ROLE;
SELECT klaxon.expire_agents();
UPDATE "My App".agents SET agent_name = 'late' WHERE agent_id = 'a1';
UPDATE "My App".agents SET last_seen_at = now() WHERE agent_id = 'a1';
UPDATE "My App".agents SET last_seen_at = now() WHERE agent_id = 'a1';
SELECT klaxon.expire_agents();
SELECT * FROM pg_temp.told();
SELECT agent_id, project, name, timeout, online FROM klaxon.agent ORDER BY 1;

-- Again with other columns; and no more.
SELECT klaxon.watch_tasks('"My App".tasks', '{"task_name": "queue"}') = (SELECT id FROM klaxon.watcher WHERE kind = 'tasks') AS same;
SELECT klaxon.unwatch('"My App".tasks');
INSERT INTO "My App".tasks VALUES (9, 'failure');
SELECT count(*) FROM klaxon.event;
SELECT count(*) FROM pg_trigger WHERE tgrelid = '"My App".tasks'::regclass;
SELECT count(*) FROM klaxon.watcher_error AS e JOIN klaxon.watcher AS w ON w.id = e.watcher_id WHERE w.kind <> 'custom';
DROP SCHEMA "My App" CASCADE;
DROP ROLE watch_app, watch_other, watch_writer, watch_boss;
