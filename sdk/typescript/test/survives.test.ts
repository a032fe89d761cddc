// Beside servers that fail: nothing that was accepted is lost, and nothing is buried.

import assert from "node:assert/strict";
import { CircuitOpen, type Agent } from "mas-agent";
import { behaviour } from "./behaviour.js";
import { until } from "./wait.js";
import { World } from "./world.js";

/** A lease: how long a lost session's deliveries wait for its return. */
const LEASE_MS = 500;
/** Messages of one trial. */
const COUNT = 1000;
/** Of them under way at a time. */
const UNDER_WAY = 20;

const settings = `delivery: {reclaim_idle_ms: ${LEASE_MS}, retry_backoff_ms: [20]}`;
const world = await World.make({ settings });

/** How often the server has said that it was reloaded. */
const reloads = (): number => world.log().split(" reload_taken").length;

/** A sender, a forwarder and a receiver; what was accepted must arrive, through all that `trouble` does. */
async function trial(trouble: (progress: () => number, by: string, to: string) => Promise<void>): Promise<void> {
  const [from, by, to] = world.names(3);
  const receiver = world.agent(to);
  const arrived = new Set<unknown>();
  receiver.on("n", (message) => arrived.add(message.data["n"]));
  const forwarder = world.agent(by);
  forwarder.on("n", async (message) => {
    if (Number(message.data["n"]) % 2 === 0) {
      await message.commit((commit) => {
        commit.updateState({ last: message.data["n"] });
        commit.send(to, "n", message.data);
      });
    } else {
      await forwarder.updateState({ last: message.data["n"] });
      await forwarder.send(to, "n", message.data);
    }
  });
  const sender = await world.started(from, { callTimeout: 20_000 });
  await receiver.start();
  await forwarder.start();
  let next = 0;
  let accepted = 0;
  const send = async (): Promise<void> => {
    while (next < COUNT) {
      next += 1;
      await sender.send(by, "n", { n: next });
      accepted += 1;
    }
  };
  await Promise.all([...Array.from({ length: UNDER_WAY }, send), trouble(() => accepted, by, to)]);
  await until("all that was accepted arrives", () => arrived.size === COUNT);
  for (const agent of [by, to]) {
    await world.nothingLeft(agent);
    assert.deepEqual(await world.dead(agent), []);
  }
  await Promise.all([sender, forwarder, receiver].map((agent: Agent) => agent.stop()));
}

behaviour("survives.kill", "servers that are killed", async () => {
  await trial(async (progress) => {
    for (const part of [0.2, 0.4, 0.6, 0.8]) {
      await until("some are accepted", () => progress() >= COUNT * part);
      const { address, process } = world.server;
      await process.kill();
      await world.serve(address);
    }
  });
});

behaviour("survives.pause", "a server that is stopped for longer than a lease, while another one runs", async () => {
  const paused = world.server.process;
  await trial(async (progress, by, to) => {
    await until("some are accepted", () => progress() >= COUNT * 0.3);
    const second = await world.serveBeside();
    // Another instance takes over what the stopped server's sessions held.
    const other = world.agent(by, { instanceId: "i1", address: second.address });
    other.on("n", async (message) => void (await other.send(to, "n", message.data)));
    paused.signal("SIGSTOP");
    const began = performance.now();
    await other.start();
    await until("the lease is over", () => performance.now() - began > 2 * LEASE_MS);
    paused.signal("SIGCONT");
    await until("all are accepted", () => progress() === COUNT);
    await other.stop();
    await second.process.stop();
  });
});

behaviour("survives.reload", "a server that is reloaded", async () => {
  await trial(async (progress) => {
    for (const part of [0.2, 0.4, 0.6, 0.8]) {
      await until("some are accepted", () => progress() >= COUNT * part);
      world.server.process.signal("SIGHUP");
    }
  });
});

behaviour("survives.limits", "an agent that forwards more than its limit allows", async () => {
  const [from, by, to] = world.names(3);
  world.configure({ settings, agents: { [by]: "rate_limit: {per_minute: 10, per_hour: 1000}" } });
  const before = reloads();
  world.server.process.signal("SIGHUP");
  await until("the limit is in force", () => reloads() > before);
  const forwarder = world.agent(by);
  let tries = 0;
  forwarder.on("n", async (message) => {
    tries += 1;
    await forwarder.send(to, "n", message.data);
  });
  await forwarder.start();
  const sender = await world.started(from);
  await Promise.all(Array.from({ length: 30 }, (_, n) => sender.send(by, "n", { n })));
  await until("each was tried", () => tries >= 30);
  await until("as many went on as the limit allows", async () => (await world.redis("xlen", `agent.stream:${to}`)) === "10");
  // The rest waits at the server; nothing is buried, and the circuit has nothing to say.
  await until("nothing of that is at work", async () => (await world.redis("xlen", `agent.stream:${by}`)) === "20");
  assert.deepEqual(await world.dead(by), []);
  await sender.send(by, "n", { n: 30 }).catch((error: unknown) => assert.ok(!(error instanceof CircuitOpen)));
});
