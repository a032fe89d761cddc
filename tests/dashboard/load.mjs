// The dashboard of a loaded fleet: what its pages take to appear, and what an open one costs the server.
//
//   node tests/dashboard/load.mjs [AGENTS [RATE]] [--shots FOLDER]
//
// By scripts/test-dashboard --load. It measures and says; what is a bound is judged by whoever reads it.

import { spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { Look, ROOT, launch, until } from "./support.mjs";

const words = process.argv.slice(2);
const shots = words.includes("--shots") ? words[words.indexOf("--shots") + 1] : null;
const [agents = 1_000, rate = 5_000] = words.filter((word) => /^\d+$/.test(word)).map(Number);
if (shots) mkdirSync(shots, { recursive: true });

const PAGES = ["fleet", "map", "agents", "agents/a0", "messages", "messages?mode=search&since=5m", "letters", "policy", "audit", "performance"];
const SPAN_MS = 10_000;
const SECONDS = 600;
/** Ticks of CPU time in a second, as Linux counts them. */
const TICKS = 100;

const wait = (ms) => new Promise((go) => setTimeout(go, ms));
const text = async (url) => (await fetch(url)).text();

/** User and system time of a process, in seconds. */
function cpu(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

/** Cores that a process used, and messages a second that it decided, over a while. */
async function used({ pid, admin }) {
  const decided = async () => [...(await text(`http://${admin}/metrics`)).matchAll(/^mas_messages_total\{.*\} (\S+)$/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
  const [before, began, messages] = [cpu(pid), Date.now(), await decided()];
  await wait(SPAN_MS);
  const seconds = (Date.now() - began) / 1_000;
  const cores = (cpu(pid) - before) / seconds;
  return { cores, rate: ((await decided()) - messages) / seconds };
}

async function took(url, times) {
  const all = [];
  let bytes = 0;
  for (let n = 0; n < times; n += 1) {
    const began = performance.now();
    bytes = (await text(url)).length;
    all.push(performance.now() - began);
    await wait(250);
  }
  all.sort((a, b) => a - b);
  return `${bytes} bytes, ${all[0].toFixed(0)} to ${all.at(-1).toFixed(0)} ms, median ${all[all.length >> 1].toFixed(0)} ms`;
}

// In a session of its own, scheduled as usual: the browser stands for one on another machine.
const load = [process.env.MAS_TEST_PYTHON ?? "python3", `${ROOT}tests/dashboard/load.py`, agents, rate, SECONDS];
const [program, ...rest] = ["chrt", "--other", "0", ...load];
const child = spawn(program, rest.map(String), { stdio: ["pipe", "pipe", "inherit"], detached: true });
const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
const browser = await launch();
let wrong = 0;
try {
  const { servers } = JSON.parse((await lines.next()).value);
  const [first] = servers;
  const base = `http://${first.admin}/`;
  const connected = async ({ admin }) => JSON.parse(await text(`http://${admin}/api/v1/status`)).connections;
  for (;;) {
    const counts = await Promise.all(servers.map(connected));
    if (counts.reduce((a, b) => a + b) >= agents) break;
    await wait(500);
  }
  await wait(6_000);
  const without = await used(first);
  console.log(`${agents} agents on two servers; the first decides ${without.rate.toFixed(0)} messages/s with ${without.cores.toFixed(3)} cores, nobody looks`);
  console.log(`scrape: ${await took(`${base}metrics`, 20)}`);
  console.log(`readyz: ${await took(`${base}readyz`, 20)}`);
  for (const page of PAGES) {
    const look = await Look.open(browser, base);
    await look.go(`#/${page}`);
    const paint = await until("a paint", () => look.page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime));
    await wait(2_000);
    const shown = await look.text();
    await look.shot(shots, page.replace(/\W+/g, "-"));
    try {
      await look.check(page);
    } catch (error) {
      wrong += 1;
      console.error(`FAIL  ${page}: ${error.message}`);
    }
    const { cores } = await used(first);
    console.log(`${page}: first paint ${paint.toFixed(0)} ms; open it costs ${((cores - without.cores) * 100).toFixed(1)} % of a core; ${shown.length} characters`);
    await look.close();
  }
  const after = await used(first);
  console.log(`afterwards ${after.rate.toFixed(0)} messages/s with ${after.cores.toFixed(3)} cores, nobody looks`);
} finally {
  child.stdin.end();
  for await (const line of lines) if (line.startsWith("{")) console.log(line.slice(0, 2_000));
  await browser.close();
}
process.exit(wrong ? 1 : 0);
