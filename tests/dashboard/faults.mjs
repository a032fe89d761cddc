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

/**
 * A fault is seen on the page, by `mas doctor` and in /readyz, each with words that say what to do. `code` and `remedy`: of the doctor;
 * `base`: of the server whose readiness tells.
 */
async function seenEverywhere({ fleet }, look, what, { page, code, remedy, readyz, base = fleet.base }) {
  const began = Date.now();
  const after = {};
  const watch = async (where, condition) => {
    await until(`${what}: ${where}`, condition);
    after[where] = `${((Date.now() - began) / 1000).toFixed(1)} s`;
  };
  await Promise.all([
    watch("page", async () => page.test(await look.text())),
    watch("readyz", async () => readyz.test(await (await fetch(`${base}readyz?verbose`)).text())),
    watch("doctor", async () => {
      const found = await fleet.do("doctor", new URL(base).host);
      return found.some((one) => one.code === code && remedy.test(`${one.evidence} ${one.remedy}`));
    }),
  ]);
  console.log(`      ${what}: ${Object.entries(after).map(([where, time]) => `${where} ${time}`).join(", ")}`);
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
  await seenEverywhere(all, look, "a server that was killed", {
    page: /server_gone[\s\S]*Look whether mas-server runs on that host/, readyz: /\[!\] server_gone: .*/, code: "server_trouble", remedy: /server_gone.*docs\/metrics\.md/,
  });
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
  await seenEverywhere(all, look, "a Redis that hangs", {
    page: /Look whether Redis runs and answers: mas check redis/, readyz: /\[-\] redis: .*is Redis running/, code: "redis_unreachable", remedy: /mas check redis/,
  });
  assert.match(await look.text(".state"), /not well/);
  await look.shot(shots, "redis-hangs");
  await fleet.do("wake", "redis");
  await timed("it is seen that Redis answers again", async () => !/not well/.test(await look.text(".state")));
  await look.check("a Redis that hangs");
  await look.close();
}

export async function a_circuit_that_opens_is_seen(all) {
  const { fleet, shots } = all;
  const look = await opened(all, "#/fleet");
  if (/circuit of flaky is open/.test(await look.text())) await fleet.mas("circuit", "close", "flaky");
  await until("the circuit is closed", async () => !/circuit of flaky is open/.test(await look.text()));
  for (let n = 0; n < 3; n += 1) await fleet.do("say", "planner", "flaky", "job", "{}");
  await seenEverywhere(all, look, "a circuit that opens", {
    page: /the circuit of flaky is open[\s\S]*mas tap --agent flaky/, readyz: /\[!\] circuit_open: nothing is sent to flaky/, code: "circuit_open", remedy: /flaky.*mas dlq list/,
  });
  await look.shot(shots, "circuit-open");
  await fleet.mas("circuit", "close", "flaky");
  await timed("it is seen that it is closed", async () => !/circuit of flaky is open/.test(await look.text()));
  await look.close();
}

export async function a_disk_that_is_full_is_seen_and_heals(all) {
  const { fleet, shots } = all;
  if (!(await fleet.do("disk", "full"))) {
    console.log("      NOT TRIED: no file system can be mounted here");
    return;
  }
  const look = await opened(all, "#/fleet");
  await seenEverywhere(all, look, "a disk that is full", {
    page: /disk_low[\s\S]*Make room on that disk/, readyz: /\[!\] disk_low: gateway\.audit\.anchor_path/, code: "disk_full", remedy: /anchor/,
  });
  await timed("checkpoints that fail are seen", async () => /checkpoints_failing[\s\S]*Look at the disk of the anchor/.test(await look.text()));
  await look.shot(shots, "disk-full");
  await fleet.do("disk", "free");
  await timed("it is seen that there is room again", async () => !/checkpoints_failing|disk_low/.test(await look.text()));
  await look.close();
}

export async function a_certificate_that_has_ended_is_seen(all) {
  const { fleet, shots } = all;
  const look = await opened(all, "#/fleet");
  await fleet.do("ended", "vault");
  await seenEverywhere(all, look, "an agent's certificate that has ended", {
    page: /the certificate of vault has ended[\s\S]*mas certs issue vault/, readyz: /\[!\] certificate_expired: the certificate of vault/, code: "agent_certificate_ended", remedy: /vault.*mas certs issue vault/,
  });
  await look.shot(shots, "certificate-ended");
  const { admin } = await fleet.do("short");
  const base = `http://${admin}/`;
  await until("it is not well yet", async () => /certificate server ends in/.test(await look.text()));
  await until("it ends", async () => !(await fetch(`${base}readyz`)).ok);
  await seenEverywhere(all, look, "a server's certificate that has ended", {
    page: /certificate server has ended[\s\S]*mas certs issue/, readyz: /\[-\] certificate: .*mas certs issue --server/, code: "server_not_ready", remedy: /certificate/, base,
  });
  await look.shot(shots, "server-certificate-ended");
  await fleet.do("stop", "short");
  await look.close();
}

export async function a_quarantine_is_seen(all) {
  const { fleet, shots } = all;
  const look = await opened(all, "#/fleet");
  await fleet.mas("quarantine", "worker", "--reason", "it leaks");
  await seenEverywhere(all, look, "a quarantine", {
    page: /agent:worker is shut out since .* by .*it leaks[\s\S]*mas release worker/, readyz: /\[!\] quarantined: agent:worker, by .*mas release/, code: "quarantined", remedy: /worker.*mas release worker/,
  });
  await look.shot(shots, "quarantine");
  await look.go("#/agents/worker");
  assert.match(await look.text(), /shut out|quarantine/i);
  await fleet.mas("release", "worker");
  await look.go("#/fleet");
  await timed("it is seen that it is let in", async () => !/agent:worker is shut out/.test(await look.text()));
  await look.close();
}
