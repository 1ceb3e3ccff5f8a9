-- The queries of watchers, written when one is made. Names in them come from the catalog and are quoted;
-- expressions in them are their author's, and run as such.

-- A statement's rows as NEW and OLD. Postgres fills both transition tables row by row, so that the
-- number of a row is what pairs them. After an INSERT every field of OLD is null.
CREATE FUNCTION klaxon.watch_source(operation text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    -- The alias is one that no column has: a column of the alias' name would be meant by it. OFFSET keeps
    -- the conditions of others from being tried on rows that are not asked for.
    SELECT '(SELECT * FROM (SELECT row_number() OVER () AS n, klaxon_row AS r FROM klaxon_new AS klaxon_row) AS s '
        || 'WHERE $1::bigint IS NULL OR n BETWEEN $1 AND $2::bigint OFFSET 0) AS n_ '
        || CASE operation
            WHEN 'update' THEN 'JOIN (SELECT row_number() OVER () AS n, klaxon_row AS r FROM klaxon_old AS klaxon_row) AS o_ ON o_.n = n_.n '
                'CROSS JOIN LATERAL (SELECT (n_.r).*) AS new CROSS JOIN LATERAL (SELECT (o_.r).*) AS old'
            ELSE 'CROSS JOIN LATERAL (SELECT (n_.r).*) AS new CROSS JOIN LATERAL (SELECT (NULL::{target}).*) AS old'
        END
$$;
COMMENT ON FUNCTION klaxon.watch_source(text) IS 'The FROM clause of a watcher''s query';

-- Each query returns n, type, project, payload, key (null for none) and again: whether a key that is
-- known may still be another occurrence.
CREATE FUNCTION klaxon.watch_custom(operation text, event text, condition text, payload text, project text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    -- Line feeds around an expression, so that a comment in it ends. A condition that does not look at OLD
    -- (the word in a string or a comment does not) says what a row is: it fires when that becomes true.
    SELECT format(E'SELECT n_.n, %L::text AS type, (\n%s\n)::text AS project, (\n%s\n)::jsonb::text AS payload, NULL::text AS key, false AS again\nFROM %s\nWHERE (\n%s\n)%s ORDER BY n_.n',
        event, coalesce(project, 'NULL'), coalesce(payload, 'to_jsonb(n_.r)'), klaxon.watch_source(operation), coalesce(condition, 'true'),
        CASE WHEN operation = 'update' AND regexp_replace(condition, '''[^'']*''|--[^\n]*', '', 'g') !~* '\mold\M'
             THEN format(E' AND NOT coalesce((SELECT (\n%s\n) FROM (SELECT (o_.r).*) AS new), false)', condition) ELSE '' END)
$$;
COMMENT ON FUNCTION klaxon.watch_custom(text, text, text, text, text) IS 'The query of a custom watcher';

CREATE FUNCTION klaxon.watch_fields(kind text) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT CASE kind
        WHEN 'runs' THEN ARRAY['run_id', 'project', 'branch', 'is_default_branch', 'status', 'total_tests', 'failed_tests', 'passed_tests', 'flaky_tests',
            'flakiness_rate', 'duration_ms', 'top_failures', 'owners', 'cluster_id', 'signature', 'sample_error', 'affected_cases', 'priority', 'title', 'url', 'finished_at']
        WHEN 'tasks' THEN ARRAY['task_id', 'project', 'task_name', 'queue', 'engine', 'state', 'exception', 'traceback', 'duration_ms', 'budget_ms',
            'run_id', 'owners', 'priority', 'title', 'url', 'attempt', 'started_at']
        WHEN 'agents' THEN ARRAY['agent_id', 'project', 'agent_name', 'timeout', 'last_seen_at']
    END
$$;
COMMENT ON FUNCTION klaxon.watch_fields(text) IS 'The fields that a watched table of a kind may have';

CREATE FUNCTION klaxon.watch_columns(target regclass, kind text, columns jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    fields text[] := klaxon.watch_fields(kind);
    required text[] := CASE kind WHEN 'runs' THEN ARRAY['run_id', 'status'] WHEN 'tasks' THEN ARRAY['task_id', 'state'] ELSE ARRAY['agent_id'] END;
    given record;
    mapped jsonb := '{}';
    missing text;
BEGIN
    IF columns IS NULL OR jsonb_typeof(columns) <> 'object' THEN
        RAISE EXCEPTION 'columns must be a JSON object' USING ERRCODE = '22023', HINT = 'It maps fields to columns: {"run_id": "id"}.';
    END IF;
    FOR given IN SELECT key, value FROM jsonb_each(columns) LOOP
        IF given.key <> ALL (fields) THEN
            RAISE EXCEPTION 'columns: unknown field "%"', given.key
                USING ERRCODE = '22023', DETAIL = format('The fields are: %s.', array_to_string(fields, ', ')), HINT = 'Its keys are fields, its values columns.';
        END IF;
        IF jsonb_typeof(given.value) <> 'string' THEN
            RAISE EXCEPTION 'columns: the column of field "%" must be a string', given.key USING ERRCODE = '22023', HINT = 'Its keys are fields, its values columns.';
        END IF;
        IF NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = target AND a.attname = given.value #>> '{}' AND a.attnum > 0 AND NOT a.attisdropped) THEN
            RAISE EXCEPTION 'columns: table % has no column "%"', target, given.value #>> '{}' USING ERRCODE = '42703', HINT = 'The name is as Postgres stores it, without quotes.';
        END IF;
    END LOOP;
    SELECT coalesce(jsonb_object_agg(f.field, coalesce(columns ->> f.field, a.attname::text)), '{}') INTO mapped
    FROM unnest(fields) AS f (field)
    LEFT JOIN pg_attribute AS a ON a.attrelid = target AND a.attname = f.field AND a.attnum > 0 AND NOT a.attisdropped
    WHERE columns ? f.field OR a.attname IS NOT NULL;
    SELECT r INTO missing FROM unnest(required) AS r WHERE NOT mapped ? r LIMIT 1;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'table % has no column for field "%"', target, missing
            USING ERRCODE = '42703', HINT = format('Name it: columns => ''{"%s": "…"}''.', missing);
    END IF;
    RETURN mapped;
END
$$;
COMMENT ON FUNCTION klaxon.watch_columns(regclass, text, jsonb) IS 'The column of each field that a watched table has';

-- A field of NEW or OLD, cast; null where the table lacks it.
CREATE FUNCTION klaxon.watch_field(mapped jsonb, side text, field text, cast_to text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT CASE WHEN mapped ? field THEN format('%s.%I::%s', side, mapped ->> field, cast_to) ELSE format('NULL::%s', cast_to) END
$$;
COMMENT ON FUNCTION klaxon.watch_field(jsonb, text, text, text) IS 'A field of a watched row, as SQL';

-- The fields that are not null, of those that payloads have.
CREATE FUNCTION klaxon.watch_payload(mapped jsonb, side text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT format('(SELECT coalesce(jsonb_object_agg(f.key, f.value), ''{}'') FROM jsonb_each(jsonb_build_object(%s)) AS f WHERE f.value <> ''null'')',
                  string_agg(format('%L, %s.%I', m.key, side, m.value), ', ' ORDER BY m.key))
    FROM jsonb_each_text(mapped) AS m
    WHERE m.key NOT IN ('project', 'finished_at', 'started_at', 'attempt')
$$;
COMMENT ON FUNCTION klaxon.watch_payload(jsonb, text) IS 'The payload of a watched row, as SQL';

CREATE FUNCTION klaxon.watch_runs_query(operation text, source_name text, mapped jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
DECLARE
    final CONSTANT text := '(''passed'', ''failed'', ''cancelled'')';
    same text := '';
    raw text := '';
    regression text := '';
BEGIN
    IF mapped ? 'duration_ms' THEN
        IF mapped ? 'project' THEN
            raw := raw || format(', new.%I AS raw_project', mapped ->> 'project');
            same := same || format(' AND t.%I = g.raw_project', mapped ->> 'project');
        END IF;
        IF mapped ? 'branch' THEN
            raw := raw || format(', new.%I AS raw_branch', mapped ->> 'branch');
            same := same || format(' AND t.%I = g.raw_branch', mapped ->> 'branch');
        END IF;
        -- The runs before each that ended now: of its project and branch the newest, five more than ended.
        regression := format($regression$, kin AS (
    SELECT %1$s count(*) AS ended FROM ended AS e WHERE e.reached AND e.duration_ms IS NOT NULL %2$s
), recent AS (
    SELECT r.run_id, array_agg(r.duration_ms) OVER (PARTITION BY g.k ORDER BY r.at, r.place ROWS BETWEEN 5 PRECEDING AND 1 PRECEDING) AS before
    FROM (SELECT row_number() OVER () AS k, * FROM kin) AS g
    CROSS JOIN LATERAL (
        SELECT t.%3$I::text AS run_id, t.%4$I::numeric AS duration_ms, %5$s AS at, t.ctid AS place
        FROM {target} AS t
        WHERE t.%6$I::text IN %7$s AND t.%4$I IS NOT NULL%8$s
        ORDER BY 3 DESC, 4 DESC LIMIT 5 + g.ended
    ) AS r
), slower AS (
    SELECT e.*, m.median FROM ended AS e JOIN recent AS r ON r.run_id = e.run_id
    CROSS JOIN LATERAL (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY d)::numeric AS median, count(d) AS known FROM unnest(r.before) AS d) AS m
    WHERE e.reached AND m.known >= 2 AND m.median > 0 AND e.duration_ms >= 1.2 * m.median
)$regression$,
            nullif(concat_ws(', ', CASE WHEN mapped ? 'project' THEN 'e.raw_project' END, CASE WHEN mapped ? 'branch' THEN 'e.raw_branch' END), '') || ',',
            CASE WHEN mapped ?| ARRAY['project', 'branch'] THEN 'GROUP BY ' || concat_ws(', ', CASE WHEN mapped ? 'project' THEN 'e.raw_project' END, CASE WHEN mapped ? 'branch' THEN 'e.raw_branch' END) ELSE '' END,
            mapped ->> 'run_id', mapped ->> 'duration_ms',
            CASE WHEN mapped ? 'finished_at' THEN format('t.%I', mapped ->> 'finished_at') ELSE '0' END,
            mapped ->> 'status', final, same);
        -- Nothing to group by: the first argument is then empty, not null.
        regression := replace(regression, 'SELECT  count(*)', 'SELECT count(*)');
    END IF;
    RETURN format($query$WITH changed AS (
    SELECT n_.n, %1$s AS project, %2$s AS run_id, %3$s AS status, %4$s AS was, coalesce(%5$s, 0) > 0 OR %3$s = 'failed' AS failed,
           coalesce(coalesce(%6$s, 0) > 0 OR %4$s = 'failed', false) AS had_failed, %7$s AS flaky_tests, %8$s AS flakiness_rate, %9$s AS total_tests,
           %10$s AS duration_ms, %11$s AS signature, %12$s AS had_signature, %13$s AS top_failures, %14$s AS payload%15$s
    FROM %16$s
), ended AS (
    SELECT c.*, c.was IS DISTINCT FROM c.status AS reached, c.was IS NOT NULL AND c.was NOT IN %17$s AS again
    FROM changed AS c WHERE c.status IN %17$s
)%18$s, signed AS (
    SELECT c.n, c.project, c.payload, c.signature FROM changed AS c WHERE c.signature <> '' AND c.signature IS DISTINCT FROM c.had_signature
    UNION ALL
    SELECT e.n, e.project, e.payload || jsonb_strip_nulls(jsonb_build_object(
               'sample_error', f.failure -> 'sample_error', 'cluster_id', f.failure -> 'cluster_id', 'affected_cases', f.failure -> 'affected_cases')), f.failure ->> 'signature'
    FROM ended AS e CROSS JOIN LATERAL jsonb_array_elements(CASE jsonb_typeof(e.top_failures) WHEN 'array' THEN e.top_failures ELSE '[]' END) AS f (failure)
    WHERE e.reached AND jsonb_typeof(f.failure) = 'object' AND f.failure ->> 'signature' <> ''
)
SELECT x.n, x.type, x.project, x.payload::text AS payload, x.key, x.again FROM (
    SELECT e.n, 1 AS place, 'run.finished' AS type, e.project, e.payload, %19$L || '/' || e.run_id || '/finished' AS key, e.again FROM ended AS e WHERE e.reached
    UNION ALL
    SELECT e.n, t.place, t.type, e.project, e.payload, %19$L || '/' || e.run_id || '/failed', e.again
    FROM ended AS e CROSS JOIN (VALUES (2, 'run.failed'), (3, 'run.failed.default_branch')) AS t (place, type)
    WHERE e.failed AND (e.reached OR NOT e.had_failed)
    UNION ALL
    SELECT e.n, 4, 'flakiness.spike', e.project,
           e.payload || CASE WHEN e.flakiness_rate IS NULL AND e.total_tests > 0
                        THEN jsonb_build_object('flakiness_rate', trim_scale(round(e.flaky_tests / e.total_tests, 6))) ELSE '{}' END,
           %19$L || '/' || e.run_id || '/flaky', e.again
    FROM ended AS e WHERE e.reached AND e.flaky_tests > 0%20$s
    UNION ALL
    SELECT s.n, 6, 'cluster.new', s.project, s.payload || jsonb_build_object('signature', s.signature), s.signature, false FROM signed AS s
) AS x ORDER BY x.n, x.place$query$,
        klaxon.watch_field(mapped, 'new', 'project', 'text'), klaxon.watch_field(mapped, 'new', 'run_id', 'text'),
        klaxon.watch_field(mapped, 'new', 'status', 'text'), klaxon.watch_field(mapped, 'old', 'status', 'text'),
        klaxon.watch_field(mapped, 'new', 'failed_tests', 'numeric'), klaxon.watch_field(mapped, 'old', 'failed_tests', 'numeric'),
        klaxon.watch_field(mapped, 'new', 'flaky_tests', 'numeric'), klaxon.watch_field(mapped, 'new', 'flakiness_rate', 'numeric'),
        klaxon.watch_field(mapped, 'new', 'total_tests', 'numeric'), klaxon.watch_field(mapped, 'new', 'duration_ms', 'numeric'),
        klaxon.watch_field(mapped, 'new', 'signature', 'text'), klaxon.watch_field(mapped, 'old', 'signature', 'text'),
        CASE WHEN mapped ? 'top_failures' THEN format('to_jsonb(new.%I)', mapped ->> 'top_failures') ELSE 'NULL::jsonb' END,
        klaxon.watch_payload(mapped, 'new'), raw, klaxon.watch_source(operation), final, regression, source_name,
        CASE WHEN regression = '' THEN '' ELSE format($union$
    UNION ALL
    SELECT s.n, 5, 'perf.regression', s.project,
           s.payload || jsonb_build_object('baseline_duration_ms', trim_scale(round(s.median, 3)), 'regression_pct', trim_scale(round((s.duration_ms / s.median - 1) * 100, 2))),
           %L || '/' || s.run_id || '/slower', s.again
    FROM slower AS s$union$, source_name) END);
END
$$;
COMMENT ON FUNCTION klaxon.watch_runs_query(text, text, jsonb) IS 'The query of a watcher of runs';

CREATE FUNCTION klaxon.watch_tasks_query(operation text, source_name text, mapped jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT format($query$WITH changed AS (
    SELECT n_.n, %1$s AS project, %2$s AS task_id, %3$s AS attempt, %4$s AS had_attempt, coalesce(%5$s > %6$s, false) AS slow, coalesce(%7$s > %8$s, false) AS was_slow,
           %9$s AS payload,
           CASE WHEN %10$s IN ('failure', 'failed') THEN 'task.failed' WHEN %10$s IN ('success', 'succeeded') THEN 'task.succeeded' WHEN %10$s IN ('retry', 'retried') THEN 'task.retried' END AS type,
           CASE WHEN %11$s IN ('failure', 'failed') THEN 'task.failed' WHEN %11$s IN ('success', 'succeeded') THEN 'task.succeeded' WHEN %11$s IN ('retry', 'retried') THEN 'task.retried' END AS had_type
    FROM %12$s
)
SELECT x.n, x.type, x.project, x.payload::text AS payload, x.key, x.again FROM (
    SELECT c.n, 1 AS place, c.type, c.project, c.payload, concat_ws('/', %13$L, c.task_id, c.attempt, c.type) AS key, %14$L = 'update' AS again
    FROM changed AS c WHERE c.type IS DISTINCT FROM c.had_type OR c.attempt <> c.had_attempt
    UNION ALL
    SELECT c.n, 2, 'task.slow', c.project, c.payload, concat_ws('/', %13$L, c.task_id, c.attempt, 'task.slow'), false
    FROM changed AS c WHERE c.slow AND (NOT c.was_slow OR c.attempt <> c.had_attempt)
) AS x WHERE x.type IS NOT NULL ORDER BY x.n, x.place$query$,
        klaxon.watch_field(mapped, 'new', 'project', 'text'), klaxon.watch_field(mapped, 'new', 'task_id', 'text'),
        klaxon.watch_field(mapped, 'new', 'attempt', 'text'), klaxon.watch_field(mapped, 'old', 'attempt', 'text'),
        klaxon.watch_field(mapped, 'new', 'duration_ms', 'numeric'), klaxon.watch_field(mapped, 'new', 'budget_ms', 'numeric'),
        klaxon.watch_field(mapped, 'old', 'duration_ms', 'numeric'), klaxon.watch_field(mapped, 'old', 'budget_ms', 'numeric'),
        klaxon.watch_payload(mapped, 'new'), klaxon.watch_field(mapped, 'new', 'state', 'text'), klaxon.watch_field(mapped, 'old', 'state', 'text'),
        klaxon.watch_source(operation), source_name, operation)
$$;
COMMENT ON FUNCTION klaxon.watch_tasks_query(text, text, jsonb) IS 'The query of a watcher of tasks';

-- Tasks that still run and have passed their budget; only where the table says when they began.
CREATE FUNCTION klaxon.watch_tasks_tick(source_name text, mapped jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT format($query$SELECT 1::bigint AS n, 'task.slow' AS type, %1$s AS project,
       (%2$s || jsonb_build_object('duration_ms', floor(extract(epoch FROM clock_timestamp() - new.%3$I::timestamptz) * 1000)))::text AS payload,
       concat_ws('/', %4$L, %5$s, %6$s, 'task.slow') AS key, false AS again
FROM {target} AS new
WHERE $1::bigint IS NULL AND new.%7$I::text NOT IN ('failure', 'failed', 'success', 'succeeded', 'retry', 'retried')
  AND new.%3$I::timestamptz + new.%8$I::numeric::double precision * interval '1 ms' < clock_timestamp()
LIMIT 10000$query$,
        klaxon.watch_field(mapped, 'new', 'project', 'text'), klaxon.watch_payload(mapped, 'new'), mapped ->> 'started_at', source_name,
        klaxon.watch_field(mapped, 'new', 'task_id', 'text'), klaxon.watch_field(mapped, 'new', 'attempt', 'text'), mapped ->> 'state', mapped ->> 'budget_ms')
    WHERE mapped ?& ARRAY['started_at', 'budget_ms']
$$;
COMMENT ON FUNCTION klaxon.watch_tasks_tick(text, jsonb) IS 'The query that finds running tasks over their budget; null where the table does not tell';

-- Any write of an agent's row is a heartbeat.
CREATE FUNCTION klaxon.watch_agents_query(operation text, target regclass, mapped jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT format($query$SELECT n_.n, 'agent' AS type, %1$s AS project,
       jsonb_build_object('agent_id', %2$s, 'agent_name', %3$s, 'timeout', %4$s, 'last_seen_at', coalesce(%5$s, clock_timestamp()))::text AS payload,
       NULL::text AS key, false AS again
FROM %6$s
ORDER BY n_.n$query$,
        klaxon.watch_field(mapped, 'new', 'project', 'text'), klaxon.watch_field(mapped, 'new', 'agent_id', 'text'), klaxon.watch_field(mapped, 'new', 'agent_name', 'text'),
        -- An interval, or a number of seconds.
        CASE WHEN (SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = target AND a.attname = mapped ->> 'timeout') = 'interval'::regtype
             THEN format('extract(epoch FROM new.%I)', mapped ->> 'timeout') ELSE klaxon.watch_field(mapped, 'new', 'timeout', 'numeric') END,
        klaxon.watch_field(mapped, 'new', 'last_seen_at', 'timestamptz'), klaxon.watch_source(operation))
$$;
COMMENT ON FUNCTION klaxon.watch_agents_query(text, regclass, jsonb) IS 'The query of a watcher of agents';

-- An agent that is deleted is not silent: nobody waits for it any more.
CREATE FUNCTION klaxon.watch_agents_delete(mapped jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT format('SELECT 1::bigint AS n, ''agent'' AS type, %s AS project, jsonb_build_object(''agent_id'', %s)::text AS payload, NULL::text AS key, true AS again FROM klaxon_old AS old WHERE $1::bigint IS NULL',
                  klaxon.watch_field(mapped, 'old', 'project', 'text'), klaxon.watch_field(mapped, 'old', 'agent_id', 'text'))
$$;
COMMENT ON FUNCTION klaxon.watch_agents_delete(jsonb) IS 'The query of a watcher of agents that are deleted';
