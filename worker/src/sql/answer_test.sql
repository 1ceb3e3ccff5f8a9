-- What came of a test. Where nobody waits any more, nothing is written.
-- $1 test, $2 success, $3 status, $4 error, $5 body
UPDATE klaxon.config_test AS t
SET answered_at = clock_timestamp(), success = $2, status_code = $3, error = $4, response_body = $5
WHERE t.id = $1::uuid
