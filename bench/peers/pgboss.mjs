// pg-boss, with large batches fetched one after the other while they come full, and woken by NOTIFY.
import { PgBoss } from "pg-boss";
import { createHash } from "node:crypto";
import { main, event, inBatches, poster, version, ID } from "./peer.mjs";

const QUEUE = "post";
const instance = { useListenNotify: true, max: 10 };
const queue = { notify: true, partition: true };
const tuning = { batchSize: 2000, localConcurrency: 1, burstWhenBatchFull: true };

async function boss(connectionString, options) {
  const boss = new PgBoss({ connectionString, ...instance, ...options });
  boss.on("error", (error) => console.error(error));
  await boss.start();
  return boss;
}
const alone = { supervise: false, schedule: false, useListenNotify: false };

await main({
  about: (inFlight) =>
    console.log(JSON.stringify({
      version: version("pg-boss"),
      tuning: { ...instance, ...queue, ...tuning, connections: Number(inFlight) },
    })),

  async install(connectionString) {
    await (await boss(connectionString, alone)).createQueue(QUEUE, queue);
  },

  // What `send` runs, in a user's own transaction: `db` is how it is told to.
  async statement(connectionString) {
    let sent;
    const listens = `pgboss_${createHash("sha224").update("pgboss").digest("hex").slice(0, 24)}`;
    const db = {
      async executeSql(text, values) {
        sent = { text, argument: values[0], listens };
        return { rows: [{ id: ID }] };
      },
    };
    await (await boss(connectionString, alone)).send(QUEUE, event(ID, 1), { db });
    console.log(JSON.stringify(sent));
  },

  async fill(connectionString, count) {
    const filler = await boss(connectionString, alone);
    await inBatches(Number(count), (events) => filler.insert(QUEUE, events.map((data) => ({ data }))));
  },

  async work(connectionString, url, inFlight) {
    const post = poster(url, Number(inFlight));
    const worker = await boss(connectionString);
    await worker.work(QUEUE, tuning, (jobs) => Promise.all(jobs.map((job) => post(job.data))));
  },
});
