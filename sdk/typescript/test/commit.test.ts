// Commits.

import assert from "node:assert/strict";
import { InvalidRequest, NotAuthorized, SetupError, type Commit as Collected } from "mas-agent";
import { Commit } from "../src/commit.js";
import { Message, readEnvelope, type Doings } from "../src/message.js";
import type { ClientEvent } from "../src/proto/mas/runtime/v1/runtime.js";
import { behaviour } from "./behaviour.js";
import { failure, gate, until } from "./wait.js";
import { plainServer, Wire } from "./wires.js";
import { World } from "./world.js";

const world = await World.make({ settings: "delivery: {retry_backoff_ms: [20, 40], max_attempts: 3}" });

behaviour("commit.whole", "acknowledgement, state and messages happen together", async () => {
  const [name, asker, target] = world.names(3);
  const agent = world.agent(name);
  const receiver = world.agent(target);
  receiver.on("pick", async (message) => void (await message.reply("picked", { n: 7 })));
  const committed = gate<{ readonly sent: readonly unknown[]; readonly version: number }>();
  const picked = gate<unknown>();
  agent.on("order", async (message) => {
    let pending: ReturnType<Parameters<Parameters<typeof message.commit>[0]>[0]["request"]> | undefined;
    const done = await message.commit(async (commit) => {
      commit.updateState({ orders: 1 }, { expectedVersion: 0 });
      pending = commit.request(target, "pick", { n: 1 });
      await failure(SetupError, pending.message());
      commit.reply("accepted");
    });
    committed.open(done);
    picked.open((await pending?.message())?.data);
    throw new Error("after the commit: the message is handled all the same");
  });
  await receiver.start();
  await agent.start();
  const reply = await (await world.started(asker)).request(name, "order");
  assert.equal(reply.type, "accepted");
  const { sent, version } = await committed.promise;
  assert.deepEqual([sent.length, version], [2, 1]);
  assert.deepEqual(await picked.promise, { n: 7 });
  assert.deepEqual((await agent.getState()).fields, { orders: "1" });
  await world.nothingLeft(name);
  assert.deepEqual(await world.dead(name), []);
});

behaviour("commit.whole", "one refusal refuses all of it, and so does an error while it is collected", async () => {
  const [name, peer, target] = world.names(3);
  const agent = world.agent(name);
  agent.on("refused", async (message) => {
    await message.commit((commit) => {
      commit.updateState({ a: 1 });
      commit.send(target, "note");
      commit.send("nobody", "note");
    });
  });
  agent.on("fails", async (message) => {
    await message.commit((commit) => {
      commit.send(target, "note");
      throw new RangeError("while it is collected");
    });
  });
  await agent.start();
  const sender = await world.started(peer);
  await sender.send(name, "refused");
  assert.equal((await world.oneDead(name)).reason, "handler_error:NotAuthorized");
  await sender.send(name, "fails");
  await until("it is a dead letter, too", async () => (await world.dead(name)).length === 2);
  assert.deepEqual((await agent.getState()).fields, {});
  assert.equal(await world.redis("xlen", `agent.stream:${target}`), "0");
  await failure(NotAuthorized, agent.commit((commit) => commit.send("nobody", "note")));
  await failure(InvalidRequest, agent.commit((commit) => commit.send(target, "x".repeat(10_000))));
});

behaviour("commit.whole", "answering its message twice is refused at the second reply, without a server", async () => {
  const envelope = { message_id: "m", sender_id: "a", target_id: "b", message_type: "question", data: {}, timestamp: 1 };
  const meta = { correlation_id: "c", expects_reply: true };
  const never: Doings = { reply: () => assert.fail(), commit: () => assert.fail() };
  const message = new Message(readEnvelope(JSON.stringify({ ...envelope, meta })), 1, never);
  const commit = new Commit("i0", message, () => assert.fail());
  commit.reply("answer");
  const refused = { name: "SetupError", message: "this commit answers its message already" };
  assert.throws(() => commit.reply("answer"), refused);
  assert.equal(commit.close().commit.messages.length, 1);
});

behaviour("commit.whole", "one that is longer than the server takes is refused before it is sent, and both lengths are named", async () => {
  const own = await World.make({ settings: "limits: {max_message_bytes: 60000, max_state_bytes: 100000}" });
  const [name, peer] = own.names(2);
  const said: ClientEvent[] = [];
  const agent = await own.started(name, { address: await plainServer(own, name, () => true, (event) => said.push(event)) });
  let lost = 0;
  agent.events.on("lost", () => (lost += 1));
  const collect = (bytes: number) => (commit: Collected) => {
    commit.updateState({ rest: "x".repeat(bytes % 50_000) });
    for (let left = bytes; left >= 50_000; left -= 50_000) commit.send(peer, "note", { text: "x".repeat(50_000) });
  };
  const refused = async (bytes: number): Promise<number[]> => {
    const { message } = await failure(SetupError, agent.commit(collect(bytes)));
    const sizes = /^a commit of (\d+) bytes: this server takes at most (\d+)$/.exec(message);
    assert.ok(sizes, message);
    return sizes.slice(1).map(Number);
  };
  const [length = 0, limit = 0] = await refused(1_040_000);
  assert.ok(length > 1_040_000 && limit > 125_000 && limit < 250_000, `${length} ${limit}`);
  const [longer = 0] = await refused(limit);
  // To the byte.
  const longest = limit - (longer - limit);
  assert.deepEqual(await refused(longest + 1), [limit + 1, limit]);
  assert.deepEqual(said.map(({ event }) => event?.$case), ["hello"]);
  const { sent } = await agent.commit(collect(longest));
  assert.equal(sent.length, Math.floor(longest / 50_000));
  assert.equal(lost, 0);
});

behaviour("commit.whole", "so is one for which a session came meanwhile that takes less", async () => {
  const [name, peer] = world.names(2);
  let bound = 0;
  const plain = await plainServer(world, name, () => true, undefined, (welcome) => (welcome.maxEventBytes = bound));
  const wire = await Wire.to(plain);
  const agent = await world.started(name, { address: wire.address });
  const commit = (): Promise<unknown> => agent.commit((commit) => commit.send(peer, "note", { text: "x".repeat(200_000) }));
  await commit();
  bound = 150_000;
  wire.dead = true;
  await until("the connection is lost", () => !agent.isConnected);
  const refused = failure(SetupError, commit());
  wire.dead = false;
  assert.match((await refused).message, /^a commit of 2000\d\d bytes: this server takes at most 150000$/);
  assert.equal(await world.redis("xlen", `agent.stream:${peer}`), "1");
});
