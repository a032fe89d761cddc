// What the dashboard does: live records, filters in the address, export, the keyboard, errors, colours.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Look, until } from "./support.mjs";

async function opened({ browser, fleet }, hash, format) {
  const look = await Look.open(browser, fleet.base, format);
  await look.go(hash);
  return look;
}

const field = (look, label) => look.page.locator("label", { hasText: new RegExp(`^${label}`) }).locator("input, select").first();
const cells = (look, head) => look.page.locator(`tbody td[data-head="${head}"]`).allInnerTexts();

export async function live_records_are_filtered_and_stand_still(all) {
  const { fleet } = all;
  const look = await opened(all, "#/messages?decision=AUTHZ_DENIED");
  await until("a refusal", async () => (await cells(look, "Decision")).length > 2);
  assert.ok((await cells(look, "Decision")).every((one) => one.includes("AUTHZ_DENIED")));
  assert.match(await look.text(".command code"), /^mas tap --decision AUTHZ_DENIED$/);
  // Without the filter a message of now is there, a moment later.
  await field(look, "Decision").selectOption("");
  await until("the stream without a filter", async () => (await cells(look, "Decision")).some((one) => one.includes("ALLOWED")));
  const id = await fleet.do("say", "planner", "worker", "job", '{"n": 9}');
  await until("the message is seen", async () => (await cells(look, "Message")).some((one) => one.includes(id.slice(-12))));
  await look.page.getByRole("button", { name: "Pause" }).click();
  await look.page.locator(".tag", { hasText: "paused" }).waitFor();
  assert.match(look.page.url(), /paused=1/);
  const before = await look.text(".table");
  const later = await fleet.do("say", "planner", "worker", "job", '{"n": 10}');
  await until("it is on record", async () => (await fetch(`${fleet.base}api/v1/messages/${later}`)).ok);
  assert.equal(await look.text(".table"), before);
  await look.page.getByRole("button", { name: "Go on" }).click();
  await until("the stream again", async () => (await look.text(".table")) !== before);
  const next = await fleet.do("say", "planner", "worker", "job", '{"n": 11}');
  await until("records come again", async () => (await cells(look, "Message")).some((one) => one.includes(next.slice(-12))));
  // A message leads to its life.
  await look.page.getByTitle(next).first().click();
  await until("its life", async () => (await look.text()).includes("acked"));
  await look.check("live");
  await look.close();
}

export async function the_address_has_the_state(all) {
  const look = await opened(all, "#/messages?mode=search");
  await field(look, "From").fill("planner");
  await field(look, "Decision").selectOption("AUTHZ_DENIED");
  await until("both are in the address", () => /from=planner/.test(look.page.url()) && /decision=AUTHZ_DENIED/.test(look.page.url()));
  await look.page.reload();
  await look.settled();
  assert.equal(await field(look, "From").inputValue(), "planner");
  const decisions = await cells(look, "Decision");
  assert.ok(decisions.length && decisions.every((one) => one.includes("AUTHZ_DENIED")), `${decisions}`);
  assert.match(await look.text(".command code"), /^mas audit query --from 1h --sender planner --decision AUTHZ_DENIED/);
  await look.go("#/agents?sort=-waiting");
  assert.ok((await look.page.locator("tbody tr").first().innerText()).startsWith("absent"));
  assert.equal(await look.page.locator("th[aria-sort=descending]").innerText(), "Waiting ↓");
  await look.close();
}

export async function a_long_search_goes_on(all) {
  await all.fleet.do("talk", "150");
  const look = await opened(all, "#/messages?mode=search&since=all&action=send");
  const first = await cells(look, "Record");
  assert.equal(first.length, 100);
  await look.page.getByRole("button", { name: "Search on" }).click();
  await until("more", async () => /\b(1[0-9]{2}|200) records/.test(await look.text()));
  await look.close();
}

