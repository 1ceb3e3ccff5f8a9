-- The vocabulary is small, and read whole.
SELECT t.name, t.severity, t.resolves FROM klaxon.event_type AS t
