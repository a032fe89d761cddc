// Calls of an agent: on the stream where the server offers it, unary otherwise; made again only where that cannot have a
// second effect.

import { randomBytes } from "node:crypto";
import type { ServiceError } from "@grpc/grpc-js";

import { METHODS, type Method } from "./connection.js";
import { describe, MasError, NotConnected, OutcomeUnknown, Refused, SetupError, Unsupported, type Called } from "./errors.js";
import { Lost, NOT_HELD, ofStatus, ofSubmission, Passing } from "./failures.js";
import type { Link } from "./link.js";
import type * as wire from "./proto/mas/runtime/v1/runtime.js";
import type { Session } from "./session.js";
import type { Settings } from "./settings.js";
import { Backoff, Expired, Limit, MAX_MS } from "./time.js";

/** Waits before a call is made again, in milliseconds: from the first, doubling to the last. */
const RETRY_FIRST_MS = 50;
const RETRY_LAST_MS = 2_000;
/** Tries of a commit whose delivery the session does not hold. Few: what the server is to deliver again may wait for a
 * place that this handler takes. */
const NOT_HELD_TRIES = 4;
/** How much longer than its call the server remembers a key of the library's, in milliseconds. */
const KEY_LONGER_MS = 60_000;

/** Features of servers; one that commits has keys, times and versions, too. */
const KEYS = ["idempotency", "commit"];
const TIMES = ["ttl", "commit"];
const VERSIONS = ["versions", "commit"];

/** What every call takes. Times are in milliseconds. */
export interface CallOptions {
  /** Bounds all of the call: waiting for a connection, all tries and, of a request, the reply. */
  readonly timeout?: number | undefined;
  /** Gives the call up. */
  readonly signal?: AbortSignal | undefined;
}

/** What a message may carry. */
export interface SendOptions extends CallOptions {
  /** The server takes a message with the same key once: 1 to 64 of A-Z a-z 0-9 _ -. Without one the library makes one. */
  readonly idempotencyKey?: string | undefined;
  /** Not delivered later than this many milliseconds after it was accepted. */
  readonly ttl?: number | undefined;
  /** Not delivered before this time. */
  readonly notBefore?: Date | undefined;
}

type Outcome = NonNullable<wire.SubmissionResult["outcome"]>;
type Case<K extends Outcome["$case"]> = Extract<Outcome, { $case: K }>["value"];

/** One try of a call. */
interface Try<R> {
  /** What the session must offer; throws `Unsupported`. */
  readonly require?: (session: Session) => void;
  readonly make: (session: Session, attempt: Attempt) => Promise<R>;
  /** Whether it may be made again when it may have happened. */
  readonly again: (session: Session) => boolean;
}

interface Attempt {
  readonly called: Called;
  readonly limit: Limit;
  /** Whether it may have happened when its time is over. */
  sent: boolean;
}

/** The calls of one agent. */
export class Calls {
  readonly instanceId: string;
  readonly #link: Link;
  readonly #timeout: number;
  readonly #repeatSends: boolean;
  /** Keys of this process: a random part, and a number. */
  readonly #keyPrefix = randomBytes(12).toString("hex");
  #keys = 0;

  constructor(link: Link, { instanceId, callTimeout, repeatSends }: Settings) {
    this.#link = link;
    this.instanceId = instanceId;
    this.#timeout = callTimeout;
    this.#repeatSends = repeatSends;
  }

