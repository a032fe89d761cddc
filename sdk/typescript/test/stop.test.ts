// The end of an agent.

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { NotConnected, OutcomeUnknown, Retry } from "mas-agent";
import type { ClientEvent } from "../src/proto/mas/runtime/v1/runtime.js";
import { behaviour } from "./behaviour.js";
import { failure, gate, until } from "./wait.js";
import { plainServer } from "./wires.js";
import { Heard, World } from "./world.js";

const world = await World.make({ settings: "delivery: {reclaim_idle_ms: 1000}" });
const program = (name: string): string => fileURLToPath(new URL(`./programs/${name}.js`, import.meta.url));

behaviour("stop.drain", "takes no further messages and lets handlers finish, with all that they can do", async () => {
  const [name, asker, target] = world.names(3);
  const agent = world.agent(name, { concurrency: 1, drainTimeout: 20_000 });
  const [began, release] = [gate(), gate()];
  let begun = 0;
  agent.on("job", async (message) => {
    begun += 1;
    began.open();
    await release.promise;
    await agent.changeState(({ fields }) => ({ n: Number(fields["n"] ?? 0) + 1 }));
    await agent.send(target, "note");
    assert.ok((await agent.discover()).length > 0);
    await message.reply("done");
  });
  await agent.start();
  const asks = await world.started(asker);
  const reply = asks.request(name, "job");
  await began.promise;
  await asks.send(name, "job");
  const stopped = agent.stop();
  await asks.send(name, "job");
  release.open();
  assert.equal((await reply).type, "done");
  await stopped;
  assert.equal(begun, 1);
  assert.equal(agent.isConnected, false);
  await failure(NotConnected, agent.send(target, "note"));
  assert.equal(await world.redis("xlen", `agent.stream:${name}`), "2");
  assert.equal(await world.redis("xlen", `agent.stream:${target}`), "1");
  assert.deepEqual(await world.dead(name), []);
});

behaviour("handler.calls", "a handler can stop its agent, and its message is acknowledged", async () => {
  const [name, asker] = world.names(2);
  const agent = world.agent(name, { drainTimeout: 20_000 });
  agent.on("stop", async (message) => {
    await agent.stop();
    await message.reply("stopping");
  });
  await agent.start();
  const reply = await (await world.started(asker)).request(name, "stop");
  assert.equal(reply.type, "stopping");
  await agent.wait();
  assert.equal(agent.isConnected, false);
  await world.nothingLeft(name);
  await failure(NotConnected, agent.discover());
  await agent.start();
});

behaviour("stop.drain", "what the server does not answer any more fails when the agent is stopped, and not when its own time is over", async () => {
  const [name, peer] = world.names(2);
  const agent = await world.started(name);
  await agent.getState();
  const { process } = world.server;
  process.signal("SIGSTOP");
  try {
    const calls = [agent.updateState({ a: 1 }), agent.send(peer, "note")].map((call) => failure(OutcomeUnknown, call));
    await new Promise(setImmediate);
    const began = performance.now();
    await agent.stop();
    const [updated, sent] = await Promise.all(calls);
    assert.match(updated?.message ?? "", /updateState: outcome unknown: the agent was stopped before the answer/);
    assert.match(sent?.message ?? "", /outcome unknown: the session ended before the answer/);
    assert.ok(performance.now() - began < 5_000);
  } finally {
    process.signal("SIGCONT");
  }
});

behaviour("stop.drain", "can be started again", async () => {
  const [name] = world.names(1);
  const agent = await world.started(name);
  await Promise.all([agent.stop(), agent.stop()]);
  await agent.start();
  assert.equal(agent.isConnected, true);
});

behaviour("stop.untouched", "what is not finished stays as it was, whatever the handler does", async () => {
  const [name, peer, target] = world.names(3);
  const heard = new Heard();
  const agent = world.agent(name, { drainTimeout: 50, logger: heard });
  const kinds = ["returns", "throws", "retries", "commits", "sends", "hangs"];
  let working = 0;
  const ends: Promise<unknown>[] = [];
  agent.onOther((message) => {
    const end = (async () => {
      working += 1;
      await new Promise((resolve) => message.signal.addEventListener("abort", resolve));
      switch (message.type) {
        case "throws":
          throw new Error("cancelled");
        case "retries":
          throw new Retry("cancelled");
        case "commits":
          return failure(NotConnected, message.commit((commit) => commit.send(target, "note")));
        case "sends":
          return failure(NotConnected, message.reply("answer").then(() => agent.send(target, "note")));
        case "hangs":
          return new Promise(() => undefined);
        default:
          return undefined;
      }
    })();
    if (message.type !== "hangs") ends.push(end.catch(() => undefined));
    return end;
  });
  await agent.start();
  const sender = await world.started(peer);
  for (const kind of kinds) {
    if (kind === "sends") sender.request(name, kind).catch(() => undefined);
    else await sender.send(name, kind);
  }
  await until("all are at work", () => working === kinds.length);
  await agent.stop();
  await Promise.all(ends);
  assert.ok(heard.has("warn", "6 handlers did not finish within 0.05 s"));
  assert.deepEqual(await world.dead(name), []);
  assert.equal(await world.redis("xlen", `agent.stream:${target}`), "0");
  const again: string[] = [];
  const next = world.agent(name, { instanceId: "i1" });
  next.onOther((message) => again.push(`${message.type} ${message.attempt}`));
  await next.start();
  await until("all are delivered again", () => again.length === kinds.length);
  assert.deepEqual(again.sort(), kinds.map((kind) => `${kind} 1`).sort());
});

