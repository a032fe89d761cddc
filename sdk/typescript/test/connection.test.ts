// The life of a connection.

import assert from "node:assert/strict";
import { once } from "node:events";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import { Agent, NotConnected, Refused, SetupError, Unauthenticated, type AgentEvents } from "mas-agent";
import { behaviour } from "./behaviour.js";
import { failure, until } from "./wait.js";
import { Wire } from "./wires.js";
import { Heard, World } from "./world.js";

/** An address where nobody listens. */
const NOBODY = "127.0.0.1:9";

const world = await World.make({ without: ["a59"] });

behaviour("connect.start", "returns when the session is open", async () => {
  const [name] = world.names(1);
  const agent = await world.started(name);
  assert.equal(agent.isConnected, true);
  assert.equal(agent.agentId, name);
  assert.ok(agent.features.has("commit"));
});

behaviour("connect.start", "throws the server's refusal of this agent at once", async () => {
  const agent = world.agent("a59", { connectTimeout: 20_000 });
  const refused = await failure(Unauthenticated, agent.start());
  assert.equal(refused.detail, "agent_not_allowlisted");
  assert.equal(agent.isConnected, false);
});

behaviour("connect.start", "throws the last reason when its time is over", async () => {
  const [name] = world.names(1);
  const agent = world.agent(name, { address: NOBODY, connectTimeout: 300 });
  const began = performance.now();
  const { message } = await failure(NotConnected, agent.start());
  assert.match(message, /within 0.3 s.*ECONNREFUSED/);
  assert.ok(performance.now() - began < 3_000);
});

behaviour("connect.start", "can be given up", async () => {
  const [name] = world.names(1);
  const agent = world.agent(name, { address: NOBODY });
  await assert.rejects(agent.start({ signal: AbortSignal.timeout(50) }), { name: "TimeoutError" });
});

behaviour("connect.setup", "names all variables that are not set", async () => {
  const { message } = await failure(SetupError, new Agent().start());
  for (const name of ["MAS_SERVER_ADDR", "MAS_TLS_CA", "MAS_TLS_CERT", "MAS_TLS_KEY"]) assert.ok(message.includes(name));
});

behaviour("connect.setup", "names all files that are no good, by their paths", async () => {
  const [name, other] = world.names(2);
  const files = world.files(name);
  const none = join(world.folder, "none.pem");
  const noPem = join(world.folder, "no-pem");
  writeFileSync(noPem, "no PEM");
  const missing = await failure(SetupError, world.agent(name, { credentials: { ca: noPem, cert: none, key: noPem } }).start());
  assert.match(missing.message, /none\.pem: there is no such file/);
  assert.match(missing.message, /no-pem: is not a certificate in PEM/);
  assert.match(missing.message, /no-pem: is not a private key in PEM/);
  const foreign = { ...files, key: world.files(other).key };
  const mixed = await failure(SetupError, world.agent(name, { credentials: foreign }).start());
  assert.ok(mixed.message.includes(`${foreign.key}: is not the key of ${foreign.cert}`), mixed.message);
});

behaviour("connect.setup", "names all settings that are no good", async () => {
  assert.throws(() => new Agent({ instanceId: "a\n", concurrency: 0 }), (error) => {
    assert.ok(error instanceof SetupError);
    assert.match(error.message, /instance id "a\\n".*concurrency/);
    return true;
  });
  const [name] = world.names(1);
  await assert.rejects(world.agent(name, { address: "nowhere" }).start(), /nowhere: expected host:port/);
});

behaviour("connect.again", "makes a lost connection again, and what waits meanwhile waits", async () => {
  const [name, peer] = world.names(2);
  const wire = await Wire.to(world.address);
  const agent = await world.started(name, { address: wire.address });
  wire.dead = true;
  await until("the connection is lost", () => !agent.isConnected);
  const sent = agent.send(peer, "note", {});
  await until("the call waits", () => agent.waiting === 1);
  wire.dead = false;
  assert.ok((await sent).messageId);
  assert.equal(agent.isConnected, true);
});

