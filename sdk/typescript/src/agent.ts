// The agent: handlers, calls, lifecycle.

import { timeoutOf, type CallOptions, type SendOptions } from "./calls.js";
import type { Commit, Committed } from "./commit.js";
import { load } from "./credentials.js";
import { NotConnected, SetupError } from "./errors.js";
import { Events } from "./events.js";
import { Handler, Handlers, type HandlerOptions, type PlainHandler, type TypedHandler } from "./handlers.js";
import type { Message } from "./message.js";
import { toFields } from "./payload.js";
import type { Sent } from "./receipt.js";
import { ttlMs, whole } from "./requests.js";
import { Running } from "./running.js";
import type { OutputOf, StandardSchema } from "./schema.js";
import { endpointOf, settingsOf, type AgentOptions, type Settings } from "./settings.js";
import { untilSignal } from "./signals.js";
import { change, State, Turns } from "./state.js";
import { Expired, Limit } from "./time.js";

/** Another agent, as the server shows it. */
export interface Peer {
  readonly agentId: string;
  readonly capabilities: readonly string[];
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly status: string;
}

/** What a change of the state may say. */
export interface UpdateOptions extends CallOptions {
  /** Only if the state has this version; else `VersionMismatch`, and nothing changes. */
  readonly expectedVersion?: number | undefined;
  /** The whole state is gone this many milliseconds later. */
  readonly ttl?: number | undefined;
}

/**
 * One instance of an agent. What is not given comes from the environment that `mas run` sets.
 *
 * A message is acknowledged when its handler is done. A handler that throws `Retry`, or what its `retryOn` names, gets
 * the message again; one that meets a limit or a lost connection gets it later; any other error makes it a dead letter.
 */
export class Agent {
  /** What the program can be told of: `connected`, `lost`, `refused`. */
  readonly events: Events;
  readonly #settings: Settings;
  readonly #handlers = new Handlers();
  readonly #turns = new Turns();
  #running: Running | undefined;

