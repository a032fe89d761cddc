// What the tests run: Redis, certificates and servers of their own.

import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Agent, type AgentOptions, type Credentials, type Logger } from "mas-agent";
import { atEnd } from "./behaviour.js";
import { Process } from "./process.js";
import { until } from "./wait.js";

const run = promisify(execFile);

/** Limits that no test meets by chance. */
const UNLIMITED = "rate_limit: {per_minute: 1000000, per_hour: 10000000}";
/** Agents that a world has; each test takes fresh ones. */
const AGENTS = Array.from({ length: 60 }, (_, index) => `a${index}`);

/** A program of this project, as cargo has built it. */
export function binary(name: string): string {
  const cache = process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
  const target = process.env["CARGO_TARGET_DIR"] ?? join(cache, "mas-server/target");
  const path = join(process.env["MAS_BIN_DIR"] ?? join(target, "release"), name);
  if (!existsSync(path)) throw new Error(`${path}: build it first (cargo build --release, or scripts/test)`);
  return path;
}

/** What can be set of a world's configuration, as YAML. */
export interface Configuration {
  readonly gateway?: string;
  readonly settings?: string;
  readonly permissions?: string;
  /** Further keys of an agent, by its id. */
  readonly agents?: Readonly<Record<string, string>>;
  /** Agents that are not in the allowlist. */
  readonly without?: readonly string[];
}

/** Keeps what an agent logs. */
export class Heard implements Logger {
  readonly lines: { readonly level: string; readonly text: string; readonly error: unknown }[] = [];
  info(text: string): void {
    this.lines.push({ level: "info", text, error: undefined });
  }
  warn(text: string, error?: unknown): void {
    this.lines.push({ level: "warn", text, error });
  }
  error(text: string, error?: unknown): void {
    this.lines.push({ level: "error", text, error });
  }
  has(level: string, part: string): boolean {
    return this.lines.some((line) => line.level === level && line.text.includes(part));
  }
}

/** A message among the dead letters. */
export interface DeadLetter {
  readonly message_id: string;
  readonly reason: string;
  readonly attempts: number;
}

/** A server that accepts connections. */
export class Server {
  readonly process: Process;
  readonly address: string;

  constructor(process: Process, address: string) {
    this.process = process;
    this.address = address;
  }
}

/** A folder with an authority, a Redis on a unix socket, and the configuration of a server. */
export class World {
  readonly folder = mkdtempSync("/tmp/masts-");
  readonly config = join(this.folder, "mas.yaml");
  readonly #socket = join(this.folder, "redis.sock");
  readonly #processes: Process[] = [];
  readonly #agents: Agent[] = [];
  readonly #unused = [...AGENTS];
  #server: Server | undefined;

