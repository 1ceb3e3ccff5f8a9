-- Where reading begins: nothing before this snapshot is new to a session that owns no shard yet.
SELECT pg_current_snapshot()::text AS snapshot, clock_timestamp() AS now
