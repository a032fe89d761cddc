// What becomes of deliveries: find the handler, run it, acknowledge or refuse.

import { AsyncLocalStorage } from "node:async_hooks";

import { kindOf, NoReply, NotConnected, OutcomeUnknown, PayloadError, Refused, Reject, Retry, SetupError, VersionMismatch } from "./errors.js";
import { isLater } from "./failures.js";
import type { Handler, Handlers } from "./handlers.js";
import type { Logger } from "./log.js";
import { Message, readEnvelope, type Doings } from "./message.js";
import type * as wire from "./proto/mas/runtime/v1/runtime.js";
import type { Session } from "./session.js";
import { jittered } from "./time.js";
import type { Operation, Outcome } from "./tracing.js";

/** Messages whose end is remembered, so that a redelivery after a lost acknowledgement is not handled again; and messages
 * whose postponements are counted. */
const REMEMBERED = 4096;
/** Longest reason, in characters. */
const MAX_REASON = 200;
/** How long a message waits that could not be handled now, in milliseconds: from the first, doubling to the last. A refusal's
 * own retry time may be longer; the server bounds it. What is kept here is kept no longer than the last. */
const LATER_FIRST_MS = 250;
const LATER_LAST_MS = 60_000;
/** The same of what stopping leaves: another instance gets it at once. */
const LEFT_MS = 1;

/** Whose handler the running code is part of. */
const within = new AsyncLocalStorage<Intake>();

/** A message that was taken and is not settled yet. */
interface Taken {
  readonly message: Message;
  /** The newest delivery: what is said of an earlier one changes nothing. */
  deliveryId: string;
  state: "waiting" | "running" | "held" | "committed" | "given up";
  /** What is told of its handler. */
  operation?: Operation | undefined;
  /** Until a held one is given back. */
  timer?: NodeJS.Timeout;
}

/** What the intake needs of the agent. */
export interface Surroundings extends Doings {
  session(): Session | undefined;
  /** A reply has arrived. */
  replied(correlationId: string, reply: Message): void;
  /** A handler runs; undefined: nobody is told. */
  processing(message: Message): Operation | undefined;
}

/** Runs handlers, at most so many at a time. What waits is bounded by the server's credit for one session. */
export class Intake {
  readonly #handlers: Handlers;
  readonly #concurrency: number;
  readonly #around: Surroundings;
  readonly #log: Logger;
  readonly #taken = new Map<string, Taken>();
  readonly #done = new Set<string>();
  readonly #postponed = new Map<string, number>();
  #waiting: Taken[] = [];
  #running = 0;
  /** `draining`: nothing is begun any more; `over`: whatever there is goes back to the server. */
  #phase: "open" | "draining" | "over" = "open";
  #drained: (() => void) | undefined;

  constructor(handlers: Handlers, concurrency: number, around: Surroundings, log: Logger) {
    this.#handlers = handlers;
    this.#concurrency = concurrency;
    this.#around = around;
    this.#log = log;
  }

