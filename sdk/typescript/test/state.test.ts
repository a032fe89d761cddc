// The agent's state.

import assert from "node:assert/strict";
import { VersionMismatch } from "mas-agent";
import { z } from "zod";
import { behaviour } from "./behaviour.js";
import { failure, until } from "./wait.js";
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
