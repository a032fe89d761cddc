// The life of a call.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { DlpBlocked, NoReply, NotAuthorized, NotConnected, OutcomeUnknown, RateLimited, Reject, SetupError, Unsupported, type PendingReply } from "mas-agent";
import { Replies, Unanswered } from "../src/replies.js";
import { Limit } from "../src/time.js";
import { behaviour } from "./behaviour.js";
import { failure, gate, until } from "./wait.js";
import { plainServer, Wire } from "./wires.js";
import { World } from "./world.js";

const world = await World.make({ agents: { a0: "rate_limit: {per_minute: 2, per_hour: 1000}" } });
const [limited] = world.names(1);

/** Submissions that the library has under way at most. */
const UNDER_WAY = 256;

behaviour("call.deadline", "bounds waiting for a connection", async () => {
  const [name, peer] = world.names(2);
  const wire = await Wire.to(world.address);
  const agent = await world.started(name, { address: wire.address, callTimeout: 100 });
  wire.dead = true;
  await until("the connection is lost", () => !agent.isConnected);
  const began = performance.now();
  await failure(NotConnected, agent.send(peer, "note", {}, { timeout: 50 }));
  await failure(NotConnected, agent.getState());
  // A request's own time bounds its acceptance, too.
  await failure(NotConnected, agent.request(peer, "question", {}, { timeout: 50 }));
  assert.ok(performance.now() - began < 2_000);
});

behaviour("call.deadline", "bounds a try, and the reply of a request", async () => {
  const [name, peer] = world.names(2);
  const wire = await Wire.to(world.address);
  const agent = await world.started(name, { address: wire.address });
  const began = performance.now();
  await failure(NoReply, agent.request(peer, "question", {}, { timeout: 150 }));
  assert.ok(performance.now() - began >= 149);
  wire.loseAnswers();
  await failure(OutcomeUnknown, agent.updateState({ a: 1 }, { timeout: 50 }));
  await assert.rejects(agent.send(peer, "note", {}, { timeout: 0 }), SetupError);
});

behaviour("call.passing", "a call that met a stopping server is made again", async () => {
  const [name, peer] = world.names(2);
  const own = await World.make();
  const agent = await own.started(name);
  const { address } = own;
  own.server.process.signal("SIGTERM");
  const sent = [agent.send(peer, "note", {}), agent.getState()];
  const updated = agent.updateState({ a: 1 }).catch((error: unknown) => error);
  await own.server.process.end();
  await own.serve(address);
  await Promise.all(sent);
  // It happened, or its answer was lost: never a refusal.
  const version = await updated;
  assert.ok(version === 1 || version instanceof OutcomeUnknown, String(version));
});

behaviour("call.cancelled", "leaves nothing behind", async () => {
  const [name, peer] = world.names(2);
  const wire = await Wire.to(world.address);
  const agent = await world.started(name, { address: wire.address });
  const reason = new Error("not needed any more");
  const cancel = new AbortController();
  const asked = agent.request(peer, "question", { n: 1 }, { signal: cancel.signal });
  await until("it is accepted", async () => (await world.redis("xlen", `agent.stream:${peer}`)) === "1");
  wire.dead = true;
  await until("the connection is lost", () => !agent.isConnected);
  const calls = [agent.send(peer, "note", {}, { signal: cancel.signal }), agent.getState({ signal: cancel.signal })];
  await until("they wait", () => agent.waiting === 2);
  cancel.abort(reason);
  for (const call of [asked, ...calls]) await assert.rejects(call, (error) => error === reason);
  assert.equal(agent.waiting, 0);
  wire.dead = false;
  await until("it is connected again", () => agent.isConnected);
  await agent.discover();
  assert.equal(await world.redis("xlen", `agent.stream:${peer}`), "1");
  // More than there are places: each is given back.
  for (let count = 0; count < UNDER_WAY + 10; count += 1) {
    await assert.rejects(agent.send(peer, "note", {}, { signal: AbortSignal.abort(reason) }), (error) => error === reason);
  }
  await agent.send(peer, "note");
  assert.equal(await world.redis("xlen", `agent.stream:${peer}`), "2");
});

behaviour("call.cancelled", "also where what was waited for before answers twice", async () => {
  const cancel = new AbortController();
  const limit = new Limit(10_000, cancel.signal);
  let answer = (): void => undefined;
  await limit.wait<void>((resolve) => {
    answer = resolve;
    resolve();
    return () => undefined;
  });
  const sleeps = assert.rejects(limit.sleep(1_000), RangeError);
  answer();
  cancel.abort(new RangeError("not needed any more"));
  await sleeps;
  limit.close();
});

