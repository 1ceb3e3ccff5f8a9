// An event in the transaction of the row that it is about, with pg: both are committed, or neither.
//
// DATABASE_URL=postgresql://app@localhost/app node emit.js run-1
const { Client } = require("pg");

const emit = async (runId) => {
  const client = new Client({ connectionString: process.env.DATABASE_URL });
  await client.connect();
  try {
    await client.query("BEGIN");
    await client.query("INSERT INTO run (id, status) VALUES ($1, 'failed')", [runId]);
    await client.query("SELECT klaxon.notify_event($1, $2)", [
      "run.failed",
      { run_id: runId, branch: "main", failed_tests: 3 },
    ]);
    if (runId.endsWith("broken")) throw new Error("something else went wrong: nobody is told anything");
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  } finally {
    await client.end();
  }
};

emit(process.argv[2]).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
