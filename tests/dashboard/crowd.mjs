// The map of 200 agents.

import assert from "node:assert/strict";
import { Look, until } from "./support.mjs";

const PASSED = ["ALLOWED", "ALERT", "DLP_REDACTED"];

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
  await look.check("agents of 200");
  await look.close();
}
