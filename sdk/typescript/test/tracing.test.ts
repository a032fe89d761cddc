// What is told to OpenTelemetry.

import assert from "node:assert/strict";
import { cpSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { context, createTraceState, metrics, SpanKind, SpanStatusCode, trace, TraceFlags, type Attributes } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { AggregationTemporality, InMemoryMetricExporter, MeterProvider, PeriodicExportingMetricReader, type DataPoint } from "@opentelemetry/sdk-metrics";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor, type ReadableSpan } from "@opentelemetry/sdk-trace-base";
import { Agent, NoReply, NotAuthorized, NotConnected, Reject, Retry, SetupError, type Message, type PendingReply } from "mas-agent";
import { z } from "zod";
import { atEnd, check } from "./behaviour.js";
import { failure, gate, until } from "./wait.js";
import { World } from "./world.js";

const PACKAGE = fileURLToPath(new URL("../../../../", import.meta.url));

const exporter = new InMemorySpanExporter();
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
const measured = new InMemoryMetricExporter(AggregationTemporality.DELTA);
// Read when it is asked, and not before the tests are through.
const reader = new PeriodicExportingMetricReader({ exporter: measured, exportIntervalMillis: 3_600_000 });
metrics.setGlobalMeterProvider(new MeterProvider({ readers: [reader] }));
const program = trace.getTracer("program");
atEnd(() => reader.shutdown());

const world = await World.make({
  settings: "delivery: {retry_backoff_ms: [20, 40], max_attempts: 4}",
  permissions: "  - {type: allow_bidirectional, agents: [a0, a1]}\n  - {type: allow, sender: a2, targets: [a0]}",
});
const [alpha, beta, gamma] = world.names(3);

/** A span of this process, after it has ended. */
async function named(name: string, count = 1): Promise<ReadableSpan[]> {
  const find = (): ReadableSpan[] => exporter.getFinishedSpans().filter((span) => span.name === name);
  await until(`${count} spans ${name}`, () => find().length >= count);
  assert.equal(find().length, count, name);
  return find();
}

async function one(name: string): Promise<ReadableSpan> {
  const [span] = await named(name);
  assert.ok(span);
  return span;
}

const parent = (span: ReadableSpan): string | undefined => span.parentSpanContext?.spanId;
const id = (span: ReadableSpan): string => span.spanContext().spanId;
const traceOf = (span: ReadableSpan): string => span.spanContext().traceId;
const links = (span: ReadableSpan): string[] => span.links.map(({ context: linked }) => linked.spanId);

/** What was measured since the last look, by the name of the instrument. */
async function points(): Promise<Map<string, DataPoint<unknown>[]>> {
  await reader.forceFlush();
  const found = new Map<string, DataPoint<unknown>[]>();
  for (const { scopeMetrics } of measured.getMetrics()) {
    for (const { scope, metrics: all } of scopeMetrics) {
      assert.equal(scope.name, "mas-agent");
      for (const { descriptor, dataPoints } of all) {
        found.set(descriptor.name, [...(found.get(descriptor.name) ?? []), ...(dataPoints as DataPoint<unknown>[])]);
      }
    }
  }
  measured.reset();
  return found;
}

/** Agents of one test, which alone are told of. */
async function agents(...names: readonly string[]): Promise<Agent[]> {
  exporter.reset();
  await points();
  return names.map((name) => world.agent(name, { traceParent: "parent" }));
}

async function withAll(all: readonly Agent[], run: () => Promise<void>): Promise<void> {
  await Promise.all(all.map((agent) => agent.start()));
  try {
    await run();
  } finally {
    await Promise.all(all.map((agent) => agent.stop()));
  }
}