  /** A delivery has arrived. */
  take({ deliveryId, envelopeJson, attempt }: wire.Delivery): void {
    let message: Message;
    try {
      message = new Message(readEnvelope(envelopeJson), attempt, this.#around);
    } catch (error) {
      this.#log.error("an envelope that cannot be read; it becomes a dead letter", error);
      this.#nack(deliveryId, `invalid_envelope:${kindOf(error)}`, false);
      return;
    }
    const known = this.#taken.get(message.id);
    if (this.#done.has(message.id)) {
      // Only the acknowledgement was lost.
      this.#around.session()?.ack(deliveryId);
    } else if (message.isReply) {
      this.#reply(message, deliveryId);
    } else if (this.#phase === "over") {
      this.#leave(deliveryId);
    } else if (known !== undefined) {
      known.deliveryId = deliveryId;
    } else {
      const taken: Taken = { message, deliveryId, state: "waiting" };
      this.#taken.set(message.id, taken);
      this.#waiting.push(taken);
      this.#next();
    }
  }

  /** The session has ended: the server delivers again what no handler has begun. */
  lost(): void {
    this.#letGo((state) => state === "waiting" || state === "held");
  }

  /** The newest delivery of a message that a handler is at. */
  deliveryOf(message: Message): string {
    if (message.gaveUp !== undefined) throw message.gaveUp;
    const taken = this.#taken.get(message.id);
    if (taken?.message !== message || taken.state === "committed") {
      throw new SetupError(`the message ${message.title} is acknowledged already`);
    }
    return taken.deliveryId;
  }

  /** A commit has acknowledged the message. */
  committed(message: Message): void {
    const taken = this.#taken.get(message.id);
    if (taken?.message === message) taken.state = "committed";
    this.#finish(message.id);
  }

  /** Whether the caller is part of a handler of this intake. */
  get isWithin(): boolean {
    return within.getStore() === this;
  }

  /** Begins no further messages and lets handlers finish, so many milliseconds; then they are given up. Messages that are
   * not finished go back to the server. */
  async drain(timeout: number): Promise<void> {
    this.#phase = "draining";
    if (this.#running > 0) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
        timer = setTimeout(resolve, timeout);
      });
      clearTimeout(timer);
    }
    if (this.#running > 0) {
      this.#log.warn(`${this.#running} handlers did not finish within ${timeout / 1000} s; their messages stay with the server`);
    }
    this.#phase = "over";
    this.#waiting = [];
    const why = new NotConnected("the agent stops");
    for (const taken of this.#taken.values()) {
      const outcome = taken.state === "committed" ? "ack" : this.#leave(taken.deliveryId);
      if (taken.state === "waiting" || taken.state === "held") this.#drop(taken);
      else if (taken.state === "running") taken.state = "given up";
      taken.operation?.settled(outcome);
      taken.operation?.failed(why);
      taken.operation?.end();
      taken.message.giveUp(why);
    }
  }

  /** Gives a delivery back, which is nobody's failure. A server that does not know this keeps it until the session has ended. */
  #leave(deliveryId: string): Outcome {
    if (!this.#around.session()?.features.has("later")) return "lost";
    this.#nack(deliveryId, "later:agent_stopped", true, LEFT_MS);
    return "later";
  }

  #reply(message: Message, deliveryId: string): void {
    this.#around.replied(message.correlationId ?? "", message);
    this.#finish(message.id);
    this.#around.session()?.ack(deliveryId);
  }

  #next(): void {
    while (this.#running < this.#concurrency && this.#phase === "open") {
      const taken = this.#waiting.shift();
      if (taken === undefined) return;
      taken.state = "running";
      this.#running += 1;
      void this.#run(taken)
        .catch((error: unknown) => {
          this.#taken.delete(taken.message.id);
          this.#log.error(`${taken.message.title} could not be settled; it stays with the server`, error);
        })
        .then(() => {
          this.#running -= 1;
          if (this.#running === 0) this.#drained?.();
          this.#next();
        });
    }
  }

  /** Runs a handler and settles its message. */
  async #run(taken: Taken): Promise<void> {
    const { message } = taken;
    const handler = this.#handlers.find(message.type);
    if (handler === undefined) {
      this.#taken.delete(message.id);
      this.#log.warn(`no handler for ${message.title}; it becomes a dead letter`);
      this.#nack(taken.deliveryId, `no_handler:${message.type}`, false);
      return;
    }
    const operation = (taken.operation = this.#around.processing(message));
    const run = (): Promise<void> => within.run(this, () => handler.run(message));
    try {
      await (operation === undefined ? run() : operation.run(run));
    } catch (error) {
      const outcome = this.#failed(taken, handler, error);
      operation?.settled(outcome, { error });
      operation?.end();
      return;
    }
    operation?.settled("ack");
    operation?.end();
    this.#taken.delete(message.id);
    if (taken.state === "running") {
      this.#finish(message.id);
      this.#around.session()?.ack(taken.deliveryId);
    }
  }

  /** Settles a message whose handler has failed; returns how. */
  #failed(taken: Taken, handler: Handler, error: unknown): Outcome {
    const { message, deliveryId } = taken;
    const title = message.title;
    if (taken.state === "given up") {
      this.#taken.delete(message.id);
      return "lost";
    }
    if (taken.state === "committed") {
      this.#taken.delete(message.id);
      this.#log.error(`the handler of ${title} failed after its commit; the message is handled`, error);
      return "ack";
    }
    const asked = !(error instanceof Reject) && (error instanceof Retry || handler.retries(error));
    if (!asked && isPostponed(error)) {
      this.#postpone(taken, error);
      return "later";
    }
    this.#taken.delete(message.id);
    if (error instanceof Retry || error instanceof Reject) {
      const next = asked ? "it comes again" : "it becomes a dead letter";
      this.#log.info(`the handler of ${title} says: ${error.message}; ${next}`);
      this.#nack(deliveryId, error.message || error.name, asked);
    } else if (asked || isUncertain(error)) {
      this.#log.warn(`the handler of ${title} failed; it comes again`, error);
      this.#nack(deliveryId, `handler_error:${kindOf(error)}`, true);
    } else {
      this.#log.error(`the handler of ${title} failed; it becomes a dead letter`, error);
      const unfit = error instanceof PayloadError && error.messageId === message.id;
      this.#nack(deliveryId, unfit ? `invalid_payload:${error.fields.join(",")}` : `handler_error:${kindOf(error)}`, false);
    }
    return asked || isUncertain(error) ? "nack" : "dead";
  }

  /** Nobody's failure: the message comes again after a while. */
  #postpone(taken: Taken, error: Postponing): void {
    const { message, deliveryId } = taken;
    const before = this.#postponed.get(message.id) ?? 0;
    this.#postponed.delete(message.id);
    this.#postponed.set(message.id, before + 1);
    forgetOldest(this.#postponed);
    const asked = error instanceof Refused ? (error.retryAfter ?? 0) : 0;
    const grown = jittered(Math.min(LATER_FIRST_MS * 2 ** before, LATER_LAST_MS));
    const word = laterWord(error);
    const session = this.#around.session();
    const knowsLater = session?.features.has("later") ?? false;
    const wait = Math.ceil(Math.min(Math.max(asked, grown), knowsLater ? Infinity : LATER_LAST_MS));
    this.#log.warn(`the handler of ${message.title} could not go on (${word}); it comes again in ${wait / 1000} s`);
    if (session === undefined || knowsLater || this.#phase !== "open") {
      this.#taken.delete(message.id);
      // Where this says nothing the server delivers it to the next session.
      if (knowsLater) this.#nack(deliveryId, `later:${word}`, true, wait);
      return;
    }
    // This server would count it at once: kept here for the time, beside the handlers that go on.
    taken.state = "held";
    taken.timer = setTimeout(() => {
      this.#taken.delete(message.id);
      this.#nack(taken.deliveryId, `later:${word}`, true);
    }, wait);
  }

  #letGo(which: (state: Taken["state"]) => boolean): void {
    this.#waiting = [];
    for (const taken of this.#taken.values()) {
      if (which(taken.state)) this.#drop(taken);
    }
  }

  #drop(taken: Taken): void {
    clearTimeout(taken.timer);
    this.#taken.delete(taken.message.id);
  }

  #finish(messageId: string): void {
    this.#postponed.delete(messageId);
    this.#done.add(messageId);
    forgetOldest(this.#done);
  }

  /** Without a session it is lost, and the delivery comes again. */
  #nack(deliveryId: string, reason: string, retryable: boolean, retryAfterMs = 0): void {
    this.#around.session()?.nack({ deliveryId, reason: reason.slice(0, MAX_REASON), retryable, retryAfterMs });
  }
}

/** What a handler may fail with that is nobody's failure. */
type Postponing = Refused | NotConnected | OutcomeUnknown;

function isPostponed(error: unknown): error is Postponing {
  if (error instanceof Refused) return isLater(error);
  return error instanceof NotConnected || error instanceof OutcomeUnknown;
}

function laterWord(error: Postponing): string {
  if (error instanceof Refused) return error.detail;
  return error instanceof NotConnected ? "not_connected" : "outcome_unknown";
}

function isUncertain(error: unknown): boolean {
  return error instanceof NoReply || error instanceof VersionMismatch;
}

function forgetOldest(kept: { readonly size: number; keys(): IterableIterator<string>; delete(key: string): boolean }): void {
  for (const oldest of kept.keys()) {
    if (kept.size <= REMEMBERED) return;
    kept.delete(oldest);
  }
}
