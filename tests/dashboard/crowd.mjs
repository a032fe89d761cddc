// The map of 200 agents.

import assert from "node:assert/strict";
import { Look, until } from "./support.mjs";

const PASSED = ["ALLOWED", "ALERT", "DLP_REDACTED"];

/** What a page, a scrape and the report of the trail say of who sent how much, and of what was refused, is the same. */
async function samesAreSame(look, fleet) {
  const report = JSON.parse(await fleet.mas("audit", "report", "--json", "--top", "1000"));
  const page = await (await fetch(`${fleet.base}metrics`)).text();
  const samples = [...page.matchAll(/^(\w+)\{(.*)\} (\S+)$/gm)].map(([, name, labels, value]) => (
    { name, labels: Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, text]) => [key, text])), value: Number(value) }));
  const sums = (name, key, fits = () => true) => {
    const all = {};
    for (const { labels, value } of samples.filter((one) => one.name === name && fits(one.labels))) all[labels[key]] = (all[labels[key]] ?? 0) + value;
    return all;
  };
  const scraped = sums("mas_agent_messages_total", "agent", ({ decision }) => PASSED.includes(decision));
  const reported = Object.fromEntries(report.senders.top.map(({ name, count, refused }) => [name, count - refused]).filter(([, count]) => count > 0));
  assert.deepEqual(scraped, reported);
  assert.deepEqual(sums("mas_refusals_total", "reason"), Object.fromEntries(report.refusals.top.map(({ name, count }) => [name, count])));
  await look.go("#/agents?sort=-passed");
  const cells = (head) => look.page.locator(`tbody td[data-head="${head}"]`).allInnerTexts();
  await until("the page has counted", async () => Number((await cells("Sent"))[0].replace(/,/g, "")) === Math.max(...Object.values(reported)));
  const [names, sent] = [await cells("Agent"), await cells("Sent")];
  assert.ok(names.length >= 20);
  for (const [at, name] of names.entries()) assert.equal(Number(sent[at].replace(/,/g, "")), reported[name.trim()] ?? 0, name);
}

export async function crowd({ browser, fleet, shots }) {
  const map = await fleet.api("map");
  assert.equal(map.agents.length, 200);
  for (const format of [{ scheme: "light" }, { scheme: "dark" }, { width: 390, height: 844, scheme: "light" }]) {
    const look = await Look.open(browser, fleet.base, format);
      await look.go("#/map");
    await look.page.waitForSelector(".matrix .cells path.used");
    const elements = await look.page.locator(".matrix *").count();
    assert.ok(elements < 2_000, `${elements} elements for the matrix`);
    await look.shot(shots, `map-200-${format.width ?? 1280}-${format.scheme}`);
    await look.check("200 agents");
    await look.axe("200 agents");
    await look.close();
  }
  const look = await Look.open(browser, fleet.base);
  await look.go("#/map?cells=large");
  await look.page.locator(".matrix").focus();
  // What is read of a cell is what the API says of the pair.
  await look.page.keyboard.press("d");
  const [, from, to] = /^(\S+) to (\S+): /.exec(await look.text(".readout"));
  const [row, column] = [map.agents.indexOf(from), map.agents.indexOf(to)];
  const edge = map.edges.find(([a, b]) => a === row && b === column);
  assert.ok(edge[2].AUTHZ_DENIED > 0, JSON.stringify(edge));
  assert.ok((await look.text(".readout")).includes(`${edge[2].AUTHZ_DENIED} AUTHZ_DENIED`));
  await until("the cell is in the address", () => look.page.url().includes(`from=${from}&to=${to}`));
  await look.page.keyboard.press("Control+End");
  await until("the last cell is in sight", () => look.page.evaluate(() => {
    const [view, cell] = [document.querySelector(".matrix").getBoundingClientRect(), document.querySelector(".chosen").getBoundingClientRect()];
    return cell.bottom <= view.bottom + 1 && cell.right <= view.right + 1;
  }));
  await look.shot(shots, "map-200-large");
  await look.page.getByLabel("Show").selectOption("refused");
  const refused = map.edges.filter(([, , decisions]) => Object.entries(decisions).some(([name, n]) => n > 0 && !PASSED.includes(name))).length;
  assert.ok(refused > 0);
  assert.match(await look.text("caption"), new RegExp(`Pairs \\(${refused}\\)`));
  await look.go("#/map?focus=hub");
  await look.shot(shots, "map-200-hub");
  await look.check("one agent of 200");
  await look.go("#/agents");
  assert.match(await look.text(), /200 agents/);
  await samesAreSame(look, fleet);
  await look.check("agents of 200");
  await look.close();
}
