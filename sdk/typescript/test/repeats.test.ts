// Calls whose answer was lost.

import assert from "node:assert/strict";
import { InvalidRequest, NoReply, NotConnected, OutcomeUnknown } from "mas-agent";
import { behaviour } from "./behaviour.js";
import { blocked, failure, gate, until } from "./wait.js";
import { plainServer, Wire } from "./wires.js";
import { World } from "./world.js";

const world = await World.make();

behaviour("call.repeat", "a send whose answer was lost is made again and happens once", async () => {
  const [name, peer] = world.names(2);
  const wire = await Wire.to(world.address);
  const agent = await world.started(name, { address: wire.address });
  wire.loseAnswers();
  const sent = agent.send(peer, "note", { n: 1 });
  await until("the server has it", async () => (await world.redis("xlen", `agent.stream:${peer}`)) === "1");
  wire.cut();
  const { messageId } = await sent;
  assert.equal(await world.redis("xlen", `agent.stream:${peer}`), "1");
  const got = gate<string>();
  const receiver = world.agent(peer);
  receiver.on("note", (message) => got.open(message.id));
  await receiver.start();
  assert.equal(await got.promise, messageId);
});

behaviour("call.repeat", "so is a request, and a read; the caller's own key is kept", async () => {
  const [name, peer] = world.names(2);
  const wire = await Wire.to(world.address);
  const agent = await world.started(name, { address: wire.address });
  const answers = world.agent(peer);
  let count = 0;
  answers.on("question", async (message) => {
    count += 1;
    await message.reply("answer", { n: 1 });
  });
  await answers.start();
  wire.loseAnswers();
  const reply = agent.request(peer, "question", {}, { idempotencyKey: "mine" });
  const state = agent.getState();
  await until("the request is handled", () => count === 1);
  wire.cut();
  assert.deepEqual((await reply).data, { n: 1 });
  assert.equal((await state).version, 0);
  assert.equal(count, 1);
  const first = await agent.send(peer, "note", {}, { idempotencyKey: "k" });
  assert.equal((await agent.send(peer, "note", {}, { idempotencyKey: "k" })).messageId, first.messageId);
});

behaviour("call.repeat", "where the server knows no keys a send is not made again", async () => {
  const [name, peer] = world.names(2);
  const wire = await Wire.to(await plainServer(world, name, () => false));
  const agent = await world.started(name, { address: wire.address });
  wire.loseAnswers();
  const lost = failure(OutcomeUnknown, agent.send(peer, "note", {}));
  await until("the server has it", async () => (await world.redis("xlen", `agent.stream:${peer}`)) === "1");
  wire.cut();
  await lost;
});

behaviour("call.repeat", "a key of the library's is remembered for the call's time and a minute, the caller's as long as the server does", async () => {
  const [name, peer] = world.names(2);
  const agent = await world.started(name);
  const seconds = async (): Promise<number[]> => {
    const keys = (await world.redis("keys", `mas.idempotency:${name}:*`)).split("\n").filter(Boolean);
    const left = await Promise.all(keys.map((key) => world.redis("pttl", key)));
    for (const key of keys) await world.redis("del", key);
    return left.map((ms) => Number(ms) / 1_000);
  };
  const one = async (least: number, most: number): Promise<void> => {
    const left = await seconds();
    assert.ok(left.length === 1 && left[0]! > least && left[0]! <= most, String(left));
  };
  await agent.send(peer, "note", {}, { timeout: 20_000 });
  await one(60, 80);
  // The longest goes the unary way.
  await agent.send(peer, "note", { text: "x".repeat(100_000) });
  await one(80, 90);
  await failure(NoReply, agent.request(peer, "question", {}, { timeout: 500 }));
  await one(55, 60.5);
  await agent.send(peer, "note", {}, { timeout: 20_000, idempotencyKey: "mine" });
  await one(500, 600);
});

behaviour("call.repeat", "with repeatSends off there is no key, and a lost answer is outcome unknown, unless the caller gave one", async () => {
  const [name, peer] = world.names(2);
  const wire = await Wire.to(world.address);
  const agent = await world.started(name, { address: wire.address, repeatSends: false });
  await agent.send(peer, "note");
  assert.equal(await world.redis("keys", `mas.idempotency:${name}:*`), "");
  wire.loseAnswers();
  const lost = [agent.send(peer, "note"), agent.request(peer, "question")].map((call) => failure(OutcomeUnknown, call));
  const again = agent.send(peer, "note", {}, { idempotencyKey: "mine" });
  await until("the server has them", async () => (await world.redis("xlen", `agent.stream:${peer}`)) === "4");
  wire.cut();
  await Promise.all(lost);
  assert.ok((await again).messageId);
  assert.equal(await world.redis("xlen", `agent.stream:${peer}`), "4");
});

behaviour("call.unknown", "what is not made again fails as outcome unknown, a refusal never", async () => {
  const [name, peer] = world.names(2);
  const wire = await Wire.to(world.address);
  const agent = await world.started(name, { address: wire.address });
  await failure(InvalidRequest, agent.commit((commit) => commit.send(peer, "x".repeat(10_000))));
  wire.loseAnswers();
  const lost = [agent.updateState({ a: 1 }), agent.commit((commit) => commit.send(peer, "note"))];
  const failures = Promise.all(lost.map((one) => failure(OutcomeUnknown, one)));
  await until("the server has it", async () => (await world.redis("xlen", `agent.stream:${peer}`)) === "1");
  await until("the state is set", async () => (await world.redis("exists", `agent.state:${name}`)) === "1");
  wire.cut();
  for (const { message } of await failures) assert.match(message, /outcome unknown/);
});

behaviour("call.unknown", "a call whose time is over before it was sent is not connected", async () => {
  const [name, peer] = world.names(2);
  const wire = await Wire.to(world.address);
  const agent = await world.started(name, { address: wire.address });
  // On the stream: the program is busy until after the time of the call.
  const sent = failure(NotConnected, agent.send(peer, "note", {}, { timeout: 20 }));
  blocked(40);
  assert.match((await sent).message, /send "note" to .*: not sent within 0.02 s/);
  // Unary, too: the session is there again, and the program does not come to it in time.
  wire.dead = true;
  await until("the connection is lost", () => !agent.isConnected);
  const updated = failure(NotConnected, agent.updateState({ a: 1 }, { timeout: 1_000 }));
  agent.events.once("connected", () => blocked(1_000));
  wire.dead = false;
  assert.match((await updated).message, /updateState: not sent within 1 s/);
  await agent.discover();
  assert.equal(await world.redis("xlen", `agent.stream:${peer}`), "0");
  assert.equal((await agent.getState()).version, 0);
});
