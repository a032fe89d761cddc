// The agent's state.

import assert from "node:assert/strict";
import { NotConnected, VersionMismatch, type StandardSchema } from "mas-agent";
import { z } from "zod";
import { behaviour } from "./behaviour.js";
import { blocked, failure, gate, until } from "./wait.js";
import { World } from "./world.js";

const world = await World.make();

const Counter = z.object({ count: z.number().default(0) });

behaviour("state.change", "changes that depend on what was lose nothing, within a process and between two", async () => {
  const [name] = world.names(1);
  const agents = [await world.started(name), await world.started(name, { instanceId: "i1" })];
  const add = agents.flatMap((agent) =>
    Array.from({ length: 20 }, () => agent.changeState(Counter, ({ count }) => ({ count: count + 1 }))),
  );
  const versions = await Promise.all(add);
  assert.equal(new Set(versions).size, 40);
  assert.deepEqual(await (await agents[0]!.getState()).parse(Counter), { count: 40 });
});

behaviour("state.change", "a change that fails fails its caller alone, and its time bounds its turn", async () => {
  const [name] = world.names(1);
  const agent = await world.started(name);
  const slow = agent.changeState(async () => {
    await failure(Error, agent.changeState(() => ({}), { timeout: 50 }));
    throw new Error("its own");
  });
  const next = agent.changeState(() => ({ text: "next" }));
  await assert.rejects(slow, /its own/);
  assert.deepEqual(await next, { text: "next" });
});

behaviour("state.versions", "state is read with its version and written on condition of one", async () => {
  const [name] = world.names(1);
  const agent = await world.started(name);
  assert.equal((await agent.getState()).version, 0);
  const version = await agent.updateState({ text: "plain", list: [1], none: null }, { expectedVersion: 0 });
  const refused = await failure(VersionMismatch, agent.updateState({ text: "other" }, { expectedVersion: version + 1 }));
  assert.equal(refused.detail, "version_mismatch");
  const state = await agent.getState();
  assert.equal(state.version, version);
  assert.deepEqual(state.fields, { text: "plain", list: "[1]", none: "null" });
  await agent.resetState();
  assert.deepEqual((await agent.getState()).fields, {});
});

behaviour("state.versions", "a schema reads fields that are texts, JSON, or look like the other", async () => {
  const [name] = world.names(1);
  const agent = await world.started(name);
  await agent.updateState({ digits: "123", quoted: '"q"', number: 5, list: ["a"], nothing: null });
  const Fields = z.object({
    digits: z.string(),
    quoted: z.string(),
    number: z.number(),
    list: z.array(z.string()),
    nothing: z.null(),
    absent: z.boolean().default(true),
  });
  const parsed = await (await agent.getState()).parse(Fields);
  assert.deepEqual(parsed, { digits: "123", quoted: '"q"', number: 5, list: ["a"], nothing: null, absent: true });
  await assert.rejects((await agent.getState()).parse(z.object({ list: z.number() })), /the state .*\/list/);
  await agent.updateState({ gone: 1 }, { ttl: 50 });
  await until("the state is gone", async () => !("gone" in (await agent.getState()).fields));
});

behaviour("state.change", "its time bounds what the change does, too, and nothing is written after it", async () => {
  const [name] = world.names(1);
  const agent = await world.started(name);
  const late = gate<object>();
  const { message } = await failure(NotConnected, agent.changeState(async () => late.promise, { timeout: 50 }));
  assert.match(message, /not done within 0.05 s; nothing was written/);
  late.open({ text: "late" });
  const blocks = (): object => {
    blocked(60);
    return { text: "late" };
  };
  await failure(NotConnected, agent.changeState(blocks, { timeout: 50 }));
  await agent.changeState(({ fields }) => ({ next: JSON.stringify(fields) }));
  assert.deepEqual((await agent.getState()).fields, { next: "{}" });
});

behaviour("state.versions", "fields are read as they are, whatever their names and however long their numbers", async () => {
  const [name] = world.names(1);
  const agent = await world.started(name);
  await agent.updateState(JSON.parse('{"__proto__": {"admin": true}, "long": "9007199254740993", "large": 1e20}') as object);
  let refused = 0;
  /** Refuses what it is given first. */
  const asIs: StandardSchema<unknown, Record<string, unknown>> = {
    "~standard": {
      version: 1,
      vendor: "test",
      validate: (value) =>
        (refused += 1) === 1
          ? { issues: [{ message: "none", path: ["__proto__"] }, { message: "none", path: ["toString"] }] }
          : { value: value as Record<string, unknown> },
    },
  };
  const state = await agent.getState();
  const again = await state.parse(asIs);
  const once = await state.parse(asIs);
  for (const [values, proto] of [[again, '{"admin":true}'], [once, { admin: true }]] as const) {
    assert.equal(Object.getPrototypeOf(values), Object.prototype);
    const fields = Object.entries(values).sort(([one], [other]) => (one < other ? -1 : 1));
    assert.deepEqual(fields, [["__proto__", proto], ["large", 1e20], ["long", "9007199254740993"]]);
  }
});
