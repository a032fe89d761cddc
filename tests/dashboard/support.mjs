// What the checks share: the fleet that is looked at, a browser that notes what must not be, and waiting on conditions.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

export const ROOT = new URL("../../", import.meta.url).pathname;
const require = createRequire(`${ROOT}dashboard/package.json`);
const { chromium } = require("playwright-core");
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** Longer than anything that is waited for takes; only a failing check waits that long. */
export const PATIENCE_MS = 30_000;
/** Between two looks at a condition that nothing announces. */
const LOOK_AGAIN_MS = 50;
export const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** What the condition returns once it is true. */
export async function until(what, condition) {
  const giveUp = Date.now() + PATIENCE_MS;
  let last;
  for (;;) {
    try {
      const value = await condition();
      if (value) return value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > giveUp) throw new Error(`not within ${PATIENCE_MS} ms: ${what}`, { cause: last });
    await new Promise((go) => setTimeout(go, LOOK_AGAIN_MS));
  }
}

/** Servers, Redis and agents of their own, started and ended by serve.py. */
export class Fleet {
  static async start(count = 0) {
    const words = [`${ROOT}tests/dashboard/serve.py`, ...(count ? [String(count)] : [])];
    const child = spawn(process.env.MAS_TEST_PYTHON ?? "python3", words, { stdio: ["pipe", "pipe", "inherit"] });
    const fleet = new Fleet();
    fleet.child = child;
    fleet.lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    Object.assign(fleet, await fleet.answer());
    fleet.base = `http://${fleet.first.admin}/`;
    return fleet;
  }

  async answer() {
    const { value, done } = await this.lines.next();
    if (done) throw new Error("serve.py has ended; what it said stands above");
    const said = JSON.parse(value);
    if (said.error) throw new Error(`serve.py: ${said.error}`);
    return said;
  }

  async do(...words) {
    this.child.stdin.write(`${JSON.stringify(words)}\n`);
    return (await this.answer()).done;
  }

  mas(...words) {
    return this.do("mas", ...words, "--config", this.config);
  }

  /** What the API answers. */
  async api(path) {
    const answer = await fetch(`${this.base}api/v1/${path}`);
    assert.equal(answer.status, 200, `${path}: ${answer.status} ${await answer.clone().text()}`);
    return answer.json();
  }

  async end() {
    this.child.stdin.end();
    await new Promise((ended) => this.child.exitCode === null ? this.child.once("exit", ended) : ended());
  }
}

/** A page of the dashboard, and what must not be on any. */
export class Look {
  constructor(browser, context, page, base) {
    Object.assign(this, { browser, context, page, base });
    this.wrong = [];
    this.expected = [];
    this.answers = new Map();
    this.asked = [];
    const origin = new URL(base).origin;
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") this.wrong.push(`console: ${message.text()} ${message.location().url}`);
    });
    page.on("pageerror", (error) => this.wrong.push(`error: ${error.stack ?? error}`));
    page.on("request", (request) => {
      this.asked.push(request.url());
      const url = new URL(request.url());
      if (url.origin !== origin && !["data:", "blob:"].includes(url.protocol)) this.wrong.push(`asks elsewhere: ${request.url()}`);
    });
    page.on("response", (response) => {
      const { pathname } = new URL(response.url());
      if (pathname.startsWith("/api/") && pathname !== "/api/v1/events" && response.ok()) {
        this.answers.set(pathname, response.json().catch(() => null));
      }
    });
  }

  static async open(browser, base, { width = 1280, height = 900, scheme = "light" } = {}, more = {}) {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, acceptDownloads: true, ...more });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    await page.addInitScript(() => {
      window.violations = [];
      document.addEventListener("securitypolicyviolation", (event) => {
        window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
      });
    });
    return new Look(browser, context, page, base);
  }

  /** Goes to a page and waits until it has what it shows. */
  async go(hash) {
    await this.page.goto("about:blank");
    await this.page.goto(`${this.base}${hash}`);
    await this.settled();
  }

  async settled() {
    await this.page.waitForSelector("main h1");
    await until(`${this.page.url()} shows what it asked for`, () => this.page.evaluate(() => document.querySelector("main .waiting") === null));
  }

  async text(selector = "main") {
    return (await this.page.locator(selector).first().innerText()).replaceAll("\u00a0", " ");
  }

  /** Stands still, and what the API said last on a path. */
  async pausedAnswer(path) {
    const button = this.page.getByRole("button", { name: "Pause" });
    if (await button.count()) {
      await button.click();
      // Pausing asks once more; after that nothing changes.
      await this.page.getByRole("button", { name: "Go on" }).waitFor();
      await this.page.waitForLoadState("networkidle").catch(() => undefined);
    }
    return until(`an answer on ${path}`, () => this.answers.get(path));
  }

  /** Says what is wrong with the page as it is, and forgets it. */
  async check(what) {
    const violations = await this.page.evaluate(() => window.violations ?? []);
    // A browser notes each answer that is an error, also where the page expects one and says so to its reader.
    const wrong = this.wrong.filter((one) => !this.expected.some((pattern) => pattern.test(one)));
    assert.deepEqual([...wrong, ...violations.map((one) => `CSP: ${one}`)], [], what);
    this.wrong = [];
    const { scroll, inner } = await this.page.evaluate(() => ({ scroll: document.documentElement.scrollWidth, inner: innerWidth }));
    assert.ok(scroll <= inner, `${what}: scrolls sideways, ${scroll} of ${inner} px`);
  }

  /** What axe-core finds that is serious. */
  async axe(what) {
    // As an expression of the debugger, not as a script element: the page's policy forbids those, and should.
    await this.page.evaluate(AXE);
    const found = await this.page.evaluate(async () => {
      const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
      return violations.filter((one) => one.impact === "serious" || one.impact === "critical")
        .map((one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 4).map((node) => `${node.html.slice(0, 160)} ${node.failureSummary?.split("\n")[1] ?? ""}`).join(" | ")}`);
    });
    assert.deepEqual(found, [], `${what}: axe-core`);
  }

  async shot(folder, name) {
    if (folder) await this.page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
  }

  async close() {
    await this.page.unrouteAll({ behavior: "ignoreErrors" });
    await this.context.close();
  }
}

export function launch() {
  // Root in a container has no sandbox to give.
  const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  return chromium.launch({ executablePath: process.env.MAS_CHROMIUM ?? "/usr/bin/chromium", args });
}
