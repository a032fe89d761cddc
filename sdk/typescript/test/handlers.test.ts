// The life of a handler.

import assert from "node:assert/strict";
import { type } from "arktype";
import { Agent, NoReply, NotConnected, OutcomeUnknown, RateLimited, Refused, Reject, Retry, SetupError, Unauthenticated, VersionMismatch, type Message } from "mas-agent";
import * as v from "valibot";
import { z } from "zod";
import type { ClientEvent } from "../src/proto/mas/runtime/v1/runtime.js";
import { behaviour } from "./behaviour.js";
import { failure, gate, until } from "./wait.js";
import { plainServer, Wire } from "./wires.js";
import { Heard, World } from "./world.js";

const world = await World.make({
  settings: "delivery: {retry_backoff_ms: [20, 40], max_attempts: 3, reclaim_idle_ms: 1000}",
  agents: { a0: "rate_limit: {per_minute: 1, per_hour: 1000}", a1: "rate_limit: {per_minute: 1, per_hour: 1000}" },
});
const [limited, limitedToo] = world.names(2);

behaviour("handler.done", "a handler that returns acknowledges its message", async () => {
  const [name, peer] = world.names(2);
  const got: Message[] = [];
  const agent = world.agent(name);
  agent.on("note", (message) => got.push(message));
  await agent.start();
  const sender = await world.started(peer);
  const { messageId } = await sender.send(name, "note", { text: "hello" });
  await until("it is handled", () => got.length === 1);
  await world.nothingLeft(name);
  const [message] = got;
  assert.ok(message);
  assert.deepEqual(
    [message.id, message.sender, message.target, message.type, message.data, message.attempt, message.expectsReply],
    [messageId, peer, name, "note", { text: "hello" }, 1, false],
  );
  assert.ok(Math.abs(message.timestamp.getTime() - Date.now()) < 60_000);
  assert.deepEqual(await world.dead(name), []);
});

behaviour("handler.retry", "comes again where the handler asks for it or was told to retry, and is a dead letter in the end", async () => {
  const [name, peer] = world.names(2);
  class Busy extends Error {}
  const attempts: string[] = [];
  const agent = world.agent(name);
  const again = (message: Message): void => {
    attempts.push(`${message.type} ${message.attempt}`);
    if (message.attempt < 2) throw message.type === "asks" ? new Retry("not ready") : new Busy();
  };
  agent.on("asks", again).on("told", again, { retryOn: [Busy] });
  agent.on("never", () => {
    throw new Retry("still not ready");
  });
  await agent.start();
  const sender = await world.started(peer);
  await sender.send(name, "asks");
  await sender.send(name, "told");
  const never = await sender.send(name, "never");
  const dead = await world.oneDead(name);
  assert.deepEqual([dead.message_id, dead.attempts], [never.messageId, 3]);
  await world.nothingLeft(name);
  assert.deepEqual(attempts.sort(), ["asks 1", "asks 2", "told 1", "told 2"]);
});

behaviour("handler.failed", "is a dead letter at once, by the kind of the error and not by its text", async () => {
  const [name, peer] = world.names(2);
  const heard = new Heard();
  const agent = world.agent(name, { logger: heard });
  class TooOdd extends Error {}
  agent.on("odd", () => {
    throw new TooOdd("the secret is 4711");
  });
  await agent.start();
  const { messageId } = await (await world.started(peer)).send(name, "odd");
  const dead = await world.oneDead(name);
  assert.equal(dead.reason, "handler_error:TooOdd");
  assert.equal(dead.attempts, 1);
  const line = heard.lines.find(({ level }) => level === "error");
  assert.equal(line?.text, `the handler of "odd" ${messageId} from ${peer} failed; it becomes a dead letter`);
  assert.match(String(line?.error), /4711/);
});

behaviour("handler.failed", "says so itself", async () => {
  const [name, peer] = world.names(2);
  const agent = world.agent(name);
  agent.on("order", () => {
    throw new Reject("no such customer");
  });
  await agent.start();
  await (await world.started(peer)).send(name, "order");
  assert.equal((await world.oneDead(name)).reason, "no such customer");
});