check("one trace from handler to handler and back, and what stands in each message is what its sender wrote", async () => {
  const [a, b, c] = (await agents(alpha, beta, gamma)) as [Agent, Agent, Agent];
  const written = new Map<string, Message["meta"]>();
  a.on("begin", async (message) => {
    written.set(`send ${alpha}`, message.meta);
    const reply = await program.startActiveSpan("think", async (span) => {
      const reply = await a.request(beta, "question", { n: 1 });
      span.end();
      return reply;
    });
    written.set(`reply ${alpha}`, reply.meta);
  });
  b.on("question", async (message) => {
    written.set(`request ${beta}`, message.meta);
    await message.reply("answer", { n: 2 });
  });
  await withAll([a, b, c], async () => {
    const sent = await c.send(alpha, "begin");
    const chain = [`send ${alpha}`, `process ${alpha}`, "think", `request ${beta}`, `process ${beta}`, `reply ${alpha}`];
    const spans = await Promise.all(chain.map(one));
    const [send, process, , request, processToo, reply] = spans as [ReadableSpan, ReadableSpan, ReadableSpan, ReadableSpan, ReadableSpan, ReadableSpan];
    assert.equal(new Set(spans.map(traceOf)).size, 1);
    spans.forEach((span, index) => assert.equal(parent(span), index === 0 ? undefined : id(spans[index - 1]!), span.name));
    const { PRODUCER, CLIENT, CONSUMER, INTERNAL } = SpanKind;
    assert.deepEqual(spans.map(({ kind }) => kind), [PRODUCER, CONSUMER, INTERNAL, CLIENT, CONSUMER, PRODUCER]);
    assert.deepEqual([links(process), links(processToo), links(request)], [[id(send)], [id(request)], [id(reply)]]);
    for (const [name, { traceparent }] of written) {
      const span = await one(name);
      assert.equal(traceparent, `00-${traceOf(span)}-${id(span)}-01`, name);
    }
    const { lane, sequence } = sent.receipt!;
    const common = { "messaging.system": "mas", "server.address": "127.0.0.1", "server.port": Number(world.address.split(":")[1]) };
    const ofMessage = { "messaging.destination.name": alpha, "messaging.message.id": sent.messageId, "messaging.client.id": "i0" };
    assert.deepEqual(send.attributes, {
      ...common,
      ...ofMessage,
      "messaging.operation.name": "send",
      "messaging.operation.type": "send",
      "mas.receipt.lane": lane,
      "mas.receipt.sequence": sequence,
    });
    assert.deepEqual(process.attributes, {
      ...common,
      ...ofMessage,
      "messaging.operation.name": "process",
      "messaging.operation.type": "process",
      "messaging.consumer.group.name": alpha,
      "mas.sender": gamma,
      "mas.attempt": 1,
      "mas.outcome": "ack",
    });
    const conversations = [request, processToo, reply].map(({ attributes }) => attributes["messaging.message.conversation_id"]);
    assert.ok(conversations[0] !== undefined && new Set(conversations).size === 1);
  });
});

check("a link is the default, and no handler belongs to who started the agent", async () => {
  await agents();
  const a = world.agent(alpha);
  const b = world.agent(beta);
  a.on("note", () => program.startActiveSpan("think", (span) => span.end()));
  await program.startActiveSpan("startup", async (span) => {
    await a.start();
    span.end();
  });
  await withAll([b], async () => {
    await program.startActiveSpan("cause", async (span) => {
      await b.send(alpha, "note");
      span.end();
    });
    const [cause, sent, process, think] = (await Promise.all(["cause", `send ${alpha}`, `process ${alpha}`, "think"].map(one))) as [ReadableSpan, ReadableSpan, ReadableSpan, ReadableSpan];
    assert.deepEqual([traceOf(sent), parent(sent)], [traceOf(cause), id(cause)]);
    assert.equal(parent(process), undefined);
    assert.ok(![traceOf(cause), traceOf(await one("startup"))].includes(traceOf(process)));
    assert.deepEqual(links(process), [id(sent)]);
    assert.equal(parent(think), id(process));
  });
  await a.stop();
  assert.throws(() => new Agent({ traceParent: "child" as "link" }), SetupError);
});

check("what the program does not keep says so on the way, and its state goes along, on the stream and beside it", async () => {
  const [a, b] = (await agents(alpha, beta)) as [Agent, Agent];
  const metas: Message["meta"][] = [];
  b.on("note", ({ meta }) => metas.push(meta));
  await withAll([a, b], async () => {
    const traceId = "0af7651916cd43dd8448eb211c80319c";
    for (const [traceFlags, size] of [[TraceFlags.NONE, 1], [TraceFlags.SAMPLED, 1], [TraceFlags.SAMPLED, 100_000]] as const) {
      const from = { traceId, spanId: "b7ad6b7169203331", traceFlags, traceState: createTraceState("vendor=1,other=2") };
      await context.with(trace.setSpanContext(context.active(), from), () => a.send(beta, "note", { text: "x".repeat(size) }));
    }
    await until("all have arrived", () => metas.length === 3);
    for (const { traceparent, tracestate } of metas) {
      assert.ok(traceparent?.startsWith(`00-${traceId}-`));
      assert.equal(tracestate, "vendor=1,other=2");
    }
    assert.deepEqual(metas.map(({ traceparent }) => traceparent?.slice(-3)).sort(), ["-00", "-01", "-01"]);
    await named(`send ${beta}`, 2);
    await named(`process ${beta}`, 2);
  });
});

