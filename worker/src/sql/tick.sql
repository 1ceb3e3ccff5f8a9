-- What happens because time passes. The owner of the first shard looks, so that one worker does.
SELECT klaxon.tick()
