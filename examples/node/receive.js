// Receives webhooks, and believes those that are signed (Standard Webhooks, https://www.standardwebhooks.com), with
// nothing but Node's own library.
//
// WEBHOOK_SECRET=whsec_… node receive.js 8080
const { createHmac, timingSafeEqual } = require("node:crypto");
const { createServer } = require("node:http");

const secret = process.env.WEBHOOK_SECRET;
const key = secret.startsWith("whsec_") ? Buffer.from(secret.slice(6), "base64") : Buffer.from(secret);
const TOLERANCE = 300; // seconds: an old message is somebody's who kept it
const seen = new Set(); // of a database, where it is to outlive the process

const isGenuine = (headers, body) => {
  const sent = Number(headers["webhook-timestamp"]);
  if (!Number.isInteger(sent) || Math.abs(Date.now() / 1000 - sent) > TOLERANCE) return false;
  const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), body]);
  const wanted = createHmac("sha256", key).update(signed).digest();
  // While a secret is renewed there is more than one.
  return (headers["webhook-signature"] ?? "").split(" ").some((part) => {
    const given = Buffer.from(part.replace(/^v1,/, ""), "base64");
    return part.startsWith("v1,") && given.length === wanted.length && timingSafeEqual(given, wanted);
  });
};

createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const body = Buffer.concat(parts);
    const genuine = isGenuine(request.headers, body);
    if (genuine && !seen.has(request.headers["webhook-id"])) { // the same id: the same message, sent again
      seen.add(request.headers["webhook-id"]);
      console.log("received", JSON.parse(body).type);
    }
    response.writeHead(genuine ? 204 : 401).end();
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