check("the messages of a commit", async () => {
  const [a, b, c] = (await agents(alpha, beta, gamma)) as [Agent, Agent, Agent];
  a.on("work", async (message) => {
    let pending: PendingReply | undefined;
    await message.commit((commit) => {
      commit.send(beta, "note");
      pending = commit.request(beta, "question");
      if ("forbidden" in message.data) commit.send(gamma, "note");
    });
    await pending?.message();
    throw new RangeError("after the commit");
  });
  b.on("note", () => undefined).on("question", async (message) => void (await message.commit((commit) => commit.reply("answer"))));
  await withAll([a, b, c], async () => {
    await c.send(alpha, "work");
    const [handled, send, request, reply, receive] = (await Promise.all(
      [`process ${alpha}`, `send ${beta}`, `request ${beta}`, `reply ${alpha}`, `receive ${alpha}`].map(one),
    )) as [ReadableSpan, ReadableSpan, ReadableSpan, ReadableSpan, ReadableSpan];
    for (const span of [send, request, receive]) assert.equal(parent(span), id(handled), span.name);
    assert.deepEqual([request.kind, receive.kind], [SpanKind.PRODUCER, SpanKind.CLIENT]);
    assert.deepEqual((await named(`process ${beta}`, 2)).map(parent).sort(), [id(send), id(request)].sort());
    assert.deepEqual(links(receive), [id(reply)]);
    const conversations = [receive, reply, request].map(({ attributes }) => attributes["messaging.message.conversation_id"]);
    assert.ok(conversations[0] !== undefined && new Set(conversations).size === 1);
    // It was handled, and then its handler failed.
    assert.equal(handled.attributes["mas.outcome"], "ack");
    assert.deepEqual([handled.status.code, handled.events.map(({ name }) => name)], [SpanStatusCode.ERROR, ["exception"]]);
    exporter.reset();
    await points();
    await c.send(alpha, "work", { forbidden: true });
    for (const name of [`process ${alpha}`, `send ${beta}`, `request ${beta}`, `send ${gamma}`]) {
      assert.equal((await one(name)).attributes["error.type"], "not_authorized", name);
    }
    const tried = (await points()).get("messaging.client.sent.messages") ?? [];
    assert.equal(tried.filter(({ attributes }) => "error.type" in attributes).length, 3);
  });
});

check("failures say which, and no payload is told", async () => {
  const [a] = (await agents(alpha)) as [Agent];
  const b = world.agent(beta, { drainTimeout: 50 });
  const hangs = gate();
  class Odd extends Error {}
  b.on("again", ({ attempt }) => {
    if (attempt === 1) throw new Retry("later");
  });
  b.on("never", () => {
    throw new Reject("no");
  });
  b.on("broken", () => {
    throw new Odd("broken");
  });
  b.on("off", () => {
    throw new NotConnected("a peer of its own");
  });
  b.on("order", z.object({ number: z.number() }), () => undefined);
  b.on("silent", async () => {
    hangs.open();
    await new Promise(() => undefined);
  });
  await withAll([a], async () => {
    await b.start();
    const refused = await failure(NotAuthorized, a.send(gamma, "note"));
    for (const type of ["again", "never", "broken"]) await a.send(beta, type);
    await a.send(beta, "order", { number: "a secret" });
    await failure(NoReply, a.request(beta, "silent", {}, { timeout: 200 }));
    await hangs.promise;
    const rows = (spans: readonly ReadableSpan[]): string[] =>
      spans.map(({ attributes, events }) => `${attributes["mas.outcome"]} ${attributes["error.type"] ?? "-"} ${events.length}`).sort();
    await named(`process ${beta}`, 5);
    await b.stop();
    assert.deepEqual(rows(await named(`process ${beta}`, 6)), ["ack - 0", "dead Odd 1", "dead PayloadError 1", "dead Reject 1", "later NotConnected 0", "nack Retry 1"]);
    const unfit = (await named(`process ${beta}`, 6)).find(({ attributes }) => attributes["error.type"] === "PayloadError");
    const told = JSON.stringify([unfit?.attributes, unfit?.events, unfit?.status]);
    assert.ok(told.includes("/number") && !told.includes("secret"), told);
    const denied = await one(`send ${gamma}`);
    assert.deepEqual([denied.attributes["mas.receipt.sequence"], denied.attributes["error.type"]], [refused.receipt?.sequence, "not_authorized"]);
    assert.equal((await one(`request ${beta}`)).attributes["error.type"], "NoReply");
    await a.stop();
    await failure(NotConnected, a.send(beta, "note"));
    const sent = (await points()).get("messaging.client.sent.messages") ?? [];
    const keys = ["messaging.operation.name", "messaging.destination.name", "error.type"];
    const counted = sent.map(({ attributes, value }) => [...keys.map((key) => attributes[key] ?? "-"), value].join(" ")).sort();
    assert.deepEqual(counted, [`request ${beta} - 1`, `send ${beta} - 4`, `send ${gamma} not_authorized 1`]);
  });
});

