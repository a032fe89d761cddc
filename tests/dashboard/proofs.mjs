// Proofs, verified in the browser: true for what is true, false for everything else.

import assert from "node:assert/strict";
import { createHash, generateKeyPairSync, sign } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Look, ROOT, until } from "./support.mjs";

const PARTS = ["record", "path", "checkpoint", "signature"];

/** Where the decision on a message stands, once a checkpoint covers it. */
async function placeOf(fleet, id) {
  const { chain } = await fleet.api(`messages/${id}`);
  const { lane, seq } = chain[0];
  await until("a checkpoint covers it", async () => (await fetch(`${fleet.base}api/v1/proofs/${lane}/${seq}`)).ok);
  return { lane, seq };
}

async function open({ browser, fleet }, id, format) {
  const { lane, seq } = await placeOf(fleet, id);
  const look = await Look.open(browser, fleet.base, format);
  await look.go(`#/messages/${id}`);
  await look.page.getByRole("button", { name: "Prove the decision" }).click();
  return { look, lane, seq };
}

/** What the browser says of it: whether it is proven, and which steps fail. */
async function verdict(look, proven) {
  await look.page.locator(`[data-proven="${proven}"]`).waitFor();
  return look.page.locator("[data-step]").evaluateAll((all) => all.filter((one) => one.dataset.ok !== "true").map((one) => one.dataset.step));
}

export async function a_proof_is_verified_and_one_changed_bit_is_noticed(all) {
  for (const format of [{}, { width: 390, height: 844, scheme: "dark" }]) {
    const { look, seq } = await open(all, all.fleet.said.allowed, format);
    assert.deepEqual(await verdict(look, true), []);
    assert.equal(await look.page.locator("[data-step]").count(), 6);
    await look.shot(all.shots, `proof-${format.width ?? 1280}`);
    await look.axe("proof");
    const failing = { record: "Lane in the checkpoint", path: "Lane in the checkpoint", checkpoint: "Signature", signature: "Signature" };
    for (const part of PARTS) {
      await look.page.getByRole("button", { name: part, exact: true }).click();
      const steps = await verdict(look, false);
      assert.ok(steps.includes(failing[part]), `${part}: ${steps}`);
      assert.ok((await look.text()).includes(`One bit of the ${part} was changed`), part);
      if (part === "record") await look.shot(all.shots, `proof-changed-${format.width ?? 1280}`);
      await look.page.getByRole("button", { name: part, exact: true }).click();
      assert.deepEqual(await verdict(look, true), []);
    }
    assert.ok((await look.text()).includes(`record ${seq}`));
    await look.check("proof");
    await look.close();
  }
}

export async function what_is_saved_satisfies_the_command_and_changes_of_it_do_not(all) {
  const { look } = await open(all, all.fleet.said.redacted);
  const folder = mkdtempSync(join(tmpdir(), "mas-proof-"));
  try {
    assert.deepEqual(await verdict(look, true), []);
    for (const [button, file] of [["Save the proof", "proof.json"], ["Save the public key", "audit.pub"]]) {
      const download = look.page.waitForEvent("download");
      await look.page.getByRole("button", { name: button }).click();
      await (await download).saveAs(join(folder, file));
    }
    const [proof, key] = [join(folder, "proof.json"), join(folder, "audit.pub")];
    assert.match(await all.fleet.do("mas", "audit", "proof", "--check", proof, "--public-key", key), /proven: under checkpoint/);
    // The page's own code, in Node: it and the command say the same of every change.
    const { verify, withOneByteChanged } = await own();
    const [good, keys] = [JSON.parse(readFileSync(proof, "utf8")), readFileSync(key, "utf8")];
    assert.equal((await verify(good, keys, null)).proven, true);
    for (const part of PARTS) assert.equal((await verify(withOneByteChanged(good, part), keys, null)).proven, false, part);
    const bytes = Buffer.from(good.record, "base64");
    for (let at = 0; at < bytes.length; at += 1) {
      const other = Buffer.from(bytes);
      other[at] ^= 1 << at % 8;
      assert.equal((await verify({ ...good, record: other.toString("base64") }, keys, null)).proven, false, `byte ${at} of the record`);
    }
    for (const change of [{ sequence: good.sequence + 1 }, { lane_size: good.lane_size + 1 }, { lane: `${good.lane}x` }, { path: good.path.slice(1) },
      { path: [...good.path, good.path[0]] }, { mas_audit_proof: 2 }, { record: `${good.record}=` }, { checkpoint: good.checkpoint.replace("\n\n", "\nlane z 1 x\n\n") }]) {
      assert.equal((await verify({ ...good, ...change }, keys, null)).proven, false, JSON.stringify(change).slice(0, 80));
    }
  } finally {
    rmSync(folder, { recursive: true });
    await look.close();
  }
}

