// Each page in both schemes and both widths: nothing wrong in it, and what it says is what the API says.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { CSP, Look, ROOT, until } from "./support.mjs";

const FORMATS = [
  { width: 1280, height: 900, scheme: "light" },
  { width: 1280, height: 900, scheme: "dark" },
  { width: 390, height: 844, scheme: "light" },
  { width: 390, height: 844, scheme: "dark" },
];

/** Opens a page in every format, checks it, and has `compare` compare it with the API in the first. */
async function everywhere({ browser, fleet, shots }, name, hash, compare) {
  for (const format of FORMATS) {
    const look = await Look.open(browser, fleet.base, format);
    try {
      await look.go(hash);
      const what = `${name} at ${format.width} px, ${format.scheme}`;
      await look.shot(shots, `${name}-${format.width}-${format.scheme}`);
      if (format === FORMATS[0]) {
        // A page that was paused while an answer was under way shows that one next: what it says in the end counts.
        await until(`${what} says what the API says`, () => compare(look).then(() => true));
      }
      await look.check(what);
      await look.axe(what);
    } finally {
      await look.close();
    }
  }
}

/** All of these stand on the page. */
function says(text, parts) {
  for (const part of parts) assert.ok(text.includes(String(part)), `${JSON.stringify(part)} is not on the page:\n${text.slice(0, 3000)}`);
}

const en = (value) => new Intl.NumberFormat("en", { maximumFractionDigits: 1 }).format(value);

export async function codes_are_those_of_the_server() {
  const record = readFileSync(`${ROOT}src/audit/record.rs`, "utf8");
  const page = readFileSync(`${ROOT}dashboard/src/codes.ts`, "utf8");
  for (const [rust, typescript] of [["Action", "ACTIONS"], ["Decision", "DECISIONS"]]) {
    const body = record.slice(record.indexOf(`\n    ${rust} {`)).split("\n    }\n")[0];
    const theirs = [...body.matchAll(/= (\d+), "([^"]+)";/g)].map(([, code, name]) => `${code} ${name}`);
    const list = page.slice(page.indexOf(`const ${typescript} = [`)).split("]")[0];
    const ours = [...list.matchAll(/"([^"]+)"/g)].map(([, name], at) => `${at + 1} ${name}`);
    assert.ok(theirs.length >= 10, rust);
    assert.deepEqual(ours, theirs, `dashboard/src/codes.ts, ${typescript}`);
  }
}

export async function files_come_with_their_headers({ fleet }) {
  for (const [path, file, type] of [["", "index.html", "text/html"], ["app.js", "app.js", "text/javascript"], ["app.css", "app.css", "text/css"]]) {
    const answer = await fetch(fleet.base + path);
    assert.equal(answer.status, 200, path);
    assert.deepEqual(Buffer.from(await answer.arrayBuffer()), readFileSync(`${ROOT}src/admin/page/${file}`), `${path} is the built file`);
    assert.ok(answer.headers.get("content-type")?.startsWith(type), `${path}: ${answer.headers.get("content-type")}`);
    assert.equal(answer.headers.get("content-security-policy"), CSP);
    assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
    assert.equal(answer.headers.get("cache-control"), "no-cache");
    const etag = answer.headers.get("etag");
    assert.ok(etag, `${path} has no ETag`);
    const again = await fetch(fleet.base + path, { headers: { "if-none-match": etag } });
    assert.equal(again.status, 304, `${path} again`);
  }
  const page = readFileSync(`${ROOT}src/admin/page/index.html`, "utf8");
  assert.doesNotMatch(page, /<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=/, "nothing inline in index.html");
}

export const fleet_page = (all) => everywhere(all, "fleet", "#/fleet", async (look) => {
  const fleet = await look.pausedAnswer("/api/v1/fleet");
  const text = await look.text();
  const [{ status }] = fleet.servers;
  says(text, [status.version, status.host, status.listen_addr, status.admin_addr, `${fleet.servers.length} servers ready`.replace("1 servers", "1 server")]);
  for (const check of status.checks) says(text, [check.name]);
  // What is wrong here: nobody reads absent's inbox, flaky's circuit, dead letters.
  assert.deepEqual(status.circuits_open, ["flaky"]);
  says(text, ["circuit_open", "the circuit of flaky is open", "inbox_unread", "mas inbox empty absent", `${status.redis.dead_letters} dead letters`]);
});