behaviour("handler.payload", "what the handler does not take is a dead letter that names the fields", async () => {
  const [peer] = world.names(1);
  const sender = await world.started(peer);
  const schemas = [
    z.object({ text: z.string(), deep: z.object({ n: z.number() }) }),
    v.object({ text: v.string(), deep: v.object({ n: v.number() }) }),
    type({ text: "string", deep: { n: "number" } }),
  ];
  for (const schema of schemas) {
    const [name] = world.names(1);
    const agent = world.agent(name);
    const got = gate<number>();
    // Whichever schema it is, the types are those that it makes.
    agent.on("question", schema, (_message, { deep }) => got.open(deep.n + 1));
    await agent.start();
    await sender.send(name, "question", { text: "x", deep: { n: 1 } });
    assert.equal(await got.promise, 2);
    await sender.send(name, "question", { text: 5, deep: { n: "secret" } });
    const [word, fields] = (await world.oneDead(name)).reason.split(":");
    assert.deepEqual([word, fields?.split(",").sort()], ["invalid_payload", ["/deep/n", "/text"]]);
    await agent.stop();
  }
});

behaviour("handler.none", "a type without a handler is a dead letter, unless there is one for all others", async () => {
  const [name, other, peer] = world.names(3);
  const sender = await world.started(peer);
  await world.started(name);
  await sender.send(name, "unheard");
  assert.equal((await world.oneDead(name)).reason, "no_handler:unheard");
  const got = gate<string>();
  const agent = world.agent(other);
  agent.onOther((message) => got.open(message.type));
  await agent.start();
  await sender.send(other, "unheard");
  assert.equal(await got.promise, "unheard");
  assert.throws(() => agent.onOther(() => undefined), SetupError);
});

for (const [kind, name, offers] of [
  ["a server that knows how", limited, () => true],
  ["a server that does not, which counts it", limitedToo, (feature: string) => feature !== "later"],
] as const) {
  behaviour("handler.later", `a limit is no failure: the message comes later, by ${kind}`, async () => {
    const [target, peer] = world.names(2);
    const heard = new Heard();
    const agent = world.agent(name, { address: await plainServer(world, name, offers), logger: heard, concurrency: 1 });
    let tries = 0;
    agent.on("forward", async (message) => {
      tries += 1;
      await agent.send(target, "note", message.data);
    });
    const handled = gate();
    agent.on("other", () => handled.open());
    await agent.start();
    const sender = await world.started(peer);
    await sender.send(name, "forward");
    await world.nothingLeft(name);
    await sender.send(name, "forward");
    await until("it is postponed", () => heard.has("warn", "could not go on (rate_limited); it comes again in "));
    // Others are handled meanwhile.
    await sender.send(name, "other");
    await handled.promise;
    assert.equal(tries, 2);
    assert.deepEqual(await world.dead(name), []);
    await until("only that is left", async () => (await world.redis("xlen", `agent.stream:${name}`)) === "1");
  });
}

behaviour("handler.later", "what is nobody's failure comes again and counts as no attempt", async () => {
  const [name, peer] = world.names(2);
  const called = { call: "send" };
  const errors: Readonly<Record<string, Error>> = {
    not_connected: new NotConnected("a peer of its own"),
    outcome_unknown: new OutcomeUnknown("its answer was lost"),
    quarantined: new Refused(called, { code: "PERMISSION_DENIED", detail: "quarantined" }),
    revoked: new Unauthenticated(called, { code: "UNAUTHENTICATED", detail: "revoked" }),
  };
  const heard = new Heard();
  const agent = world.agent(name, { logger: heard });
  const attempts = new Map<string, number[]>();
  agent.onOther((message) => {
    const before = attempts.get(message.type) ?? [];
    attempts.set(message.type, [...before, message.attempt]);
    if (before.length < 3) throw errors[message.type];
  });
  await agent.start();
  const sender = await world.started(peer);
  for (const type of Object.keys(errors)) await sender.send(name, type);
  await world.nothingLeft(name);
  // As many as delivery.max_attempts, and one more.
  for (const type of Object.keys(errors)) {
    assert.deepEqual(attempts.get(type), [1, 1, 1, 1], type);
    assert.ok(heard.has("warn", `could not go on (${type})`));
  }
  assert.deepEqual(await world.dead(name), []);
});