export async function rows_are_exported(all) {
  const { fleet } = all;
  // A spreadsheet takes what begins like this for a formula.
  await fleet.do("say", "planner", "worker", "=cmd()", "{}");
  const look = await opened(all, "#/messages?mode=search&from=planner&action=send");
  await until("the message is found", async () => {
    await look.page.getByRole("button", { name: "Search again" }).click();
    await look.settled();
    return (await cells(look, "Type")).includes("=cmd()");
  });
  const saved = {};
  for (const kind of ["JSON", "CSV"]) {
    const download = look.page.waitForEvent("download");
    await look.page.getByRole("button", { name: kind, exact: true }).click();
    saved[kind] = readFileSync(await (await download).path(), "utf8");
  }
  const rows = JSON.parse(saved.JSON);
  const shown = await cells(look, "Type");
  assert.deepEqual(rows.map((row) => row.message_type), shown);
  const lines = saved.CSV.trimEnd().split("\r\n");
  assert.equal(lines[0], "time,action,decision,agent,target,type,why,message_id,record");
  assert.equal(lines.length, rows.length + 1);
  assert.ok(lines.some((line) => line.includes(",'=cmd(),")), lines[1]);
  await look.check("export");
  await look.close();
}

export async function what_strangers_write_is_text(all) {
  const evil = "<img src=x onerror=window.hit=1>";
  await all.fleet.do("say", "planner", evil, evil, "{}");
  await all.fleet.do("say", "planner", "worker", evil, "{}");
  const look = await opened(all, "#/messages?mode=search&from=planner&since=5m");
  await until("it is found", async () => {
    await look.page.getByRole("button", { name: "Search again" }).click();
    await look.settled();
    return (await look.text()).includes(evil);
  });
  assert.equal(await look.page.evaluate(() => [document.querySelectorAll("main img").length, window.hit]).then(String), "0,");
  await look.check("strangers");
  await look.close();
}

export async function the_keyboard_suffices(all) {
  const look = await opened(all, "#/fleet");
  const focused = () => look.page.evaluate(() => `${document.activeElement?.tagName} ${document.activeElement?.textContent ?? ""}`);
  await look.page.keyboard.press("Tab");
  assert.match(await focused(), /To the content/);
  await look.page.keyboard.press("Enter");
  assert.match(await focused(), /^MAIN/);
  await look.page.keyboard.press("Shift+Tab");
  // The last of the navigation; back to the map.
  for (let n = 0; n < 20 && !/^A Map/.test(await focused()); n += 1) await look.page.keyboard.press("Shift+Tab");
  const ring = await look.page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(ring, "solid", "focus is seen");
  await look.page.keyboard.press("Enter");
  await look.page.waitForSelector(".matrix svg");
  assert.match(await focused(), /^H1 Map/);
  for (let n = 0; n < 20 && !(await look.page.evaluate(() => document.activeElement?.classList.contains("matrix"))); n += 1) await look.page.keyboard.press("Tab");
  const map = await all.fleet.api("map");
  for (const key of ["Home", "ArrowDown", "ArrowDown", "ArrowRight"]) await look.page.keyboard.press(key);
  assert.ok((await look.text(".readout")).startsWith(`${map.agents[2]} to ${map.agents[1]}:`), await look.text(".readout"));
  // It is read out, too.
  assert.equal(await look.page.locator("[aria-live=polite]").first().textContent(), await look.text(".readout"));
  await look.page.keyboard.press("d");
  assert.match(await look.text(".readout"), /refused/);
  const [, from, to] = /^(\S+) to (\S+):/.exec(await look.text(".readout"));
  await look.page.keyboard.press("Enter");
  await look.page.waitForURL(new RegExp(`mode=search&from=${from}&to=${to}`));
  await look.settled();
  assert.ok((await cells(look, "To")).every((one) => one === to));
  await look.check("keyboard");
  await look.close();
}

export async function errors_say_what_to_do(all) {
  const look = await opened(all, "#/messages?mode=search&until=nonsense");
  look.expected.push(/status of 4/);
  const answer = await fetch(`${all.fleet.base}api/v1/records?until=nonsense`);
  assert.equal(answer.status, 400);
  const { error } = await answer.json();
  let said = await look.text("[role=alert].notice, .notice[role=alert]");
  assert.ok(said.includes(error) && said.includes("Change the filter that is named"), said);
  await look.shot(all.shots, "error-filter");
  await look.axe("error");
  await look.go("#/messages/00000000-0000-7000-8000-000000000000");
  said = await look.text(".notice.bad");
  assert.ok(said.includes("Look at the id"), said);
  await look.go("#/agents/nobody");
  assert.ok((await look.text(".notice.bad")).length > 20);
  await look.go("#/nowhere");
  assert.match(await look.text(), /There is no page nowhere/);
  await look.check("errors");
  await look.close();
}

