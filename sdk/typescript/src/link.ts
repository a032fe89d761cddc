// Keeps a session open: connects, and connects again with growing waits, for as long as the agent runs.

import { Connection } from "./connection.js";
import { load } from "./credentials.js";
import { NotConnected, refusal, type Refused } from "./errors.js";
import type { Events } from "./events.js";
import { factsOf } from "./failures.js";
import { open, type Arrivals, type Ended, type Session } from "./session.js";
import type { Endpoint, Settings } from "./settings.js";
import { Backoff, Expired, Limit } from "./time.js";

/** Waits before connecting again, in milliseconds: from the first, doubling to the last; anew after a session. */
const RECONNECT_FIRST_MS = 50;
const RECONNECT_LAST_MS = 2_000;
/** How long a new stream may take until the server welcomes it, and the least of it where several addresses share it. */
const WELCOME_TIMEOUT_MS = 10_000;
const WELCOME_LEAST_MS = 2_000;
/** How long the server may take to end a stream that was half-closed. */
const CLOSE_TIMEOUT_MS = 2_000;
/** Statuses that say something of the agent itself, which stays so until somebody does something. */
const OF_THE_AGENT: ReadonlySet<string> = new Set([
  "UNAUTHENTICATED",
  "INVALID_ARGUMENT",
  "UNIMPLEMENTED",
  "FAILED_PRECONDITION",
  "PERMISSION_DENIED",
]);
/** Reasons that are logged of one time without a session. */
const MAX_SAID = 16;
/** Times within a reason, which differ each time. */
const TIMES = /\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)?/g;
/** This process's own lost session: the server will notice. */
const STILL_CONNECTED = "instance_already_connected";

interface Waiter {
  readonly resolve: (session: Session) => void;
  readonly reject: (why: unknown) => void;
}

/** The agent's connection. */
export class Link {
  readonly #settings: Settings;
  readonly #endpoint: Endpoint;
  readonly #events: Events;
  readonly #arrivals: Arrivals;
  readonly #lost: () => void;
  readonly #waiters = new Set<Waiter>();
  readonly #stop = new AbortController();
  #current: Session | undefined;
  #address = 0;
  #why = "not connected yet";
  /** The reasons that were logged since there was a session. */
  readonly #said = new Set<string>();
  #refused: Refused | undefined;
  #final: Refused | undefined;
  #hadSession = false;
  #running: Promise<void> | undefined;

  /** `arrivals` takes what arrives; `lost` hears that a session has ended. */
  constructor(
    settings: Settings,
    endpoint: Endpoint,
    events: Events,
    arrivals: Arrivals,
    lost: () => void,
  ) {
    this.#settings = settings;
    this.#endpoint = endpoint;
    this.#events = events;
    this.#arrivals = arrivals;
    this.#lost = lost;
  }

  /** The session, while there is one. */
  get current(): Session | undefined {
    return this.#current;
  }

  /** Of the session, or of the next try. */
  get address(): string {
    return this.#endpoint.addresses[this.#address] ?? "";
  }

