-- The end of the chain, locked until the batch is committed: workers append one after another. Its
-- clock is the batch's time of attempt. One row, of which many former versions may lie about: from the
-- newest end of the index, the first is the one.
SELECT h.chain, h.seq, h.mac, h.key_id, clock_timestamp() AS now FROM klaxon.audit_head AS h ORDER BY h.seq DESC LIMIT 1 FOR UPDATE
