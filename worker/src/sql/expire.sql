-- Silence becomes an event. The owner of the first shard looks, so that one worker does.
SELECT klaxon.expire_agents()
