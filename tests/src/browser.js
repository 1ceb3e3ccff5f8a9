// Looks at the worker's page in Chromium, in both themes, on a desk and on a phone, and says what it saw: a line of
// JSON, and pictures in a folder. node -e … -- CHROMIUM URL FOLDER
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");

const [program, url, folder] = process.argv.slice(1);

const look = async (browser, theme, width) => {
  const context = await browser.newContext({ colorScheme: theme, viewport: { width, height: 900 }, bypassCSP: false });
  const page = await context.newPage();
  const complaints = [];
  const requests = new Set();
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("requestfailed", (request) => complaints.push(`${request.url()} failed`));
  page.on("request", (request) => requests.add(new URL(request.url()).protocol === "data:" ? "data:" : request.url()));
  await page.goto(url);
  await page.screenshot({ path: `${folder}/${theme}-${width}.png`, fullPage: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  const styled = await page.evaluate(() => getComputedStyle(document.body).fontSize);
  const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  // The page's own policy does not let a stranger's script in, so the checker comes by the debugger.
  const source = require("node:fs").readFileSync(axe, "utf8");
  const session = await context.newCDPSession(page);
  await session.send("Runtime.evaluate", { expression: source });
  const told = await session.send("Runtime.evaluate", {
    expression: "axe.run(document, { resultTypes: ['violations'] }).then((r) => JSON.stringify(r.violations.map((v) => v.id + ': ' + v.nodes.map((n) => n.html).join(' '))))",
    awaitPromise: true,
    returnByValue: true,
  });
  const result = { theme, width, wide, styled, ground, violations: JSON.parse(told.result.value), complaints, requests: [...requests] };
  await context.close();
  return result;
};

const run = async () => {
  const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox", "--disable-gpu"] });
  const looks = [];
  for (const theme of ["light", "dark"]) for (const width of [1280, 390]) looks.push(await look(browser, theme, width));
  // Without JavaScript it says as much.
  const plain = await (await browser.newContext({ javaScriptEnabled: false })).newPage();
  await plain.goto(url);
  const text = await plain.innerText("main");
  // With it, it says what happens meanwhile, without being loaded again.
  const page = await (await browser.newContext()).newPage();
  await page.goto(url);
  await page.evaluate(() => { window.kept = true; });
  console.log(JSON.stringify({ looks, text }));
  await new Promise((go) => process.stdin.once("data", go));
  await page.waitForFunction(() => document.querySelector("main").innerText.includes("newcomer"), null, { timeout: 60000 });
  const kept = await page.evaluate(() => window.kept === true);
  await new Promise((go) => { console.log(JSON.stringify({ kept })); process.stdin.once("data", go); });
  await page.waitForSelector("#away", { state: "visible", timeout: 60000 });
  console.log(JSON.stringify({ away: await page.innerText("#away") }));
  await browser.close();
};

run().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