export async function a_first_paint_waits_for_no_data({ browser, fleet }) {
  const look = await Look.open(browser, fleet.base);
  await look.page.route("**/api/**", () => undefined);
  await look.page.goto(`${fleet.base}#/performance`);
  await look.page.getByRole("heading", { name: "Performance" }).waitFor();
  assert.equal(await look.page.getByRole("link", { name: "Dead letters" }).count(), 1);
  assert.match(await look.text(), /Asking for the history/);
  await look.close();
  const times = [];
  for (const page of ["fleet", "map", "agents", "messages", "letters", "policy", "audit", "performance"]) {
    const timed = await Look.open(browser, fleet.base);
    await timed.go(`#/${page}`);
    const paint = await until("a paint", () => timed.page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime));
    times.push(`${page} ${Math.round(paint)} ms`);
    await timed.close();
  }
  console.log(`      first paint: ${times.join(", ")}`);
}

/** Every chart of a history that is as odd as one can be: of a server that has just started, does nothing, or does a great deal. */
export async function charts_of_any_history_are_drawn(all) {
  const { time_unix_ms: [now] } = await (await fetch(`${all.fleet.base}api/v1/performance?seconds=60`)).json();
  const column = (make, length) => Array.from({ length }, (_, at) => make(at));
  const history = (length, make) => ({
    server: "host:1", interval_ms: 1000, time_unix_ms: column((at) => now + at * 1000, length), decisions: { ALLOWED: column(make, length), AUTHZ_DENIED: column(make, length) },
    deliveries: column(make, length),
    ...Object.fromEntries(["queue_delay_us", "commit_us", "policy_us"].map((kind) => [kind, { p50: column(make, length), p95: column(make, length), p99: column(make, length) }])),
    workers_busy: [column(make, length)], mailbox_depth: [column(make, length)], redis_used_bytes: column(make, length), redis_max_bytes: 0, connections: column(make, length), sessions: column(make, length),
  });
  const odd = {
    "nothing yet": history(0, () => 0), "one zero": history(1, () => 0), "zeros": history(60, () => 0), "unknown": history(60, () => null), "one value": history(1, () => 7),
    "fractions": history(60, (at) => at * 1e-9), "gaps": history(60, (at) => at % 2 ? at : null), "a great deal": history(60, (at) => Number.MAX_SAFE_INTEGER - at),
    "one peak": history(60, (at) => at === 30 ? 1e12 : 0),
  };
  for (const [what, body] of Object.entries(odd)) {
    for (const { width, height } of [{ width: 1280, height: 900 }, { width: 390, height: 844 }]) {
      const look = await Look.open(all.browser, all.fleet.base, { width, height });
      await look.page.route("**/api/v1/performance*", (route) => route.fulfill({ json: body }));
      await look.go("#/performance");
      if (body.time_unix_ms.length) await until("charts", async () => await look.page.locator(".chart svg path.grid").count() > 8);
      const drawn = await look.page.locator("main").innerHTML();
      assert.ok(!/NaN|Infinity|undefined/.test(drawn), `${what}: ${drawn.match(/.{80}(NaN|Infinity|undefined).{80}/)?.[0]}`);
      await look.check(`performance of ${what}, ${width} px`);
      await look.close();
    }
  }
}

export async function colours_are_chosen_and_kept(all) {
  const look = await opened(all, "#/fleet");
  const ground = () => look.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await look.page.getByLabel("Colours").selectOption("dark");
  const dark = await ground();
  assert.notEqual(light, dark);
  await look.page.reload();
  await look.settled();
  assert.equal(await ground(), dark);
  await look.close();
}

export async function only_who_may_is_offered_to_redrive(all) {
  const answer = await fetch(`${all.fleet.base}api/v1/commands`);
  const listed = answer.ok ? JSON.stringify(await answer.json()) : "";
  const look = await opened(all, "#/letters");
  const offered = await look.page.getByRole("button", { name: /^Put these/ }).count();
  assert.equal(offered, listed.includes("dead_letters_redrive") ? 1 : 0);
  await look.close();
}