check("metrics have the names of the conventions, and nothing in them grows with the messages", async () => {
  const [a, b] = (await agents(alpha, beta)) as [Agent, Agent];
  b.on("question", async (message) => void (await message.reply("answer")));
  await withAll([a, b], async () => {
    for (let n = 0; n < 3; n += 1) await a.request(beta, "question");
    await named(`process ${beta}`, 3);
  });
  const all = await points();
  const keys = ["messaging.operation.name", "messaging.destination.name", "messaging.consumer.group.name"];
  const rows = (name: string): string[] =>
    (all.get(name) ?? []).map(({ attributes, value }) => {
      const count = typeof value === "number" ? value : (value as { count: number }).count;
      return [...keys.map((key) => attributes[key] ?? "-"), count].join(" ");
    }).sort();
  const calls = [`reply ${alpha} - 3`, `request ${beta} - 3`];
  assert.deepEqual(rows("messaging.client.sent.messages"), calls);
  assert.deepEqual(rows("messaging.client.operation.duration"), calls);
  assert.deepEqual(rows("messaging.process.duration"), [`process ${beta} ${beta} 3`]);
  assert.deepEqual(rows("messaging.client.consumed.messages"), [`process ${beta} ${beta} 3`, `receive ${alpha} ${alpha} 3`]);
  const known = [...keys, "messaging.system", "messaging.operation.type", "server.address", "server.port"];
  for (const { attributes } of [...all.values()].flat()) assert.deepEqual(Object.keys(attributes as Attributes).filter((key) => !known.includes(key)), []);
});

check("without OpenTelemetry the package works, and nothing is loaded or said", async () => {
  // As it is installed: the package and its two dependencies.
  const modules = join(world.folder, "untraced/node_modules");
  mkdirSync(join(modules, "mas-agent"), { recursive: true });
  for (const name of ["dist", "package.json"]) cpSync(join(PACKAGE, name), join(modules, "mas-agent", name), { recursive: true });
  for (const scope of ["@grpc", "@bufbuild"]) symlinkSync(join(PACKAGE, "node_modules", scope), join(modules, scope));
  const source = fileURLToPath(new URL("./programs/untraced.js", import.meta.url));
  cpSync(source, join(world.folder, "untraced/untraced.mjs"));
  const env = { ...process.env, ...world.env(alpha), PEER: beta };
  const b = world.agent(beta);
  const got = gate<Message["meta"]>();
  b.on("question", async (message) => {
    got.open(message.meta);
    const failed = await b.request(alpha, "broken", {}, { timeout: 10_000 }).catch((error: unknown) => error);
    await message.reply("answer", { ok: true, failed: failed instanceof NoReply && failed.reason });
  });
  await b.start();
  const running = world.start(process.execPath, [join(world.folder, "untraced/untraced.mjs")], env);
  const before = world.log().length;
  const said = JSON.parse(await running.line("{")) as object;
  assert.equal(await running.end(), 0);
  assert.deepEqual(said, { data: { ok: true, failed: "handler_failed" }, loaded: [] });
  assert.ok(!(await got.promise).traceparent);
  assert.equal(world.log().slice(before), "");
});
