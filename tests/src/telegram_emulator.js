// Telegram's Bot API by telegram-test-api, on the loopback port that is its argument.
//
// Writes a line once it listens. Ends when stdin does, so it does not outlive its starter.
"use strict";

const TelegramServer = require("telegram-test-api");

const server = new TelegramServer({ host: "127.0.0.1", port: Number(process.argv.at(-1)) });
server.start().then(() => console.log("listening"));
process.stdin.on("end", () => process.exit()).resume();