  constructor(options: AgentOptions = {}) {
    this.#settings = settingsOf(options);
    this.events = new Events(this.#settings.log);
  }

  // Handlers

  /** Registers the handler of a type; with a schema it gets the payload as the schema makes it. */
  on<S extends StandardSchema>(type: string, schema: S, handler: TypedHandler<S>, options?: HandlerOptions): this;
  /** Registers the handler of a type, which gets the payload as `message.data`. */
  on(type: string, handler: PlainHandler, options?: HandlerOptions): this;
  on(
    type: string,
    first: StandardSchema | PlainHandler,
    second?: TypedHandler<StandardSchema> | HandlerOptions,
    third?: HandlerOptions,
  ): this {
    // A schema may be a function, too: arktype's are.
    if ("~standard" in first) {
      if (typeof second !== "function") throw new SetupError(`on ${JSON.stringify(type)}: expected a handler`);
      this.#handlers.add(type, new Handler(first, second, third ?? {}));
    } else {
      if (typeof first !== "function") throw new SetupError(`on ${JSON.stringify(type)}: expected a handler or a schema`);
      this.#handlers.add(type, new Handler(undefined, first, (second as HandlerOptions | undefined) ?? {}));
    }
    return this;
  }

  /** Registers the handler of all types that have none; without it they go to the dead letters. */
  onOther(handler: PlainHandler, options: HandlerOptions = {}): this {
    this.#handlers.addOther(new Handler(undefined, handler, options));
    return this;
  }

  // Lifecycle

  /** Connects; returns when the session is open. Throws the server's refusal, and `NotConnected` after the time. */
  async start(options: CallOptions = {}): Promise<void> {
    if (this.#running?.isOver === false) throw new SetupError("the agent is started already");
    const timeout = timeoutOf(options.timeout) ?? this.#settings.connectTimeout;
    const endpoint = endpointOf(this.#settings);
    const running = new Running(this.#settings, endpoint, this.events, this.#handlers);
    this.#running = running;
    try {
      await load(endpoint.credentials);
      await running.start(options.signal, timeout);
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /**
   * Takes no further messages, lets handlers finish, sends the last acknowledgements and closes the session. In a handler it
   * returns when that has begun, as it waits for the handler.
   */
  async stop(): Promise<void> {
    const running = this.#running;
    if (running === undefined) return;
    await running.stop();
    if (running.isOver && this.#running === running) this.#running = undefined;
  }

  /** Returns when the agent was stopped; throws the refusal that ended it. */
  async wait(): Promise<void> {
    await this.#running?.ended();
  }

  /** The body of a program: starts, handles messages until SIGTERM or SIGINT, and stops. A second one ends it at once. */
  async run(options: CallOptions = {}): Promise<void> {
    const signals = untilSignal();
    try {
      await Promise.race([signals.first, this.start(options).then(() => this.wait())]);
    } finally {
      await this.stop();
      signals.close();
    }
  }

  /** Stops, at the end of a block with `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** This process's instance. */
  get instanceId(): string {
    return this.#settings.instanceId;
  }

  /** The id in the certificate, while connected; else undefined. */
  get agentId(): string | undefined {
    return this.#running?.link.current?.agentId;
  }

  /** What the server offers beyond the base protocol, while connected. */
  get features(): ReadonlySet<string> {
    return this.#running?.link.current?.features ?? new Set();
  }

  /** Whether there is a session just now. */
  get isConnected(): boolean {
    return this.#running?.link.current !== undefined;
  }

  /** Calls that wait, for a session or because the server takes no more at a time. */
  get waiting(): number {
    return this.#running?.link.waiting ?? 0;
  }

  // Calls

  /** Sends a message: when this returns it is stored and on record. */
  async send(target: string, type: string, data?: object, options: SendOptions = {}): Promise<Sent> {
    return this.#started().send(target, type, data, options);
  }

  /** Sends a request and waits for its reply: `NoReply` after `timeout` (60 s), and at once where none will come. */
  async request(target: string, type: string, data?: object, options: SendOptions = {}): Promise<Message> {
    return this.#started().request(target, type, data, options);
  }

  /** Connected agents that this one may message and that offer any of these capabilities; none named: all. */
  async discover(capabilities: readonly string[] = [], options: CallOptions = {}): Promise<Peer[]> {
    const { agents } = await this.#started().calls.discover(capabilities, options);
    return agents.map(({ agentId, capabilities: offered, metadataJson, status }) => {
      const metadata = JSON.parse(metadataJson || "{}") as Record<string, unknown>;
      return { agentId, capabilities: offered, metadata, status };
    });
  }

  /** The agent's state, shared by its instances. */
  async getState(options: CallOptions = {}): Promise<State> {
    const { state, version } = await this.#started().calls.getState(options);
    return new State(state, version);
  }

  /** Sets fields: texts as they are, everything else as JSON. Returns the new version. */
  async updateState(updates: object, options: UpdateOptions = {}): Promise<number> {
    const { expectedVersion, ttl } = options;
    if (expectedVersion !== undefined) whole(expectedVersion, "expectedVersion");
    const request = { updates: toFields(updates), expectedVersion, ttlMs: ttlMs(ttl) };
    return (await this.#started().calls.updateState(request, options)).version;
  }

  /** Removes the state. */
  async resetState(options: CallOptions = {}): Promise<void> {
    await this.#started().calls.resetState(options);
  }

  /**
   * Changes the state depending on what it is: reads it, asks `change` for the fields to set, writes them if nobody else
   * has written, and does it again where somebody has. Returns what `change` returned. `change` may run more than once.
   */
  async changeState<S extends StandardSchema, T extends object>(
    schema: S,
    change: (state: OutputOf<S>) => T | Promise<T>,
    options?: CallOptions,
  ): Promise<T>;
  /** The same without a schema: `change` gets the fields as texts. */
  async changeState<T extends object>(change: (state: State) => T | Promise<T>, options?: CallOptions): Promise<T>;
  async changeState(
    first: StandardSchema | ((state: State) => object | Promise<object>),
    second?: ((state: unknown) => object | Promise<object>) | CallOptions,
    third?: CallOptions,
  ): Promise<object> {
    const schema = "~standard" in first ? first : undefined;
    const make = (schema === undefined ? first : second) as (state: unknown) => object | Promise<object>;
    const options = (schema === undefined ? (second as CallOptions | undefined) : third) ?? {};
    const access = { read: this.getState.bind(this), write: this.updateState.bind(this) };
    const limit = new Limit(this.#started().calls.timeOf(options), options.signal);
    try {
      return await this.#turns.take(limit, () =>
        change(access, async (state) => make(schema === undefined ? state : await state.parse(schema)), limit, options.signal),
      );
    } catch (error) {
      throw error instanceof Expired ? new NotConnected(`changeState: not done within ${limit.ms / 1000} s; nothing was written`) : error;
    } finally {
      limit.close();
    }
  }

  /** State and messages as one step, without a message that was handled: see `Message.commit`. */
  async commit(collect: (commit: Commit) => void | Promise<void>, options: CallOptions = {}): Promise<Committed> {
    return this.#started().commit(undefined, collect, options);
  }

  #started(): Running {
    if (this.#running === undefined) throw new NotConnected("the agent is not started");
    return this.#running;
  }
}
