-- Who has these shards and is no worker's session: anybody who may connect can lock them. No pid is a prepared transaction.
-- $1 the class, $2 the shards
SELECT l.pid, (SELECT a.usename::text FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = l.pid) AS role, count(*) AS shards
FROM pg_catalog.pg_locks AS l
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = $1::integer::oid
  AND l.objid::bigint = ANY ($2::integer[])
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
  AND l.pid IS DISTINCT FROM pg_backend_pid() AND NOT EXISTS (SELECT FROM klaxon.worker AS w WHERE w.pid = l.pid)
GROUP BY l.pid