behaviour("connect.events", "tells of connected and lost, and logs them as warnings", async () => {
  const [name] = world.names(1);
  const wire = await Wire.to(world.address);
  const heard = new Heard();
  const agent = world.agent(name, { address: wire.address, logger: heard });
  const connected: AgentEvents["connected"][] = [];
  const lost: string[] = [];
  agent.events.on("connected", (event) => connected.push(event)).on("lost", ({ reason }) => lost.push(reason));
  agent.events.once("lost", () => assert.fail("a listener's own error"));
  await agent.start();
  wire.cut();
  await until("it is connected again", () => connected.length === 2);
  assert.deepEqual(connected[0], { agentId: name, instanceId: "i0", address: wire.address });
  assert.equal(lost.length, 1);
  assert.ok(heard.has("warn", "the connection is lost: "));
  assert.ok(heard.has("warn", "again after"));
  assert.ok(heard.has("error", "a listener of lost failed"));
});

behaviour("connect.refused", "a refusal is logged, and tried again until an operator has changed it", async () => {
  const [name, peer] = world.names(2);
  const heard = new Heard();
  const agent = world.agent(name, { refusedRetry: 100, logger: heard });
  const refusals: Refused[] = [];
  agent.events.on("refused", ({ refusal }) => refusals.push(refusal));
  await agent.start();
  world.configure({ without: ["a59", name] });
  world.server.process.signal("SIGHUP");
  await until("it is refused twice", () => refusals.length > 1);
  assert.equal(refusals[0]?.detail, "agent_not_allowlisted");
  assert.ok(heard.has("error", "the server refuses this agent: agent_not_allowlisted"));
  const { message, cause } = await failure(NotConnected, agent.send(peer, "note", {}, { timeout: 50 }));
  assert.match(message, /agent_not_allowlisted/);
  assert.ok(cause instanceof Refused);
  world.configure({ without: ["a59"] });
  world.server.process.signal("SIGHUP");
  await until("it is back", () => agent.isConnected);
});

behaviour("connect.refused", "with refusedIsFinal the first one ends the agent", async () => {
  const [name, peer] = world.names(2);
  const agent = await world.started(name, { refusedIsFinal: true });
  const ended = failure(Unauthenticated, agent.wait());
  world.configure({ without: ["a59", name] });
  world.server.process.signal("SIGHUP");
  assert.equal((await ended).detail, "agent_not_allowlisted");
  await failure(Unauthenticated, agent.send(peer, "note"));
  world.configure({ without: ["a59"] });
  world.server.process.signal("SIGHUP");
});

behaviour("connect.wait", "returns when the agent was stopped", async () => {
  const [name] = world.names(1);
  const agent = await world.started(name);
  let over = false;
  const waits = agent.wait().then(() => (over = true));
  await agent.discover();
  assert.equal(over, false);
  await agent.stop();
  await waits;
});

behaviour("connect.renewed", "takes up files that were replaced, also after a half-written one", async () => {
  const [name, other] = world.names(2);
  const folder = join(world.folder, "renewed");
  mkdirSync(folder);
  const credentials = { ca: join(folder, "ca.pem"), cert: join(folder, "a.pem"), key: join(folder, "a.key") };
  const install = (agent: string): void => {
    for (const file of ["ca", "cert", "key"] as const) copyFileSync(world.files(agent)[file], credentials[file]);
  };
  install(name);
  const wire = await Wire.to(world.address);
  const heard = new Heard();
  const agent = await world.started(name, { address: wire.address, credentials, logger: heard });
  const whole = readFileSync(credentials.cert);
  writeFileSync(credentials.cert, whole.subarray(0, whole.length / 2));
  wire.cut();
  await until("it has met the half-written file", () => heard.has("warn", "a.pem: is not a certificate in PEM"));
  // Another agent's, so that it can be told which one was used.
  install(other);
  await until("it is connected by the new files", () => agent.agentId === other);
});