behaviour("handler.later", "the server's retry time is passed on as it is, and kept here for a minute at most", async () => {
  const [peer] = world.names(1);
  const sender = await world.started(peer);
  for (const [offers, seconds] of [
    [() => true, 90],
    [(feature: string) => feature !== "later", 60],
  ] as const) {
    const [name] = world.names(1);
    const heard = new Heard();
    const said: ClientEvent[] = [];
    const address = await plainServer(world, name, offers, (event) => said.push(event));
    const agent = world.agent(name, { address, logger: heard });
    agent.on("job", () => {
      throw new RateLimited({ call: "send" }, { code: "RESOURCE_EXHAUSTED", detail: "rate_limited", retryAfter: 90_000 });
    });
    await agent.start();
    await sender.send(name, "job");
    await until("it is put off", () => heard.has("warn", `it comes again in ${seconds} s`));
    if (seconds === 90) {
      const told = await until("the server is told", () => said.map(({ event }) => event).find((event) => event?.$case === "nack"));
      assert.ok(told.$case === "nack" && told.value.retryAfterMs === 90_000);
    }
  }
});

behaviour("handler.uncertain", "no reply and another version are retried", async () => {
  const [name, peer, silent] = world.names(3);
  const heard = new Heard();
  const agent = world.agent(name, { logger: heard });
  const attempts: string[] = [];
  agent.onOther(async (message) => {
    attempts.push(`${message.type} ${message.attempt}`);
    if (message.attempt > 1) return;
    if (message.type === "reply") await agent.request(silent, "question", {}, { timeout: 20 });
    if (message.type === "version") await agent.updateState({ a: 1 }, { expectedVersion: 5 });
  });
  await agent.start();
  const sender = await world.started(peer);
  for (const type of ["reply", "version"]) await sender.send(name, type);
  await world.nothingLeft(name);
  assert.deepEqual(attempts.sort(), ["reply 1", "reply 2", "version 1", "version 2"]);
  assert.deepEqual(await world.dead(name), []);
  const errors = heard.lines.map(({ error }) => error);
  for (const Kind of [NoReply, VersionMismatch]) assert.ok(errors.some((error) => error instanceof Kind));
});

behaviour("handler.once", "what was handled is not handled again when only the acknowledgement was lost", async () => {
  const [name, peer] = world.names(2);
  const wire = await Wire.to(world.address);
  const agent = world.agent(name, { address: wire.address });
  const release = gate();
  let count = 0;
  agent.on("job", async () => {
    count += 1;
    await release.promise;
  });
  await agent.start();
  await (await world.started(peer)).send(name, "job");
  await until("the handler runs", () => count === 1);
  wire.dead = true;
  await until("the connection is lost", () => !agent.isConnected);
  release.open();
  await agent.getState({ timeout: 20 }).catch(() => undefined);
  wire.dead = false;
  await world.nothingLeft(name);
  assert.equal(count, 1);
});

behaviour("handler.calls", "everything that an agent can do can be done inside a handler", async () => {
  const [name, peer, asker] = world.names(3);
  const agent = world.agent(name);
  const helper = world.agent(peer);
  const notes: string[] = [];
  helper.on("question", async (message) => void (await message.reply("answer", { n: 2 })));
  helper.on("note", (message) => notes.push(message.type));
  agent.on("task", async (message) => {
    await agent.updateState({ a: 1 });
    await agent.changeState(z.object({ a: z.number() }), ({ a }) => ({ a: a + 1 }));
    const { fields } = await agent.getState();
    const peers = await agent.discover();
    const answer = await (await agent.request(peer, "question")).parse(z.object({ n: z.number() }));
    await agent.send(peer, "note");
    await agent.commit((commit) => commit.send(peer, "note"));
    await agent.resetState();
    await message.reply("done", { fields, peers: peers.length > 0, n: answer.n });
  });
  await helper.start();
  await agent.start();
  const reply = await (await world.started(asker)).request(name, "task");
  assert.deepEqual(reply.data, { fields: { a: "2" }, peers: true, n: 2 });
  await until("the notes arrive", () => notes.length === 2);
});