  async send(request: wire.SendRequest, options: SendOptions): Promise<wire.SendResponse> {
    const called = { call: "send", target: request.targetId, messageType: request.messageType };
    const keyed = this.#keyed(request);
    return this.#call(called, options, {
      require: (session) => requireOptions(session, options),
      make: (session, attempt) => {
        const value = keyed(session, attempt.limit);
        return this.#message(session, attempt, "send", { $case: "send", value }, METHODS.send, value);
      },
      again: this.#repeats(request),
    });
  }

  async request(request: wire.RequestRequest, options: SendOptions): Promise<wire.RequestResponse> {
    const called = { call: "request", target: request.targetId, messageType: request.messageType };
    const keyed = this.#keyed(request);
    return this.#call(called, options, {
      require: (session) => requireOptions(session, options),
      make: (session, attempt) => {
        const value = keyed(session, attempt.limit);
        return this.#message(session, attempt, "request", { $case: "request", value }, METHODS.request, value);
      },
      again: this.#repeats(request),
    });
  }

  async reply(value: wire.ReplyRequest, target: string, options: CallOptions): Promise<wire.ReplyResponse> {
    const called = { call: "reply", target, messageType: value.messageType };
    return this.#call(called, options, {
      make: (session, attempt) =>
        this.#message(session, attempt, "reply", { $case: "reply", value }, METHODS.reply, value),
      again: never,
    });
  }

  async discover(capabilities: readonly string[], options: CallOptions): Promise<wire.DiscoverResponse> {
    const request = { capabilities: [...capabilities] };
    return this.#read({ call: "discover" }, METHODS.discover, request, options);
  }

  async getState(options: CallOptions): Promise<wire.GetStateResponse> {
    return this.#read({ call: "getState" }, METHODS.getState, {}, options);
  }

  async updateState(request: wire.UpdateStateRequest, options: CallOptions): Promise<wire.UpdateStateResponse> {
    return this.#call({ call: "updateState" }, options, {
      require: (session) => {
        if (request.expectedVersion !== undefined) requireVersions(session);
        if (request.ttlMs > 0) offered(session, TIMES, "times to live");
      },
      make: (session, attempt) => this.#unary(session, attempt, METHODS.updateState, request),
      again: never,
    });
  }

  async resetState(options: CallOptions): Promise<wire.ResetStateResponse> {
    return this.#call({ call: "resetState" }, options, {
      make: (session, attempt) => this.#unary(session, attempt, METHODS.resetState, {}),
      again: never,
    });
  }

  /** All of it or nothing. `commit` is asked before each try, as the delivery may have come anew. */
  async commit(commit: () => wire.Commit, needs: readonly SendOptions[], options: CallOptions): Promise<wire.CommitResponse> {
    let tries = 0;
    return this.#call({ call: "commit" }, options, {
      require: (session) => {
        if (!session.features.has("submit") || !session.features.has("commit")) {
          throw new Unsupported("this server has no commits");
        }
        for (const need of needs) requireOptions(session, need);
      },
      make: async (session, attempt) => {
        const value = commit();
        try {
          return expect(await this.#submit(session, attempt, { $case: "commit", value }, commitBytes(value)), "commit");
        } catch (error) {
          const unheld = error instanceof Refused && error.detail === NOT_HELD;
          if (unheld && (tries += 1) < NOT_HELD_TRIES) throw new Passing(error);
          throw error;
        }
      },
      again: never,
    });
  }

  /** The time of a call. */
  timeOf(options: CallOptions): number {
    return timeoutOf(options.timeout) ?? this.#timeout;
  }

  /** What is sent at each try: with a key of the library's own where nobody gave one and the server knows keys. */
  #keyed<Q extends wire.SendRequest>(request: Q): (session: Session, limit: Limit) => Q {
    let keyed: Q | undefined;
    return (session, limit) => {
      if (request.idempotencyKey !== "" || !this.#repeatSends || !session.offers(...KEYS)) return request;
      return (keyed ??= { ...request, idempotencyKey: this.#newKey(), idempotencyWindowMs: Math.ceil(limit.left) + KEY_LONGER_MS });
    };
  }

  /** Whether a message whose answer was lost is sent again. */
  #repeats({ idempotencyKey }: wire.SendRequest): (session: Session) => boolean {
    return idempotencyKey !== "" || this.#repeatSends ? knowsKeys : never;
  }

  #newKey(): string {
    this.#keys += 1;
    return `${this.#keyPrefix}-${this.#keys.toString(36)}`;
  }

  #read<Q, R>(called: Called, method: Method<Q, R>, request: Q, options: CallOptions): Promise<R> {
    return this.#call(called, options, {
      make: (session, attempt) => this.#unary(session, attempt, method, request),
      again: () => true,
    });
  }

  /** A message: on the stream where that takes it. */
  async #message<K extends "send" | "request" | "reply", Q extends Texts>(
    session: Session,
    attempt: Attempt,
    kind: K,
    call: NonNullable<wire.Submission["call"]>,
    method: Method<Q, Case<K>>,
    request: Q,
  ): Promise<Case<K>> {
    const bytes = textBytes(request);
    if (!session.takes(bytes)) return this.#unary(session, attempt, method, request);
    return expect(await this.#submit(session, attempt, call, bytes), kind);
  }

  async #submit(
    session: Session,
    attempt: Attempt,
    call: NonNullable<wire.Submission["call"]>,
    bytes: number,
  ): Promise<Outcome> {
    const { outcome } = await session.submit(call, bytes, attempt.limit, () => (attempt.sent = true));
    if (outcome === undefined) throw new Lost("an answer without an outcome");
    if (outcome.$case === "failure") throw ofSubmission(attempt.called, outcome.value);
    return outcome;
  }

  async #unary<Q, R>(session: Session, attempt: Attempt, method: Method<Q, R>, request: Q): Promise<R> {
    return session.unary(attempt.limit, async (connection) => {
      try {
        return await connection.unary(method, request, attempt.limit, () => (attempt.sent = true));
      } catch (error) {
        throw isStatus(error) ? ofStatus(attempt.called, error) : error;
      }
    });
  }

  async #call<R>(called: Called, options: CallOptions, { require, make, again }: Try<R>): Promise<R> {
    const limit = new Limit(this.timeOf(options), options.signal);
    /** Why an earlier try may have happened. */
    let lost: string | undefined;
    let backoff: Backoff | undefined;
    try {
      for (;;) {
        const attempt: Attempt = { called, limit, sent: false };
        let session: Session | undefined;
        try {
          session = this.#link.current ?? (await this.#link.session(limit));
          require?.(session);
          return await make(session, attempt);
        } catch (error) {
          let retryAfter = 0;
          let passing: MasError | undefined;
          if (error instanceof Passing) {
            retryAfter = error.retryAfter;
            passing = error.error;
          } else if (error instanceof Lost && session !== undefined && again(session)) {
            lost = error.message;
          } else {
            throw meaning(called, error, attempt, lost);
          }
          const wait = Math.max((backoff ??= new Backoff(RETRY_FIRST_MS, RETRY_LAST_MS)).next(), retryAfter);
          if (wait >= limit.left) throw unknown(called, lost) ?? passing;
          await limit.sleep(wait).catch((why: unknown) => {
            throw why instanceof Expired ? (unknown(called, lost) ?? passing) : why;
          });
        }
      }
    } finally {
      limit.close();
    }
  }
}