behaviour("connect.addresses", "tries the next address after a failure, from the one that worked last", async () => {
  const [name] = world.names(1);
  const [first, second] = [await Wire.to(world.address), await Wire.to(world.address)];
  const agent = world.agent(name, { address: [NOBODY, first.address, second.address] });
  const connected: string[] = [];
  agent.events.on("connected", ({ address }) => connected.push(address));
  await agent.start();
  first.cut();
  await until("it is connected again", () => connected.length === 2);
  first.dead = true;
  await until("it is connected to the next one", () => connected.length === 3);
  assert.deepEqual(connected, [first.address, first.address, second.address]);
});

behaviour("connect.addresses", "one variable names several", async () => {
  const [name] = world.names(1);
  const env = { ...world.env(name), MAS_SERVER_ADDR: `${NOBODY}, ${world.address}` };
  Object.assign(process.env, env);
  try {
    await using agent = new Agent({ logger: new Heard() });
    await agent.start();
    assert.equal(agent.agentId, name);
    assert.equal(agent.instanceId, "i0");
  } finally {
    for (const variable of Object.keys(env)) delete process.env[variable];
  }
});

behaviour("connect.proxy", "is not used for loopback addresses, and for none where it is off", async () => {
  const [name] = world.names(1);
  const proxy = createServer();
  let asked = 0;
  proxy.on("connection", (socket: Socket) => {
    asked += 1;
    socket.destroy();
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  process.env["https_proxy"] = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  try {
    await world.started(name);
    assert.equal(asked, 0);
    // No loopback address by its name, and nobody listens there.
    const elsewhere = { address: "0.0.0.0:9", connectTimeout: 200 };
    await failure(NotConnected, world.agent(name, { ...elsewhere, proxy: false }).start());
    assert.equal(asked, 0);
    await failure(NotConnected, world.agent(name, elsewhere).start());
    assert.ok(asked > 0);
  } finally {
    delete process.env["https_proxy"];
    proxy.close();
  }
});

behaviour("connect.start", "giving it up at any moment harms nothing", async () => {
  const [name] = world.names(1);
  for (let turns = 0; turns < 40; turns += 1) {
    const agent = world.agent(name, { instanceId: `i${turns}` });
    const cancel = new AbortController();
    const started = agent.start({ signal: cancel.signal }).catch((error: unknown) => assert.equal(error, cancel.signal.reason));
    for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
    cancel.abort();
    await started;
    await agent.stop();
  }
});

behaviour("connect.setup", "names a time of start that is no good", async () => {
  const [name] = world.names(1);
  for (const timeout of [0, -1, NaN]) await failure(SetupError, world.agent(name).start({ timeout }));
});

behaviour("connect.again", "logs each reason once", async () => {
  const [name] = world.names(1);
  const heard = new Heard();
  const agent = world.agent(name, { address: NOBODY, logger: heard });
  await failure(NotConnected, agent.start({ timeout: 1_000 }));
  assert.equal(heard.lines.filter(({ text }) => text.startsWith("not connected")).length, 1, JSON.stringify(heard.lines));
});

behaviour("connect.events", "a listener of one event is called once, can be taken off, and its failure is logged", async () => {
  const heard = new Heard();
  const { events } = new Agent({ logger: heard });
  const lost = (reason: string): void => void events.emit("lost", { reason });
  const got: string[] = [];
  const all = ({ reason }: AgentEvents["lost"]): unknown => got.push(`all ${reason}`);
  const first = ({ reason }: AgentEvents["lost"]): unknown => got.push(`first ${reason}`);
  events.on("lost", all).once("lost", all).once("lost", first);
  lost("a");
  lost("b");
  events.once("lost", first).off("lost", first).off("lost", all);
  lost("c");
  assert.deepEqual(got, ["all a", "first a", "all b"]);
  events.once("lost", async () => Promise.reject(new Error("its own")));
  lost("d");
  await until("it is logged", () => heard.has("error", "a listener of lost failed"));
});
