// Processes of a test: their lines, and their certain end, by their process ids.

import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { until } from "./wait.js";

/** What a process can be given. */
export interface ProcessOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** The file that its stderr is added to. */
  readonly log: string;
}

// One listener for each process of a file.
process.setMaxListeners(100);

/** A process that a test has started. */
export class Process {
  readonly child: ChildProcess;
  readonly lines: string[] = [];
  readonly #title: string;
  readonly #log: string;
  #ended: { code: number | null; signal: string | null } | undefined;

  constructor(command: string, args: readonly string[], { env, cwd, log }: ProcessOptions) {
    this.#title = `${command} ${args.join(" ")}`;
    this.#log = log;
    const file = openSync(log, "a");
    this.child = spawn(command, args, {
      stdio: ["ignore", "pipe", file],
      env: { ...process.env, ...env },
      ...(cwd === undefined ? {} : { cwd }),
    });
    closeSync(file);
    if (this.child.stdout === null) throw new Error("no stdout");
    createInterface({ input: this.child.stdout }).on("line", (line) => this.lines.push(line));
    this.child.on("close", (code, signal) => (this.#ended = { code, signal }));
    // Also where a test file fails before its first test.
    process.once("exit", () => this.child.kill("SIGKILL"));
    this.child.on("error", () => (this.#ended = { code: -1, signal: null }));
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`${this.#title} was not started`);
    return this.child.pid;
  }

  /** The first line that holds `part`. */
  async line(part: string): Promise<string> {
    const find = (): string | undefined => this.lines.find((line) => line.includes(part));
    const found = await until(`${this.#title} says ${part}`, () => find() ?? (this.#ended ? "" : undefined));
    if (found === "") throw new Error(`${this.#title} ended without ${part}\n${readFileSync(this.#log, "utf8").slice(-2000)}`);
    return found;
  }

  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /** Its end: the exit code, or the signal. */
  async end(): Promise<number | string> {
    const { code, signal } = await until(`${this.#title} ends`, () => this.#ended);
    return signal ?? code ?? -1;
  }

  /** kill -9, and its end. */
  async kill(): Promise<void> {
    if (this.#ended === undefined) this.signal("SIGKILL");
    await this.end();
  }

  /** SIGTERM, and its end. */
  async stop(): Promise<number | string> {
    if (this.#ended === undefined) this.signal("SIGTERM");
    return this.end();
  }
}