export const map_page = (all) => everywhere(all, "map", "#/map", async (look) => {
  const map = await look.pausedAnswer("/api/v1/map");
  const rows = await look.page.locator("tbody tr").allInnerTexts();
  const row = (from, to) => rows.find((one) => one.startsWith(`${from}\t${to}\t`));
  for (const [from, to, decisions] of map.edges) {
    const text = row(map.agents[from], map.agents[to]);
    for (const [name, n] of Object.entries(decisions)) if (n > 0) says(text ?? "", [`${n} ${name}`]);
  }
  says(row("planner", "vault"), ["refused", "AUTHZ_DENIED"]);
  says(row("archive", "planner"), ["allowed, never used"]);
  says(await look.text(), [`${map.agents.length} agents`]);
});

export const map_of_one_agent = (all) => everywhere(all, "map-octopus", "#/map?focus=planner", async (look) => {
  const map = await look.pausedAnswer("/api/v1/map");
  const planner = map.agents.indexOf("planner");
  const others = new Set([...map.allowed[planner], ...map.edges.filter(([from]) => from === planner).map(([, to]) => to)].map((at) => map.agents[at]));
  const drawn = await look.page.locator(".octopus svg text").allTextContents();
  for (const name of others) assert.ok(drawn.some((text) => text.trim().startsWith(name)), `${name} in ${drawn}`);
});

export const agents_page = (all) => everywhere(all, "agents", "#/agents", async (look) => {
  const { agents } = await look.pausedAnswer("/api/v1/agents");
  const rows = await look.page.locator("tbody tr").allInnerTexts();
  assert.equal(rows.length, agents.length);
  for (const agent of agents) {
    const cells = rows.find((one) => one.startsWith(`${agent.agent}\t`)).split("\t");
    const sessions = Object.values(agent.sessions).reduce((a, b) => a + b, 0);
    assert.deepEqual([cells[2], cells[3], cells[4], cells[6]], [sessions, agent.inbox.waiting, agent.inbox.delivered, agent.dead_letters].map(en), agent.agent);
  }
  const state = (name) => rows.find((one) => one.startsWith(`${name}\t`)).split("\t")[1];
  assert.match(state("absent"), /nobody reads/);
  assert.match(state("flaky"), /circuit open/);
  assert.match(state("worker"), /connected/);
  assert.ok(rows[0].startsWith("absent") || rows[0].startsWith("flaky"), "who needs somebody stands first");
});

export const agent_page = (all) => everywhere(all, "agent", "#/agents/flaky", async (look) => {
  const flaky = await look.pausedAnswer("/api/v1/agents/flaky");
  const text = await look.text();
  says(text, ["circuit open", "Its circuit is open since", ...flaky.instances.map((one) => one.instance), `${flaky.dead_letters}`]);
  for (const { agent, decisions } of flaky.received) says(text, [agent, ...Object.entries(decisions).map(([name, n]) => `${n} ${name}`)]);
});

export const search_page = (all) => everywhere(all, "messages-search", "#/messages?mode=search&from=planner&decision=AUTHZ_DENIED&order=oldest", async (look) => {
  const { records } = await look.pausedAnswer("/api/v1/records");
  assert.ok(records.length >= 3);
  const rows = await look.page.locator("tbody tr").allInnerTexts();
  assert.equal(rows.length, records.length);
  for (const [at, record] of records.entries()) says(rows[at], [record.action, record.decision, record.agent, record.target, record.rule, record.message_id?.slice(-12) ?? ""]);
});

export const message_page = (all) => everywhere(all, "message", `#/messages/${all.fleet.said.redacted}`, async (look) => {
  const chain = await look.pausedAnswer(`/api/v1/messages/${all.fleet.said.redacted}`);
  assert.equal(chain.state, "acknowledged");
  const rows = await look.page.locator("tbody tr").allInnerTexts();
  for (const [at, step] of chain.chain.entries()) says(rows[at], [step.action, step.decision, step.agent, step.target]);
  says(await look.text(), ["DLP_REDACTED", "acknowledged"]);
});