  /** One for a test file; ends with it. */
  static async make(configuration: Configuration = {}): Promise<World> {
    const world = new World();
    atEnd(() => world.#close());
    await world.mas("certs", "init", "--dir", join(world.folder, "certs"));
    await world.mas("certs", "issue", "--dir", join(world.folder, "certs"), ...AGENTS);
    const words = ["--port", "0", "--unixsocket", world.#socket, "--dir", world.folder, "--save", "", "--appendonly", "yes"];
    world.start("redis-server", words);
    await until("redis-server answers", async () => (await world.redis("ping").catch(() => "")) === "PONG");
    world.configure(configuration);
    await world.serve();
    return world;
  }

  /** Writes the configuration. */
  configure({ gateway = UNLIMITED, settings = "", permissions = "", agents = {}, without = [] }: Configuration): void {
    const listed = AGENTS.filter((id) => !without.includes(id));
    const rule = permissions || `  - {type: allow_network, agents: [${listed.join(", ")}]}`;
    const lines = [
      "server_listen_addr: 127.0.0.1:0",
      "tls_ca_path: certs/ca.pem",
      "tls_server_cert_path: certs/server.pem",
      "tls_server_key_path: certs/server.key",
      `admin_socket_path: ${join(this.folder, "admin.sock")}`,
      "admin_listen_addr: null",
      `gateway: {redis: {url: 'unix://${this.#socket}', socket_timeout: 2}, ${gateway}}`,
      settings,
      "permissions:",
      rule,
      "agents:",
      ...listed.map((id) => `  - {agent_id: ${id}${agents[id] === undefined ? "" : `, ${agents[id]}`}}`),
    ];
    writeFileSync(this.config, `${lines.join("\n")}\n`);
  }

  /** Starts a second server beside the first. */
  async serveBeside(): Promise<Server> {
    const config = join(this.folder, "beside.yaml");
    writeFileSync(config, readFileSync(this.config, "utf8").replace("admin.sock", "beside.sock"));
    const { server } = this;
    const beside = await this.serve("127.0.0.1:0", config);
    this.#server = server;
    return beside;
  }

  /** Starts a server; on `listen`, or on a port of the system's choice. */
  async serve(listen = "127.0.0.1:0", config = this.config): Promise<Server> {
    const words = ["--config", config, "--threads", "1", "--listen", listen];
    const started = this.start(binary("mas-server"), words);
    const line = await started.line("mas.server.ready");
    const { listen_addr } = JSON.parse(line) as { listen_addr: string };
    this.#server = new Server(started, listen_addr);
    return this.#server;
  }

  /** The server that was started last. */
  get server(): Server {
    if (this.#server === undefined) throw new Error("there is no server");
    return this.#server;
  }

  get address(): string {
    return this.server.address;
  }

  /** So many agents that no other test of this file uses. */
  names<N extends number>(count: N): Names<N> {
    const names = this.#unused.splice(0, count);
    if (names.length < count) throw new Error("the world has no more agents");
    return names as Names<N>;
  }

  files(name: string): Credentials {
    const certs = join(this.folder, "certs");
    return { ca: join(certs, "ca.pem"), cert: join(certs, `agents/${name}.pem`), key: join(certs, `agents/${name}.key`) };
  }

  /** What `mas run` gives to a process of an agent. */
  env(name: string, instance = "i0"): NodeJS.ProcessEnv {
    const { ca, cert, key } = this.files(name);
    return {
      MAS_SERVER_ADDR: this.address,
      MAS_INSTANCE_ID: instance,
      MAS_TLS_CA: ca,
      MAS_TLS_CERT: cert,
      MAS_TLS_KEY: key,
    };
  }

  /** An agent of this server; stopped with the world. */
  agent(name: string, options: AgentOptions = {}): Agent {
    const agent = new Agent({
      address: this.address,
      credentials: this.files(name),
      instanceId: "i0",
      logger: new Heard(),
      drainTimeout: 1_000,
      ...options,
    });
    this.#agents.push(agent);
    return agent;
  }

  /** A started agent. */
  async started(name: string, options: AgentOptions = {}): Promise<Agent> {
    const agent = this.agent(name, options);
    await agent.start();
    return agent;
  }

  start(command: string, words: readonly string[], env: NodeJS.ProcessEnv = {}, cwd = this.folder): Process {
    const started = new Process(command, words, { env, cwd, log: join(this.folder, "log") });
    this.#processes.push(started);
    return started;
  }

  /** What was said on stderr. */
  log(): string {
    return readFileSync(join(this.folder, "log"), "utf8");
  }

  async mas(...words: readonly string[]): Promise<string> {
    return (await run(binary("mas"), words, { cwd: this.folder })).stdout;
  }

  async redis(...words: readonly string[]): Promise<string> {
    return (await run("redis-cli", ["-s", this.#socket, ...words])).stdout.trim();
  }

  /** The dead letters of an agent. */
  async dead(name: string): Promise<DeadLetter[]> {
    const out = await this.mas("dlq", "list", "--config", this.config, "--json", "--agent", name);
    return out.split("\n").filter(Boolean).map((line) => JSON.parse(line) as DeadLetter);
  }

  /** The only dead letter of an agent, waited for. */
  async oneDead(name: string): Promise<DeadLetter> {
    return until(`a dead letter of ${name}`, async () => (await this.dead(name))[0]);
  }

  /** Nothing is left for an agent: neither waiting nor with a session. */
  async nothingLeft(name: string): Promise<void> {
    await until(`nothing waits for ${name}`, async () => (await this.redis("xlen", `agent.stream:${name}`)) === "0");
  }

  async #close(): Promise<void> {
    await Promise.all(this.#agents.map((agent) => agent.stop()));
    // Redis was started first and ends last.
    for (const process of this.#processes.reverse()) await process.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

type Names<N extends number> = N extends 1 ? [string] : N extends 2 ? [string, string] : [string, string, string];
