-- The end of the chain, locked until the batch is committed: workers append one after another. Its
-- clock is the batch's time of attempt.
SELECT h.chain, h.seq, h.mac, h.key_id, clock_timestamp() AS now FROM klaxon.audit_head AS h FOR UPDATE
