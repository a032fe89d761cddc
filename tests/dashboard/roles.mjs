// Whoever comes from elsewhere shows an operator's certificate, and sees and does what the operator's role allows.

import assert from "node:assert/strict";
import { Look, launch, until } from "./support.mjs";

/** A browser with an operator's certificate. */
async function as(fleet, name, admin) {
  const base = `https://127.0.0.1:${admin.split(":").pop()}/`;
  const files = `${fleet.folder}/certs/operators/${name}`;
  const browser = await launch();
  const look = await Look.open(browser, base, {}, {
    ignoreHTTPSErrors: true,
    clientCertificates: [{ origin: base.slice(0, -1), certPath: `${files}.pem`, keyPath: `${files}.key` }],
  });
  look.expected = [/status of 40[34]/];
  return { look, end: async () => { await look.close(); await browser.close(); } };
}

export async function roles_see_and_do_what_they_may({ fleet, shots }) {
  const { admin } = await fleet.do("elsewhere");
  const rita = await as(fleet, "rita", admin);
  try {
    await rita.look.go("#/fleet");
    await until("who looks", async () => (await rita.look.text(".where")).includes("rita (reader)"));
    await rita.look.go("#/letters");
    const said = await rita.look.text(".notice.bad");
    assert.match(said, /reader/);
    assert.match(said, /Ask whoever keeps mas\.yaml for a role/);
    await rita.look.shot(shots, "reader");
    await rita.look.go("#/messages");
    await until("records are refused", async () => /Ask whoever keeps mas\.yaml/.test(await rita.look.text()));
    await rita.look.check("a reader's pages");
  } finally {
    await rita.end();
  }
  const olga = await as(fleet, "olga", admin);
  try {
    const { look } = olga;
    await look.go("#/letters?order=oldest");
    await until("who looks", async () => (await look.text(".where")).includes("olga (operator)"));
    assert.ok((await look.page.locator("tbody tr").count()) >= 4);
    const listed = await look.page.evaluate(() => fetch("/api/v1/commands").then((answer) => answer.ok ? answer.json() : { commands: [] }));
    if (listed.commands.includes("dead_letters_redrive")) await redrive(look, fleet, shots);
    else console.log("      NOT RUN: this server carries out no commands");
    await look.check("an operator's pages");
  } finally {
    await olga.end();
    await fleet.do("stop", "elsewhere");
  }
}

async function redrive(look, fleet, shots) {
  const { letters } = await fleet.api("dead-letters?order=oldest");
  const letter = letters.find((one) => one.message_id === fleet.said.dies);
  await look.page.getByRole("link", { name: letter.id }).click();
  await look.settled();
  await look.page.getByRole("button", { name: "Put it back" }).click();
  const dialog = look.page.locator("dialog[open]");
  assert.ok(await dialog.getByRole("button", { name: "Put it back" }).isDisabled(), "a reason is asked for");
  await dialog.getByLabel("Reason").fill("the parser is mended");
  await look.axe("asking for a reason");
  await look.shot(shots, "redrive");
  await dialog.getByRole("button", { name: "Put it back" }).click();
  await look.page.getByText("1 done").waitFor();
  await look.page.getByRole("link", { name: "on record" }).click();
  await until("who did it and why is on record", async () => /olga.*the parser is mended/s.test(await look.text(".proof")));
  await look.page.locator('[data-proven="true"]').waitFor();
  await look.shot(shots, "redrive-proof");
  await until("the letter is gone", async () => !(await fleet.api("dead-letters")).letters.some((one) => one.id === letter.id));
}
