// What the peers on Node have in common: five verbs, a poster, and how they end.
import { readFileSync } from "node:fs";
import { Pool } from "undici";

// The version of a package that is installed here.
export const version = (name) =>
  JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url), "utf8")).version;

// Stands in a statement's argument where the event's id goes.
export const ID = "00000000-0000-0000-0000-000000000000";

// Rows of one call that adds jobs.
const BATCH = 1000;

// An event as every contender's rows carry it.
export const event = (id, run) => ({ id, run_id: run });

// Has `add` called with so many new events, a batch at a time.
export async function inBatches(count, add) {
  for (let from = 0; from < count; from += BATCH) {
    const batch = [];
    for (let run = from; run < Math.min(from + BATCH, count); run += 1) {
      batch.push(event(crypto.randomUUID(), run));
    }
    await add(batch);
  }
}

// Posts events by undici, the fastest client that Node has, over so many kept connections.
export function poster(url, connections) {
  const { origin, pathname: path } = new URL(url);
  const pool = new Pool(origin, { connections });
  return async (event) => {
    const { statusCode, body } = await pool.request({
      path,
      method: "POST",
      headers: { "content-type": "application/json", "webhook-id": event.id },
      body: JSON.stringify(event),
    });
    await body.dump();
    if (statusCode >= 300) throw new Error(`HTTP ${statusCode}`);
  };
}

// Runs the verb that the command line names, with the rest of it; `work` stays.
export async function main(verbs) {
  const [verb, ...rest] = process.argv.slice(2);
  await verbs[verb](...rest);
  if (verb === "work") {
    console.log("ready");
    // Its end is a signal.
    setInterval(() => {}, 1 << 30);
  } else {
    process.exit(0);
  }
}