behaviour("call.cancelled", "one signal may be that of many calls, and keeps nothing of them", async () => {
  const [name, peer] = world.names(2);
  const agent = await world.started(name);
  const warnings: Error[] = [];
  const warned = (warning: Error): unknown => warnings.push(warning);
  process.on("warning", warned);
  const cancel = new AbortController();
  const { signal } = cancel;
  await Promise.all(Array.from({ length: 50 }, () => agent.send(peer, "note", {}, { signal })));
  assert.equal(getEventListeners(signal, "abort").length, 0);
  const asked = Array.from({ length: 50 }, () => agent.request(peer, "question", {}, { signal }));
  await until("they are accepted", async () => (await world.redis("xlen", `agent.stream:${peer}`)) === "100");
  cancel.abort(new RangeError("not needed any more"));
  for (const one of asked) await failure(RangeError, one);
  await new Promise(setImmediate);
  process.off("warning", warned);
  assert.deepEqual(warnings, []);
});

behaviour("call.errors", "a refusal says what, to whom, why, and where it is on record", async () => {
  const [name] = world.names(1);
  const agent = await world.started(name);
  const refused = await failure(NotAuthorized, agent.send("nobody", "note", {}));
  assert.equal(refused.call, "send");
  assert.equal(refused.target, "nobody");
  assert.equal(refused.messageType, "note");
  assert.equal(refused.code, "PERMISSION_DENIED");
  assert.equal(refused.detail, "not_authorized");
  assert.ok(refused.receipt && refused.messageId);
  assert.ok(refused.message.startsWith('send "note" to nobody: refused, not_authorized (PERMISSION_DENIED)'));
  assert.equal(refused.message.split("not_authorized").length, 2);
  await world.mas("audit", "show", "--config", world.config, refused.messageId);
  assert.ok(refused.message.includes(`mas audit show ${refused.messageId}`));
  // A unary call says the same.
  const long = { text: "x".repeat(100_000) };
  const unary = await failure(NotAuthorized, agent.send("nobody", "note", long));
  assert.ok(unary.receipt && unary.messageId);
});

behaviour("call.errors", "a limit says when to try again, and no reply says which request", async () => {
  const [peer] = world.names(1);
  const agent = await world.started(limited);
  const none = await failure(NoReply, agent.request(peer, "question", {}, { timeout: 50 }));
  assert.equal(none.target, peer);
  assert.equal(none.messageType, "question");
  assert.ok(none.receipt);
  assert.equal(none.reason, undefined);
  assert.ok(none.message.includes(`mas audit show ${none.messageId}`));
  await agent.send(peer, "note");
  const refused = await failure(RateLimited, agent.send(peer, "note"));
  assert.ok((refused.retryAfter ?? 0) > 0);
  assert.match(refused.message, /try again in \d+/);
});

behaviour("call.unanswered", "a request whose message is a dead letter fails at once and says why", async () => {
  const [name, peer] = world.names(2);
  const answers = world.agent(peer);
  answers.on("refused", () => {
    throw new Reject("not today");
  });
  await answers.start();
  const agent = await world.started(name);
  const pending: PendingReply[] = [];
  await agent.commit((commit) => {
    for (const type of ["refused", "unheard"]) pending.push(commit.request(peer, type));
  });
  const asked = ["refused", "unheard"].map((type) => agent.request(peer, type));
  const all = [...pending.map((one) => one.message()), ...asked];
  const failed = await Promise.all(all.map((one) => failure(NoReply, one)));
  assert.deepEqual(failed.map(({ reason }) => reason), ["handler_failed", "no_handler", "handler_failed", "no_handler"]);
  for (const { message, messageId, messageType, target, reason, receipt } of failed) {
    assert.equal(target, peer);
    assert.ok(receipt);
    const words = `no reply will come from ${peer} to "${messageType}": ${reason} (message ${messageId}; `;
    assert.ok(message.startsWith(words), message);
    assert.ok(message.includes(`mas audit show ${messageId}`));
  }
});

behaviour("call.unanswered", "also where that is told before the request's own answer, and a reply keeps its place", async () => {
  const late: string[] = [];
  const replies = new Replies<string>((reply) => late.push(reply));
  const limit = new Limit(1_000);
  await replies.asking(async () => {
    replies.arrived("a", new Unanswered("no_handler"));
    replies.arrived("b", "answer");
    replies.arrived("b", new Unanswered("handler_failed"));
  });
  assert.equal((await failure(Unanswered, replies.wait("a", limit))).reason, "no_handler");
  assert.equal(await replies.wait("b", limit), "answer");
  // Nobody waits: nothing is kept, and only a reply is told of.
  replies.arrived("c", new Unanswered("expired"));
  replies.arrived("d", "too late");
  assert.deepEqual(late, ["too late"]);
  limit.close();
});