/** dashboard/src/verify.ts, as a module of Node's. */
async function own() {
  const { build } = createRequire(`${ROOT}dashboard/package.json`)("esbuild");
  const { outputFiles: [file] } = await build({ entryPoints: [`${ROOT}dashboard/src/verify.ts`], bundle: true, write: false, format: "esm" });
  return import(`data:text/javascript;base64,${Buffer.from(file.contents).toString("base64")}`);
}

export async function answers_that_lie_are_not_believed(all) {
  const id = all.fleet.said.allowed;
  const { lane, seq } = await placeOf(all.fleet, id);
  const lies = {
    "another decision": [(answer) => { answer.record.decision = "AUTHZ_DENIED"; }, "Record"],
    "another target": [(answer) => { answer.record.target = "vault"; }, "Record"],
    "another place": [(answer) => { answer.proof.sequence += 1; }, "Record"],
    "a key that is none": [(answer) => { answer.public_key_file = "nothing\n"; }, "Key"],
    "another log's key": [(answer) => { answer.public_key_file = otherLog().text; }, "Key"],
  };
  for (const [name, [lie, step]] of Object.entries(lies)) {
    const look = await Look.open(all.browser, all.fleet.base);
    await change(look, lie);
    await look.go(`#/messages/${id}?proof=${encodeURIComponent(`${lane}:${seq}`)}`);
    assert.ok((await verdict(look, false)).includes(step), name);
    await look.close();
  }
  // A server that has a log of its own making can prove anything, unless its reader knows which log is meant.
  const look = await Look.open(all.browser, all.fleet.base);
  const other = otherLog();
  await change(look, (answer) => {
    const [text] = answer.proof.checkpoint.split("\n\n");
    const forged = `${text.replace(/^mas\.audit\/\S+/, other.name)}\n`;
    const signature = Buffer.concat([other.hash, sign(null, Buffer.from(forged), other.privateKey)]).toString("base64");
    answer.proof.checkpoint = `${forged}\n— ${other.name} ${signature}\n`;
    answer.public_key_file = other.text;
  });
  await look.go(`#/messages/${id}?proof=${encodeURIComponent(`${lane}:${seq}`)}`);
  assert.deepEqual(await verdict(look, true), []);
  assert.ok((await look.text()).includes("it came from the same server. Compare the log id"));
  const { log } = await all.fleet.api("audit");
  await look.page.getByLabel("Log id").fill(log.id);
  await look.page.getByLabel("Log id").press("Tab");
  assert.deepEqual(await verdict(look, false), ["Key"]);
  await look.close();
}

async function change(look, lie) {
  await look.page.route("**/api/v1/proofs/**", async (route) => {
    const response = await route.fetch();
    const answer = await response.json();
    lie(answer);
    await route.fulfill({ response, json: answer });
  });
}

/** A log with a key of its own. */
function otherLog() {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const raw = publicKey.export({ format: "der", type: "spki" }).subarray(-32);
  const name = `mas.audit/${createHash("sha256").update(raw).digest("hex").slice(0, 16)}`;
  const typed = Buffer.concat([Buffer.from([1]), raw]);
  const hash = createHash("sha256").update(`${name}\n`).update(typed).digest().subarray(0, 4);
  return { name, hash, privateKey, text: `${name}+${hash.toString("hex")}+${typed.toString("base64")}\n` };
}

export async function a_key_that_was_replaced_is_followed(all) {
  const { fleet } = all;
  const keysOf = async () => (await fleet.api("audit")).log.keys.length;
  const before = await keysOf();
  await fleet.mas("audit", "key", "rotate");
  await until("the server has another key", async () => (await keysOf()) === before + 1);
  const id = await fleet.do("say", "planner", "worker", "job", "{}");
  // Checkpoints by the new key cover it once its time has come.
  const { look } = await open(all, id);
  assert.deepEqual(await verdict(look, true), []);
  assert.ok((await look.text("[data-step=Key]")).includes("1 rotation(s), each signed by the key before"));
  // What the old key has signed stays proven.
  await look.close();
  const { look: old } = await open(all, fleet.said.allowed);
  assert.deepEqual(await verdict(old, true), []);
  await old.close();
}