/** The error that the caller gets. */
function meaning(called: Called, error: unknown, attempt: Attempt, lost: string | undefined): unknown {
  if (error instanceof Expired) {
    if (attempt.sent) return unknown(called, "no answer in time");
    return unknown(called, lost) ?? new NotConnected(`${describe(called)}: not sent within ${attempt.limit.ms / 1000} s`);
  }
  if (error instanceof Lost) return unknown(called, error.message);
  if (error instanceof NotConnected) return unknown(called, lost) ?? error;
  return error;
}

function unknown(called: Called, why: string | undefined): OutcomeUnknown | undefined {
  return why === undefined ? undefined : new OutcomeUnknown(`${describe(called)}: outcome unknown: ${why}`);
}

/** A server that would ignore an option must not get it. */
function requireOptions(session: Session, { idempotencyKey, ttl, notBefore }: SendOptions): void {
  if (idempotencyKey !== undefined) offered(session, KEYS, "idempotency keys");
  if (ttl !== undefined || notBefore !== undefined) offered(session, TIMES, "times to live");
}

function requireVersions(session: Session): void {
  offered(session, VERSIONS, "versions of the state");
}

function offered(session: Session, anyOf: readonly string[], what: string): void {
  if (!session.offers(...anyOf)) throw new Unsupported(`this server has no ${what}`);
}

function knowsKeys(session: Session): boolean {
  return session.offers(...KEYS);
}

function never(): boolean {
  return false;
}

function expect<K extends Outcome["$case"]>(outcome: Outcome, kind: K): Case<K> {
  if (outcome.$case !== kind) throw new Lost(`an answer to ${outcome.$case} instead of ${kind}`);
  return outcome.value as Case<K>;
}

/** The texts of a message that its length depends on. */
type Texts = Pick<wire.ReplyRequest, "dataJson" | "messageType" | "traceparent" | "tracestate"> & { readonly targetId?: string };

/** Bytes of a message, rather too many: ids, keys and times are short. */
function textBytes({ dataJson, messageType, targetId = "", traceparent, tracestate }: Texts): number {
  const texts = Buffer.byteLength(dataJson) + Buffer.byteLength(messageType) + Buffer.byteLength(targetId);
  return texts + traceparent.length + tracestate.length + 256;
}

function commitBytes(commit: wire.Commit): number {
  let bytes = 0;
  for (const [name, value] of commit.updates) bytes += Buffer.byteLength(name) + Buffer.byteLength(value) + 16;
  for (const { call } of commit.messages) {
    if (call !== undefined && call.$case !== "commit") bytes += textBytes(call.value);
  }
  return bytes;
}

function isStatus(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}

/** A time that an option names, checked. */
export function timeoutOf(ms: number | undefined): number | undefined {
  if (ms !== undefined && !(ms > 0)) throw new SetupError(`timeout ${ms}: expected more than 0 milliseconds`);
  return ms === undefined ? undefined : Math.min(ms, MAX_MS);
}