behaviour("call.findings", "the sender is told what was found, of a refusal and of a redaction", async () => {
  const [name, peer] = world.names(2);
  const agent = await world.started(name);
  const card = { text: "pay with 4111 1111 1111 1111" };
  const finding = { type: "credit_card", pointer: "/text", action: "block" };
  for (const data of [card, { ...card, long: "x".repeat(100_000) }]) {
    const { findings, message } = await failure(DlpBlocked, agent.send(peer, "note", data));
    assert.deepEqual(findings, [finding]);
    assert.ok(message.includes("credit_card at /text (block)"));
    assert.ok(!message.includes("4111"));
  }
  const sent = await agent.send(peer, "note", { who: { ssn: "123-45-6789" } });
  assert.deepEqual(sent.findings.map(({ pointer, action }) => [pointer, action]), [["/who/ssn", "redact"]]);
});

behaviour("call.backpressure", "calls beyond what the server takes wait, and the agent says how many", async () => {
  const [name, peer] = world.names(2);
  const agent = await world.started(name);
  const { process } = world.server;
  const count = UNDER_WAY + 100;
  process.signal("SIGSTOP");
  let sent: Promise<unknown>[];
  try {
    sent = Array.from({ length: count }, () => agent.send(peer, "note"));
    await until("calls wait", () => agent.waiting === 100);
    await failure(NotConnected, agent.send(peer, "note", {}, { timeout: 50 }));
    assert.equal(agent.waiting, 100);
  } finally {
    process.signal("SIGCONT");
  }
  await Promise.all(sent);
  assert.equal(agent.waiting, 0);
  assert.equal(await world.redis("xlen", `agent.stream:${peer}`), String(count));
});

behaviour("call.unsupported", "what a server does not list is not sent to it", async () => {
  const [name, peer] = world.names(2);
  const agent = await world.started(name, { address: await plainServer(world, name, () => false) });
  await failure(Unsupported, agent.send(peer, "note", {}, { idempotencyKey: "k" }));
  await failure(Unsupported, agent.send(peer, "note", {}, { ttl: 1_000 }));
  await failure(Unsupported, agent.request(peer, "note", {}, { notBefore: new Date() }));
  await failure(Unsupported, agent.updateState({ a: 1 }, { expectedVersion: 1 }));
  await failure(Unsupported, agent.updateState({ a: 1 }, { ttl: 1_000 }));
  await failure(Unsupported, agent.changeState(() => ({ a: 1 })));
  await failure(Unsupported, agent.commit((commit) => commit.send(peer, "note")));
  assert.equal(await world.redis("xlen", `agent.stream:${peer}`), "0");
  assert.deepEqual((await agent.getState()).fields, {});
  // The rest of the protocol goes without.
  await agent.send(peer, "note", { n: 1 });
  assert.equal(await world.redis("xlen", `agent.stream:${peer}`), "1");
});

behaviour("call.unsupported", "what it does list goes there", async () => {
  const [name, peer] = world.names(2);
  const agent = await world.started(name);
  const notBefore = new Date(Date.now() + 200);
  const got = gate<Date>();
  const receiver = world.agent(peer);
  receiver.on("later", () => got.open(new Date()));
  await receiver.start();
  await agent.send(peer, "later", {}, { notBefore, ttl: 60_000 });
  assert.ok((await got.promise) >= notBefore);
});

behaviour("call.errors", "a payload that JSON would spoil is an error before it is sent", async () => {
  const [name, peer] = world.names(2);
  const agent = await world.started(name);
  for (const data of [{ n: NaN }, { n: [null, Infinity] }, { n: 1n }, [1]]) {
    const { cause } = await failure(SetupError, agent.send(peer, "note", data));
    assert.equal(cause instanceof TypeError, !Array.isArray(data));
  }
  await agent.send(peer, "note", { n: null, text: "null" });
});

behaviour("call.errors", "what the protocol cannot carry is an error before it is sent, and the session goes on", async () => {
  const [name, peer] = world.names(2);
  const agent = await world.started(name);
  let lost = 0;
  agent.events.on("lost", () => (lost += 1));
  for (const ttl of [0, -1, NaN, Infinity, 1e20]) {
    await failure(SetupError, agent.send(peer, "note", {}, { ttl }));
    await failure(SetupError, agent.updateState({ a: 1 }, { ttl }));
  }
  for (const notBefore of [new Date(NaN), new Date(-1)]) await failure(SetupError, agent.request(peer, "note", {}, { notBefore }));
  for (const idempotencyKey of ["", "a b", "k".repeat(65)]) await failure(SetupError, agent.send(peer, "note", {}, { idempotencyKey }));
  for (const expectedVersion of [-1, 1.5, NaN, 2 ** 53]) {
    await failure(SetupError, agent.updateState({ a: 1 }, { expectedVersion }));
    await failure(SetupError, agent.commit((commit) => commit.updateState({ a: 1 }, { expectedVersion })));
  }
  await agent.send(peer, "note", {}, { idempotencyKey: "A-z_9", ttl: 0.5 });
  assert.equal(lost, 0);
});
