-- What a watcher must give nobody: the rights of its table's owner, of its creator or of the extension's
-- owner. And the shapes of table and expression that are easily taken for another.
\set VERBOSITY default
CREATE ROLE wr_owner LOGIN IN ROLE klaxon_emitter;
CREATE ROLE wr_boss LOGIN IN ROLE klaxon_admin;
CREATE ROLE wr_writer LOGIN;
CREATE SCHEMA app AUTHORIZATION wr_owner;
GRANT USAGE ON SCHEMA app TO PUBLIC;
INSERT INTO klaxon.event_type (name) VALUES ('x.y');
CREATE TABLE witness (what text, who text);
GRANT INSERT ON witness TO PUBLIC;
CREATE FUNCTION pg_temp.told() RETURNS TABLE (type text, payload jsonb) LANGUAGE sql AS $$
    WITH taken AS (DELETE FROM klaxon.event RETURNING *) SELECT type, payload FROM taken ORDER BY id
$$;

-- A writer's temporary type or view is not what a watcher's query means by that name.
SET ROLE wr_owner;
CREATE TABLE app.runs (run_id int, status varchar(20));
GRANT INSERT ON app.runs TO wr_writer;
SELECT klaxon.watch_runs('app.runs') > 0 AS watched;
RESET ROLE;
CREATE TABLE app.settings (id int);
GRANT INSERT ON app.settings TO wr_writer;
SELECT klaxon.watch('app.settings', 'x.y', 'EXISTS (SELECT FROM pg_settings)') > 0 AS watched;
SET ROLE wr_writer;
CREATE FUNCTION pg_temp.spy(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.witness VALUES (''a temporary type or view'', current_user); RETURN true; END';
CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.spy(VALUE));
CREATE VIEW pg_temp.pg_settings AS SELECT 1 AS x WHERE pg_temp.spy('');
INSERT INTO app.runs VALUES (1, 'failed');
INSERT INTO app.settings VALUES (1);
RESET ROLE;
DROP VIEW pg_temp.pg_settings;
DROP DOMAIN pg_temp.text;
DROP FUNCTION pg_temp.spy(text);
SELECT * FROM witness;
SELECT type FROM pg_temp.told();

-- The code of a table's types runs as its owner, though a superuser watches.
SET ROLE wr_owner;
CREATE TYPE app.state AS ENUM ('a', 'b');
CREATE FUNCTION app.cast_state(app.state) RETURNS json LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.witness VALUES (''a cast'', current_user); RETURN ''"cast"''; END';
CREATE CAST (app.state AS json) WITH FUNCTION app.cast_state(app.state);
CREATE TABLE app.typed (id int, state app.state);
RESET ROLE;
SELECT klaxon.watch('app.typed', 'x.y') > 0 AS watched;
INSERT INTO app.typed VALUES (1, 'a');
SELECT DISTINCT * FROM witness;
SELECT * FROM pg_temp.told();

-- An administrator of klaxon reads no table by watching it, and may end what others watch.
CREATE TABLE payroll (who text, pay int);
SET ROLE wr_boss;
SELECT klaxon.watch('payroll', 'x.y');
SELECT klaxon.watch_runs('payroll', '{"run_id": "who", "status": "who"}');
SELECT klaxon.unwatch('app.typed');
RESET ROLE;

-- Columns with names of the query's own.
CREATE TABLE named (id int, t text, new text, old int, n int, r int, n_ int, s int);
SELECT klaxon.watch('named', 'x.y') > 0 AS watched;
SELECT klaxon.watch('named', 'x.y', 'OLD.id <> NEW.id', 'jsonb_build_object(''id'', NEW.id, ''t'', NEW.t, ''new'', NEW.new)') > 0 AS watched;
INSERT INTO named VALUES (1, 't', 'new', 2, 3, 4, 5, 6);
UPDATE named SET id = 2;
SELECT * FROM pg_temp.told();