export const letters_page = (all) => everywhere(all, "dead-letters", "#/letters", async (look) => {
  const { letters, total } = await look.pausedAnswer("/api/v1/dead-letters");
  assert.equal(letters.length, 4);
  const rows = await look.page.locator("tbody tr").allInnerTexts();
  for (const [at, letter] of letters.entries()) says(rows[at], [letter.id, letter.agent_id, letter.reason, letter.attempts]);
  says(await look.text(), [`${total} dead letters in Redis`, "the disk is full", "cannot parse the order"]);
});

export const letter_page = async (all) => {
  const { letters } = await all.fleet.api("dead-letters?order=oldest");
  const { id } = letters.find((letter) => letter.message_id === all.fleet.said.dies);
  await everywhere(all, "dead-letter", `#/letters/${id}`, async (look) => {
    const letter = await look.pausedAnswer(`/api/v1/dead-letters/${id}`);
    const text = await look.text();
    says(text, [letter.id, letter.reason, letter.message_id, '"order": 17']);
    // The number that its sender put into it is on no page.
    assert.doesNotMatch(await look.page.content(), /078-05-1120/);
  });
};

export const policy_page = (all) => everywhere(all, "policy", "#/policy?from=planner&to=vault", async (look) => {
  const policy = await look.pausedAnswer("/api/v1/policy");
  const text = await look.text();
  says(text, policy.permissions.map((rule) => rule.text));
  says(text, [policy.rules_digest.slice(0, 12), ...policy.dlp.types.map((one) => one.type), ...policy.operators.map((one) => one.name)]);
  const explained = await look.answers.get("/api/v1/policy/explain");
  says(text, [explained.decision, explained.rule, explained.details]);
  // The command says the same.
  const command = (await look.page.locator(".command code").last().innerText()).split(" ").slice(1);
  const said = JSON.parse(await all.fleet.mas(...command, "--json"));
  assert.deepEqual([said.decision, said.rule], [explained.decision, explained.rule]);
});

export const audit_page = (all) => everywhere(all, "audit", "#/audit", async (look) => {
  // What the command finds is on the page soon after.
  assert.match(await all.fleet.mas("audit", "verify"), /^intact:/m);
  await until("the verification is shown", async () => /last verification: verified/.test(await look.text(".verdict")));
  await look.page.locator("td .tag.good", { hasText: "good" }).first().waitFor();
  const audit = await look.pausedAnswer("/api/v1/audit");
  const text = await look.text();
  says(text, [audit.log.id, audit.log.key_hash, `${en(audit.unsealed)} record`, audit.archive.dir]);
  for (const lane of audit.lanes) says(text, [lane.lane.slice(-18), en(lane.head), en(lane.sealed)]);
  // Each checkpoint's signature was checked in the browser.
  const signatures = await look.page.locator("td[data-head='Signature, checked here']").allInnerTexts();
  assert.equal(signatures.length, audit.checkpoints.length);
  await until("all signatures are checked", async () => (await look.page.locator("td[data-head='Signature, checked here']").allInnerTexts()).every((one) => one.includes("good")));
});

export const performance_page = (all) => everywhere(all, "performance", "#/performance", async (look) => {
  // A server's first points come with its first seconds.
  await until("lines are drawn", async () => (await look.page.locator(".chart path.line").evaluateAll((all) => all.filter((one) => (one.getAttribute("d") ?? "").length > 10).length)) >= 9);
  const performance = await look.pausedAnswer("/api/v1/performance");
  const text = await look.text();
  says(text, ["Throughput", "Queue delay", "Commit time", "p99", `${en(performance.time_unix_ms.length)} points`]);
  assert.ok(performance.time_unix_ms.length > 1);
  const lines = await look.page.locator(".chart path.line").evaluateAll((all) => all.filter((one) => (one.getAttribute("d") ?? "").length > 10).length);
  assert.ok(lines >= 9, `${lines} lines are drawn`);
  assert.equal(await look.page.locator(".chart").count(), 9);
});

export const live_page = (all) => everywhere(all, "messages-live", "#/messages", async (look) => {
  await look.page.locator("tbody tr").first().waitFor();
  await until("records come", async () => (await look.page.locator("tbody tr").count()) > 5);
});