behaviour("stop.untouched", "what has arrived goes to another instance within a moment, begun or not, and was no attempt", async () => {
  const [name, peer] = world.names(2);
  const said: ClientEvent[] = [];
  const address = await plainServer(world, name, () => true, (event) => said.push(event));
  const agent = world.agent(name, { address, concurrency: 1, drainTimeout: 50 });
  const began = gate();
  agent.on("job", async () => {
    began.open();
    await new Promise(() => undefined);
  });
  await agent.start();
  const sender = await world.started(peer);
  for (let n = 0; n < 3; n += 1) await sender.send(name, "job", { n });
  await began.promise;
  await until("all have arrived", async () => (await world.redis("xpending", `agent.stream:${name}`, "agents")).startsWith("3"));
  const next = world.agent(name, { instanceId: "i1" });
  const got: string[] = [];
  next.on("job", ({ data, attempt }) => got.push(`${data["n"]} ${attempt}`));
  await next.start();
  await agent.stop();
  await until("the other instance has all", () => got.length === 3);
  assert.deepEqual(got.sort(), ["0 1", "1 1", "2 1"]);
  const nacks = said.flatMap(({ event }) => (event?.$case === "nack" ? [event.value] : []));
  assert.ok(nacks.length >= 3);
  for (const { retryable, retryAfterMs } of nacks) assert.deepEqual([retryable, retryAfterMs], [true, 1]);
  assert.deepEqual(await world.dead(name), []);
});

behaviour("stop.untouched", "where the server does not know how, nothing is said", async () => {
  const [name, peer] = world.names(2);
  const said: ClientEvent[] = [];
  const address = await plainServer(world, name, (feature) => feature !== "later", (event) => said.push(event));
  const agent = world.agent(name, { address, concurrency: 1, drainTimeout: 50 });
  const began = gate();
  agent.on("job", async () => {
    began.open();
    await new Promise(() => undefined);
  });
  await agent.start();
  const sender = await world.started(peer);
  for (let n = 0; n < 2; n += 1) await sender.send(name, "job", { n });
  await began.promise;
  await agent.stop();
  assert.deepEqual(said.map(({ event }) => event?.$case), ["hello"]);
  const next = world.agent(name, { instanceId: "i1" });
  let count = 0;
  next.on("job", () => (count += 1));
  await next.start();
  await until("they are delivered again", () => count === 2);
});

behaviour("stop.signals", "run drains on SIGTERM", async () => {
  const [name, asker] = world.names(2);
  const asks = await world.started(asker);
  const running = world.start(process.execPath, [program("holding")], world.env(name));
  const reply = asks.request(name, "job");
  await running.line("working");
  assert.equal(await running.stop(), 0);
  await running.line("stopped");
  assert.equal((await reply).type, "done");
  assert.deepEqual(await world.dead(name), []);
});

behaviour("stop.signals", "a second one ends it at once", async () => {
  const [name, peer] = world.names(2);
  const running = world.start(process.execPath, [program("holding")], world.env(name));
  await (await world.started(peer)).send(name, "never");
  await running.line("working");
  running.signal("SIGTERM");
  await running.line("asked");
  running.signal("SIGINT");
  assert.equal(await running.end(), 130);
  assert.ok(!running.lines.includes("stopped"));
});

behaviour("stop.signals", "a program that is through ends, and nothing is said on stderr", async () => {
  const [name, peer] = world.names(2);
  const before = world.log().length;
  const running = world.start(process.execPath, [program("ending")], { ...world.env(name), PEER: peer });
  assert.equal(await running.end(), 0);
  assert.ok(!world.log().slice(before).includes("Warning"), world.log().slice(before));
});