-- Not one expression over NEW and OLD.
CREATE TABLE odd (id int, status text);
SELECT klaxon.watch('odd', 'x.y', 'true) UNION SELECT FROM pg_class WHERE (true');
SELECT klaxon.watch('odd', 'x.y', 'true) LIMIT (1');
SELECT klaxon.watch('odd', 'x.y', 'true) OR (true');
SELECT klaxon.watch('odd', 'x.y', 'true FROM pg_class');
SELECT klaxon.watch('odd', 'x.y', payload => 'to_jsonb(count(*))');
SELECT klaxon.watch('odd', 'x.y', payload => 'to_jsonb(generate_series(1, 3))');
SELECT klaxon.watch('odd', 'x.y', payload => 'to_jsonb(NEW.ctid::text)');
SELECT klaxon.watch('odd', 'x.y', '$1 IS NULL');
-- The word in a string is no mention of OLD: a second UPDATE fires nothing.
SELECT klaxon.watch('odd', 'x.y', 'NEW.status = ''old''') > 0 AS watched;
INSERT INTO odd VALUES (1, 'old');
UPDATE odd SET status = 'old';
SELECT * FROM pg_temp.told();

-- One row in ten thousand raises, tried before any other condition: the others are told of.
CREATE TABLE many (id int, flag text);
SELECT klaxon.watch('many', 'x.y', 'NEW.flag::boolean', '''{}''::jsonb') > 0 AS watched;
INSERT INTO many SELECT n, CASE n WHEN 7777 THEN 'perhaps' ELSE 'true' END FROM generate_series(1, 10000) AS n;
SELECT count(*) FROM pg_temp.told();
SELECT row, sqlstate, message FROM klaxon.watcher_error;
DELETE FROM klaxon.watcher_error;
-- All of them raise: a hundred by name, the rest by number.
INSERT INTO many SELECT n, 'perhaps' FROM generate_series(1, 1000) AS n;
SELECT count(*) FILTER (WHERE row LIKE '(%') AS named, count(*) FILTER (WHERE row LIKE 'number % to %') > 0 AS numbered FROM klaxon.watcher_error;
DELETE FROM klaxon.watcher_error;
-- The query is broken whatever the row: once a statement.
ALTER TABLE many RENAME flag TO flags;
INSERT INTO many SELECT n, 'true' FROM generate_series(1, 1000) AS n;
SELECT row, sqlstate, message FROM klaxon.watcher_error;
DELETE FROM klaxon.watcher_error;

-- With fail, a writer is not shown what it may not read.
CREATE TABLE secret (id int, word text);
INSERT INTO secret VALUES (1, 'swordfish');
GRANT UPDATE (id) ON secret TO wr_writer;
SELECT klaxon.watch('secret', 'x.y', '1 / (NEW.id - 5) > 100') > 0 AS watched;
UPDATE klaxon.watcher SET on_error = 'fail' WHERE target = 'secret'::regclass;
SET ROLE wr_writer;
UPDATE secret SET id = 5;
RESET ROLE;
UPDATE secret SET id = 5;

-- The clock: one watcher's failure is not another's, is no error and is recorded once.
CREATE TABLE first_tasks (task_id int, state text, started_at timestamptz, budget_ms int);
CREATE TABLE tasks (LIKE first_tasks);
SELECT klaxon.watch_tasks('first_tasks') > 0 AS watched, klaxon.watch_tasks('tasks') > 0 AS watched;
INSERT INTO tasks VALUES (1, 'running', now() - interval '1 hour', 10);
UPDATE klaxon.watcher SET on_error = 'fail' WHERE target = 'first_tasks'::regclass;
ALTER TABLE first_tasks RENAME started_at TO began_at;
SELECT klaxon.tick_watchers();
SELECT klaxon.tick_watchers();
SELECT type, payload - 'duration_ms' AS payload FROM pg_temp.told();
SELECT row, sqlstate, message FROM klaxon.watcher_error;
DROP SCHEMA app CASCADE;
DROP TABLE witness, payroll, named, odd, many, secret, first_tasks, tasks;
DROP ROLE wr_owner, wr_boss, wr_writer;