  /** Connects; throws the refusal, and `NotConnected` after the time. */
  async start(signal: AbortSignal | undefined, timeout: number): Promise<void> {
    const limit = new Limit(timeout, signal);
    let refused: ((event: { readonly refusal: Refused }) => void) | undefined;
    try {
      await this.#untilOpen(limit, (waiter) => {
        refused = (event) => {
          this.#waiters.delete(waiter);
          waiter.reject(event.refusal);
        };
        this.#events.on("refused", refused);
        this.#running = this.#run();
      });
    } finally {
      if (refused !== undefined) this.#events.off("refused", refused);
      limit.close();
    }
  }

  /** The session, waited for within the limit. */
  session(limit: Limit): Promise<Session> {
    if (this.#current !== undefined) return Promise.resolve(this.#current);
    const over = this.#overWhy();
    if (over !== undefined) return Promise.reject(over);
    return this.#untilOpen(limit);
  }

  /** Settles when no further connection will be made; throws the refusal that ended it. */
  async ended(): Promise<void> {
    await this.#running;
    if (this.#final !== undefined) throw this.#final;
  }

  /** Calls that wait for a session or for a place on it. */
  get waiting(): number {
    return this.#waiters.size + (this.#current?.waiting ?? 0);
  }

  /** Sends what waits, half-closes the stream and waits for the server to end it. */
  async close(): Promise<void> {
    const session = this.#current;
    if (session !== undefined) {
      const limit = new Limit(CLOSE_TIMEOUT_MS);
      try {
        this.#stop.abort();
        await session.finish(limit);
        await limit.wait<void>((resolve) => {
          void session.ended.then(() => resolve());
          return () => undefined;
        });
      } catch (error) {
        if (!(error instanceof Expired)) throw error;
        this.#settings.log.warn(`the server did not end the stream within ${CLOSE_TIMEOUT_MS / 1000} s`);
        session.cancel();
      } finally {
        limit.close();
      }
    }
    this.#stop.abort();
    await this.#running;
  }

  async #untilOpen(limit: Limit, begin?: (waiter: Waiter) => void): Promise<Session> {
    try {
      return await limit.wait<Session>((resolve, reject) => {
        const waiter = { resolve, reject };
        this.#waiters.add(waiter);
        begin?.(waiter);
        return () => this.#waiters.delete(waiter);
      });
    } catch (error) {
      throw error instanceof Expired ? this.#noSession(limit.ms) : error;
    }
  }

  async #run(): Promise<void> {
    const backoff = new Backoff(RECONNECT_FIRST_MS, RECONNECT_LAST_MS);
    let lostAt = performance.now();
    while (!this.#isStopping) {
      const tried = await this.#attempt(this.address, lostAt);
      if (tried.opened) {
        backoff.reset();
        lostAt = performance.now();
      } else {
        this.#address = (this.#address + 1) % this.#endpoint.addresses.length;
      }
      if (this.#isStopping) break;
      let pause = Math.max(backoff.next(), tried.retryAfter);
      this.#refused = tried.refused;
      if (tried.refused !== undefined) {
        this.#settings.log.error(`the server refuses this agent: ${tried.why}`);
        if (this.#settings.refusedIsFinal) this.#final = tried.refused;
        this.#events.emit("refused", { refusal: tried.refused });
        if (this.#final !== undefined) break;
        pause = this.#settings.refusedRetry;
      }
      await this.#pause(pause);
    }
    this.#stop.abort();
    const over = this.#overWhy();
    for (const waiter of this.#waiters) waiter.reject(over);
    this.#waiters.clear();
  }

  /** One connection, from its beginning to its end. */
  async #attempt(address: string, lostAt: number): Promise<Attempt> {
    const share = this.#settings.connectTimeout / this.#endpoint.addresses.length;
    const limit = new Limit(Math.min(WELCOME_TIMEOUT_MS, Math.max(WELCOME_LEAST_MS, share)), this.#stop.signal);
    let connection: Connection | undefined;
    try {
      const files = await load(this.#endpoint.credentials);
      if (this.#isStopping) throw new NotConnected("the agent is stopped");
      connection = new Connection(address, files, this.#settings.proxy);
      const { instanceId, log } = this.#settings;
      const session = await open(connection, instanceId, limit, this.#arrivals, log);
      if ("connection" in session) {
        limit.close();
        if (this.#isStopping) session.cancel();
        else this.#opened(session, address, lostAt);
        const ended = await session.ended;
        this.#current = undefined;
        this.#lost();
        return this.#over(ended, address, true);
      }
      return this.#over(session.ended, address, false);
    } catch (error) {
      // A file that is half written, or no welcome in time.
      const why = error instanceof Expired ? `no welcome from ${address} within ${limit.ms} ms` : error instanceof Error ? error.message : String(error);
      this.#say(why, false);
      return { opened: false, why, refused: undefined, retryAfter: 0 };
    } finally {
      limit.close();
      connection?.close();
      // It would keep the process until its own time is over.
      if (this.#isStopping) connection?.giveUp();
    }
  }

  #opened(session: Session, address: string, lostAt: number): void {
    const { log, instanceId } = this.#settings;
    this.#current = session;
    this.#refused = undefined;
    const text = `connected as ${session.agentId}/${instanceId} to ${address}`;
    if (this.#hadSession) log.warn(`${text} again after ${((performance.now() - lostAt) / 1000).toFixed(1)} s`);
    else log.info(text);
    this.#hadSession = true;
    this.#why = "";
    this.#said.clear();
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const waiter of waiters) waiter.resolve(session);
    this.#events.emit("connected", { agentId: session.agentId, instanceId, address });
  }

  #over(ended: Ended, address: string, opened: boolean): Attempt {
    if (ended === undefined) {
      const why = "the server ended the stream";
      this.#say(why, opened);
      return { opened, why, refused: undefined, retryAfter: 0 };
    }
    const facts = factsOf(ended);
    const why = `${facts.detail} (${facts.code})`;
    this.#say(why, opened);
    const ofTheAgent = OF_THE_AGENT.has(facts.code) && facts.detail !== STILL_CONNECTED;
    const refused = ofTheAgent ? refusal({ call: "connect", target: address }, facts) : undefined;
    return { opened, why, refused, retryAfter: facts.retryAfter ?? 0 };
  }

  /** Tells why there is no session; each reason once. */
  #say(why: string, opened: boolean): void {
    if (this.#isStopping) return;
    const reason = why.replace(TIMES, "");
    if (opened || (!this.#said.has(reason) && this.#said.size < MAX_SAID)) {
      this.#said.add(reason);
      this.#settings.log.warn(`${opened ? "the connection is lost" : "not connected"}: ${why}`);
    }
    this.#why = why;
    if (opened) this.#events.emit("lost", { reason: why });
  }

  async #pause(ms: number): Promise<void> {
    const limit = new Limit(ms, this.#stop.signal);
    try {
      await limit.sleep(ms);
    } catch {
      // The time is over, or the agent stops; the loop looks.
    } finally {
      limit.close();
    }
  }

  get #isStopping(): boolean {
    return this.#stop.signal.aborted;
  }

  #overWhy(): Error | undefined {
    if (this.#final !== undefined) return this.#final;
    return this.#isStopping ? new NotConnected("the agent is stopped") : undefined;
  }

  #noSession(ms: number): NotConnected {
    const refused = this.#refused === undefined ? "" : "the server refuses this agent: ";
    const options = this.#refused === undefined ? {} : { cause: this.#refused };
    return new NotConnected(`no session within ${ms / 1000} s: ${refused}${this.#why}`, options);
  }
}

interface Attempt {
  /** Whether a session was open. */
  readonly opened: boolean;
  readonly why: string;
  readonly refused: Refused | undefined;
  readonly retryAfter: number;
}
