// What breaks is seen, says what to do, and heals.

import assert from "node:assert/strict";
import { Look, until } from "./support.mjs";

async function opened({ browser, fleet }, hash) {
  const look = await Look.open(browser, fleet.base);
  look.expected = [/Failed to load resource/];
  await look.go(hash);
  return look;
}

/** How long something took to be seen; said, not judged: what else runs on the machine counts, too. */
async function timed(what, condition) {
  const began = Date.now();
  await until(what, condition);
  console.log(`      ${what}: after ${((Date.now() - began) / 1000).toFixed(1)} s`);
}

export async function a_server_that_hangs_is_seen_and_heals(all) {
  const { fleet, shots } = all;
  const look = await opened(all, "#/fleet");
  await fleet.do("hang", "first");
  await timed("a server that hangs is seen", async () => (await look.page.locator(".lost").count()) > 0);
  assert.match(await look.text(".lost"), /does not answer since .* What stands below is from before\./s);
  assert.match(await look.text(".top"), /no answer/);
  await look.shot(shots, "lost");
  await look.axe("lost");
  await fleet.do("wake", "first");
  await timed("it is seen that it answers again", async () => (await look.page.locator(".lost").count()) === 0);
  await until("the page goes on", async () => /well|look at it/.test(await look.text(".state")));
  await look.check("a server that hangs");
  await look.close();
}

export async function two_servers_are_one_fleet_and_a_dead_one_is_seen(all) {
  const { fleet, shots } = all;
  const look = await opened(all, "#/fleet");
  const second = await fleet.do("second");
  await timed("a second server is seen", async () => /2 of 2 servers ready/.test(await look.text(".verdict")));
  await until("its addresses", async () => (await look.text()).includes(second.agents));
  await look.shot(shots, "two-servers");
  // The other server shows the same fleet.
  const other = await Look.open(all.browser, `http://${second.admin}/`);
  await other.go("#/fleet");
  await until("the same from there", async () => /2 of 2 servers ready/.test(await other.text(".verdict")));
  const ids = async (page) => (await page.page.locator(".card h3 .quiet[title]").evaluateAll((all) => all.map((one) => one.title))).sort();
  assert.deepEqual(await ids(other), await ids(look));
  await other.check("the second server's page");
  await other.close();
  await fleet.do("kill", "second");
  await timed("a killed server is seen", async () => /report_late|no_report|server_gone/.test(await look.text()));
  await look.shot(shots, "killed");
  await look.check("two servers");
  await look.close();
}

export async function servers_with_other_rules_are_seen(all) {
  const { fleet, shots } = all;
  await fleet.do("rules");
  await fleet.do("second");
  const look = await opened(all, "#/fleet");
  await timed("other rules are seen", async () => /rules_differ/.test(await look.text()));
  assert.match(await look.text(), /Compare mas\.yaml on the hosts/);
  await look.shot(shots, "rules-differ");
  await fleet.do("stop", "second");
  await look.close();
}

export async function a_redis_that_hangs_is_seen_and_heals(all) {
  const { fleet, shots } = all;
  const look = await opened(all, "#/fleet");
  await fleet.do("hang", "redis");
  await timed("a Redis that hangs is seen", async () => /not well/.test(await look.text(".state")));
  await until("what to do", async () => /mas check redis/.test(await look.text()));
  await look.shot(shots, "redis-hangs");
  await fleet.do("wake", "redis");
  await timed("it is seen that Redis answers again", async () => !/not well/.test(await look.text(".state")));
  await look.check("a Redis that hangs");
  await look.close();
}
