// graphile-worker, batched as its page on performance advises for a high throughput: jobs are fetched by the
// thousand into a local queue and completed together.
import { makeWorkerUtils, run, runMigrations, Logger } from "graphile-worker";
import { main, event, inBatches, poster, version, ID } from "./peer.mjs";

const tuning = (concurrentJobs) => ({
  concurrentJobs,
  maxPoolSize: 10,
  localQueue: { size: 5000 },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
});
const quiet = new Logger(() => () => {});

await main({
  about: (inFlight) =>
    console.log(JSON.stringify({ version: version("graphile-worker"), tuning: tuning(Number(inFlight)) })),

  install: (connectionString) => runMigrations({ connectionString, logger: quiet }),

  // The function for a user's own transaction.
  statement: () =>
    console.log(JSON.stringify({
      text: "SELECT graphile_worker.add_job('post', $1::text::json)",
      argument: JSON.stringify(event(ID, 1)),
      listens: "jobs:insert",
    })),

  async fill(connectionString, count) {
    const utils = await makeWorkerUtils({ connectionString, logger: quiet });
    await inBatches(Number(count), (events) =>
      utils.addJobs(events.map((payload) => ({ identifier: "post", payload }))));
    await utils.release();
  },

  async work(connectionString, url, inFlight) {
    const post = poster(url, Number(inFlight));
    await run({
      preset: { worker: { connectionString, logger: quiet, ...tuning(Number(inFlight)) } },
      taskList: { post },
    });
  },
});