behaviour("handler.order", "one handler at a time keeps the order of each sender", async () => {
  const [name, peer] = world.names(2);
  const agent = world.agent(name, { concurrency: 1 });
  const got: unknown[] = [];
  let running = 0;
  agent.on("n", async (message) => {
    running += 1;
    assert.equal(running, 1);
    await new Promise(setImmediate);
    got.push(message.data["n"]);
    running -= 1;
  });
  await agent.start();
  const sender = await world.started(peer);
  const numbers = Array.from({ length: 300 }, (_, n) => n);
  await Promise.all(numbers.map((n) => sender.send(name, "n", { n })));
  await until("all are handled", () => got.length === 300);
  assert.deepEqual(got, numbers);
});

behaviour("reply.late", "neither fails the handler nor its commit; the message is acknowledged", async () => {
  const [name, asker, target] = world.names(3);
  const heard = new Heard();
  const agent = world.agent(name, { logger: heard });
  const release = gate();
  const replies: unknown[] = [];
  agent.on("plain", async (message) => {
    await release.promise;
    replies.push(await message.reply("answer"));
  });
  agent.on("commits", async (message) => {
    await release.promise;
    const { sent } = await message.commit((commit) => {
      commit.reply("answer");
      commit.send(target, "note");
    });
    replies.push(sent.length);
  });
  await agent.start();
  const asks = await world.started(asker);
  const asked = ["plain", "commits"].map((type) => failure(NoReply, asks.request(name, type, {}, { timeout: 900 })));
  await Promise.all(asked);
  // The server keeps a pending request for whole seconds.
  await until("the server has forgotten them", async () => (await world.redis("keys", "mas.pending_request:*")) === "");
  release.open();
  await world.nothingLeft(name);
  assert.deepEqual(replies.sort(), [1, undefined]);
  assert.equal(heard.lines.filter(({ text }) => text.startsWith("nobody waits any more for the reply to")).length, 2);
  assert.deepEqual(await world.dead(name), []);
  assert.equal(await world.redis("xlen", `agent.stream:${target}`), "1");
});

behaviour("reply.late", "one that arrives late is logged and acknowledged", async () => {
  const [name, asker] = world.names(2);
  const heard = new Heard();
  const agent = world.agent(name);
  const release = gate();
  agent.on("question", async (message) => {
    await release.promise;
    await message.reply("answer");
  });
  await agent.start();
  const asks = await world.started(asker, { logger: heard });
  await failure(NoReply, asks.request(name, "question", {}, { timeout: 50 }));
  release.open();
  await until("it is logged", () => heard.has("warn", 'nobody waits any more for the reply "answer"'));
  await until("it is acknowledged", async () => (await world.redis("xlen", `agent.stream:${asker}:i0`)) === "0");
});

behaviour("reply.unasked", "fails with words that say so", async () => {
  const [name, peer] = world.names(2);
  const agent = world.agent(name);
  const failed = gate<unknown>();
  agent.on("note", async (message) => {
    await message.reply("answer").catch(failed.open);
  });
  await agent.start();
  await (await world.started(peer)).send(name, "note");
  const error = await failed.promise;
  assert.ok(error instanceof SetupError);
  assert.match(error.message, /asked for no reply/);
});

behaviour("handler.retry", "what cannot be a handler or a kind of error is refused where it is registered", async () => {
  const agent = new Agent();
  const wrong = [undefined, {}, () => undefined, "Error"];
  for (const kind of wrong) {
    assert.throws(() => agent.on("note", () => undefined, { retryOn: [kind as unknown as typeof Error] }), SetupError);
  }
  assert.throws(() => agent.on("note", () => undefined, { retryOn: Error as unknown as [] }), SetupError);
  assert.throws(() => agent.onOther(undefined as unknown as () => void), SetupError);
  agent.on("note", () => undefined, { retryOn: [Error, TypeError] });
});
