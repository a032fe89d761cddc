// The package as its users get it.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { check } from "./behaviour.js";
import { World } from "./world.js";

// From build/sdk/typescript/test.
const PACKAGE = fileURLToPath(new URL("../../../../", import.meta.url));
const BUILD = `${PACKAGE}build/`;

/** A program that tells errors apart, by their classes and by their names. */
const CONSUMER = `
import { Agent, MasError, NoReply, NotConnected, Refused, SetupError } from "mas-agent";
export async function main(signal?: AbortSignal): Promise<void> {
  await using agent = new Agent({ traceParent: "parent", repeatSends: undefined });
  await agent.start({ signal });
}
export function byClass(error: MasError): string {
  if (error instanceof NotConnected) return "";
  if (error instanceof SetupError) return error.message;
  if (error instanceof Refused) return error.detail;
  return error.message;
}
export function byName(error: NoReply | NotConnected | SetupError | Refused): string {
  switch (error.name) {
    case "NoReply":
      return error.messageId;
    case "NotConnected":
    case "SetupError":
      return error.message;
    default:
      return error.detail;
  }
}
`;

check("each behaviour of docs/clients.md has a test, and each test a behaviour", async () => {
  const page = readFileSync(`${PACKAGE}../../docs/clients.md`, "utf8");
  const promised = new Set([...page.matchAll(/^- \*\*([a-z.]+)\*\*/gm)].map(([, name]) => name));
  const folder = `${PACKAGE}test/`;
  const tested = new Set<string | undefined>();
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".test.ts"))) {
    const calls = readFileSync(folder + file, "utf8").matchAll(/^ *behaviour\("([a-z.]+)"/gm);
    for (const [, name] of calls) tested.add(name);
  }
  assert.ok(promised.size > 30);
  assert.deepEqual([...promised].filter((name) => !tested.has(name)), [], "without a test");
  assert.deepEqual([...tested].filter((name) => !promised.has(name ?? "")), [], "promised nowhere");
});

check("what is packed is the library, its types, its readme and its licence", async () => {
  const out = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: PACKAGE, encoding: "utf8" });
  const [{ files }] = JSON.parse(out) as [{ files: { path: string }[] }];
  const paths = files.map(({ path }) => path);
  const others = paths.filter((path) => !/^dist\/[\w/]+\.(js|d\.ts)$/.test(path));
  assert.deepEqual(others.sort(), ["LICENSE", "README.md", "package.json"]);
  for (const path of ["dist/index.js", "dist/index.d.ts", "dist/proto/mas/runtime/v1/runtime.js"]) assert.ok(paths.includes(path));
});

check("the lock file names no host, and there are two dependencies", async () => {
  const lock = readFileSync(`${PACKAGE}package-lock.json`, "utf8");
  assert.ok(!lock.includes('"resolved"'), "omit-lockfile-registry-resolved");
  const { dependencies } = JSON.parse(readFileSync(`${PACKAGE}package.json`, "utf8")) as { dependencies: object };
  assert.deepEqual(Object.keys(dependencies).sort(), ["@bufbuild/protobuf", "@grpc/grpc-js"]);
});

check("the version that is told is the package's", async () => {
  const { version } = JSON.parse(readFileSync(`${PACKAGE}package.json`, "utf8")) as { version: string };
  assert.ok(readFileSync(`${PACKAGE}dist/version.js`, "utf8").includes(`VERSION = "${version}"`));
});

check("its types fit strict programs of both kinds, without OpenTelemetry, and CommonJS can require it", async () => {
  const folder = mkdtempSync("/tmp/masts-");
  try {
    const modules = `${folder}/node_modules`;
    mkdirSync(modules);
    mkdirSync(`${modules}/mas-agent`);
    for (const name of ["dist", "package.json"]) cpSync(PACKAGE + name, `${modules}/mas-agent/${name}`, { recursive: true });
    for (const name of readdirSync(`${PACKAGE}node_modules`)) {
      if (!name.startsWith(".") && name !== "@opentelemetry") symlinkSync(`${PACKAGE}node_modules/${name}`, `${modules}/${name}`);
    }
    writeFileSync(`${folder}/es.mts`, CONSUMER);
    writeFileSync(`${folder}/common.cts`, CONSUMER);
    const words = "--noEmit --strict --exactOptionalPropertyTypes --skipLibCheck false --target es2022 --lib es2022,esnext.disposable";
    for (const resolution of ["--module nodenext", "--module preserve --moduleResolution bundler"]) {
      const args = [`${PACKAGE}node_modules/typescript/bin/tsc`, ...`${words} --types node ${resolution}`.split(" "), "es.mts", "common.cts"];
      const { status, stdout } = spawnSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
      assert.equal(status, 0, stdout);
    }
    const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
    if (major > 22 || (major === 22 && minor >= 12) || (major === 20 && minor >= 19)) {
      const code = 'process.stdout.write(typeof require("mas-agent").Agent)';
      assert.equal(execFileSync(process.execPath, ["-e", code], { cwd: folder, encoding: "utf8", stdio: "pipe" }), "function");
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

check("no public type is any", async () => {
  for (const file of readdirSync(`${PACKAGE}dist`).filter((name) => name.endsWith(".d.ts"))) {
    const types = readFileSync(`${PACKAGE}dist/${file}`, "utf8").replace(/\/\*\*.*?\*\/|\/\/.*/gs, "");
    assert.ok(!/[:<|,=(] ?any\b/.test(types), file);
  }
});

check("the first example of the readme runs", async () => {
  const world = await World.make();
  const [name, asker] = world.names(2);
  const running = world.start(process.execPath, [`${BUILD}sdk/typescript/test/snippets/readme-1.js`], world.env(name));
  const asks = await world.started(asker);
  const first = await asks.request(name, "question", { text: "Why?" }, { timeout: 10_000 });
  assert.match(String(first.data["text"]), /a model's answer to \d+ characters/);
  await asks.request(name, "question", { text: "Why not?" }, { timeout: 10_000 });
  assert.equal(await running.stop(), 0);
  assert.equal(await world.redis("hget", `agent.state:${name}`, "asked"), "2");
  assert.deepEqual(await world.dead(name), []);
});

check("the example of a tool loop runs", async () => {
  const tool = (description: string): string => `capabilities: [tool], metadata: {description: ${description}}`;
  const world = await World.make({ agents: { a1: tool("counts characters"), a2: tool("never answers with anything but an error") } });
  const [name, counter, broken] = world.names(3);
  const [asker] = world.names(1);
  const counts = world.agent(counter);
  counts.on("call", async (message) => void (await message.reply("result", { n: String(message.data["text"]).length })));
  await counts.start();
  const running = world.start(process.execPath, [`${BUILD}examples/typescript/tool_loop.js`], world.env(name));
  const asks = await world.started(asker);
  const { data } = await asks.request(name, "question", { text: "Why?" }, { timeout: 10_000 });
  assert.deepEqual(data, { text: `${counter}: {"n":4}` });
  const fails = world.agent(broken);
  fails.on("call", async (message) => void (await message.reply("error", { why: "broken" })));
  await fails.start();
  const both = await asks.request(name, "question", { text: "Why not?" }, { timeout: 10_000 });
  assert.deepEqual(String(both.data["text"]).split("; ").sort(), [`${counter}: {"n":8}`, `${broken}: {"why":"broken"}`]);
  assert.equal(await running.stop(), 0);
});
