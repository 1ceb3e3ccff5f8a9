-- A worker that leaves is not to be waited for.
-- $1 id
DELETE FROM klaxon.worker AS w WHERE w.id = $1
