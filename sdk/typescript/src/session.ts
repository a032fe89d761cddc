// One Transport stream: events go out in batches, submissions get their results.

import { Metadata, status, type StatusObject } from "@grpc/grpc-js";

import type { Connection, Stream } from "./connection.js";
import { NotConnected, SetupError } from "./errors.js";
import { Lost, Passing } from "./failures.js";
import type { Logger } from "./log.js";
import * as wire from "./proto/mas/runtime/v1/runtime.js";
import { Slots } from "./slots.js";
import type { Limit } from "./time.js";

/** Submissions without an answer, whatever more the server allows. */
const MAX_SUBMISSIONS = 256;
/** Unary calls under way; the server takes 100 calls on a connection, one of which is the stream. */
const MAX_UNARY = 64;
/** Calls that wait in this agent for one of these places; one more fails at once. */
const MAX_WAITING = 100_000;
/** Submissions or acknowledgements in one event. */
const MAX_BATCH = 64;
/** Bytes of submissions in one event. An event that is longer than the server takes ends the stream; what it takes is
 * configured there, and more than this in any case. What is longer goes the unary way. */
const MAX_BATCH_BYTES = 64 * 1024;
/** What a submission takes beside its texts, at most. */
const OVERHEAD_BYTES = 64;
/** Longest event of a server that does not say. */
const MAX_EVENT_BYTES = 1024 * 1024;

/** What this library understands beyond the base protocol. */
const HELLO_FEATURES = ["submit", "deliveries", "request_failed"];

/** Who takes what the server sends without being asked. */
export interface Arrivals {
  delivery(delivery: wire.Delivery): void;
  /** No reply will come to a request of this instance. */
  requestFailed(failed: wire.RequestFailed): void;
}

/** A call on the stream. */
type Call = NonNullable<wire.Submission["call"]>;

interface Entry {
  readonly reference: number;
  readonly call: Call;
  readonly bytes: number;
  readonly limit: Limit;
  state: "queued" | "sent" | "given up";
  readonly resolve: (result: wire.SubmissionResult) => void;
  readonly reject: (why: unknown) => void;
}

/** How a stream ended. */
export type Ended = StatusObject | undefined;

/** Opens a stream: its session, or how it ended instead. `limit` bounds that. */
export async function open(
  connection: Connection,
  instanceId: string,
  limit: Limit,
  arrivals: Arrivals,
  log: Logger,
): Promise<Session | { readonly ended: Ended }> {
  const stream = connection.transport();
  // "status" says more; this one would end the program if nobody heard it.
  stream.on("error", () => undefined);
  const opened = limit.wait<Session | { readonly ended: Ended }>((resolve) => {
    stream.once("data", (event: wire.ServerEvent) => {
      // Welcome is the first event of a stream that the server takes.
      if (event.event?.$case === "welcome") {
        resolve(new Session(connection, stream, event.event.value, arrivals, log));
      } else {
        stream.cancel();
        const details = "the server's first word was no Welcome";
        resolve({ ended: { code: status.INTERNAL, details, metadata: new Metadata() } });
      }
    });
    stream.once("status", (ended: StatusObject) => resolve({ ended }));
    return () => stream.cancel();
  });
  if (limit.isOver) stream.cancel();
  else stream.write({ event: { $case: "hello", value: { instanceId, features: HELLO_FEATURES } } });
  return opened;
}

/** A stream from its Welcome to its end. */
export class Session {
  readonly connection: Connection;
  readonly agentId: string;
  /** What the server offers beyond the base protocol. */
  readonly features: ReadonlySet<string>;
  /** Settles with how the stream ended. */
  readonly ended: Promise<Ended>;

  readonly #stream: Stream;
  readonly #arrivals: Arrivals;
  readonly #log: Logger;
  readonly #maxEventBytes: number;
  readonly #slots: Slots;
  readonly #unary = new Slots(MAX_UNARY);
  readonly #results = new Map<number, Entry>();
  readonly #acks: string[] = [];
  readonly #nacks: wire.Nack[] = [];
  #queue: Entry[] = [];
  #reference = 0;
  /** Whether a look at what is to be sent is due. */
  #due = false;
  /** Whether the stream has asked to wait. */
  #full = false;
  #isEnded = false;
  #flushed: (() => void) | undefined;

  constructor(
    connection: Connection,
    stream: Stream,
    welcome: wire.Welcome,
    arrivals: Arrivals,
    log: Logger,
  ) {
    this.connection = connection;
    this.agentId = welcome.agentId;
    this.features = new Set(welcome.features);
    this.#stream = stream;
    this.#arrivals = arrivals;
    this.#log = log;
    this.#maxEventBytes = welcome.maxEventBytes || MAX_EVENT_BYTES;
    this.#slots = new Slots(Math.min(welcome.maxSubmissions || MAX_SUBMISSIONS, MAX_SUBMISSIONS));
    stream.on("data", (event: wire.ServerEvent) => this.#event(event));
    stream.on("drain", () => {
      this.#full = false;
      this.#flush();
    });
    this.ended = new Promise((resolve) => {
      stream.once("status", (ended: StatusObject) => {
        this.#end();
        resolve(ended.code === status.OK ? undefined : ended);
      });
    });
  }

  /** Calls that wait for a place. */
  get waiting(): number {
    return this.#slots.waiting + this.#unary.waiting;
  }

  /** Whether the server lists one of these. */
  offers(...anyOf: readonly string[]): boolean {
    return anyOf.some((feature) => this.features.has(feature));
  }

  /** Whether a call with so many bytes of text can be made on the stream. */
  takes(bytes: number): boolean {
    return bytes + OVERHEAD_BYTES <= MAX_BATCH_BYTES && this.features.has("submit");
  }

  ack(deliveryId: string): void {
    this.#acks.push(deliveryId);
    this.#wake();
  }

  nack(nack: wire.Nack): void {
    this.#nacks.push(nack);
    this.#wake();
  }

  /** Makes a call on the stream, of at most so many bytes beside `OVERHEAD_BYTES`; `sent` hears when it may have happened. */
  async submit(call: Call, bytes: number, limit: Limit, sent: () => void): Promise<wire.SubmissionResult> {
    const place = this.#place(this.#slots, limit);
    if (place !== undefined) await place;
    if (this.#isEnded) throw sessionOver();
    const reference = (this.#reference += 1);
    const tooLong = this.#tooLong({ reference, call }, bytes);
    // Nothing is begun then: the wait only throws.
    if (limit.isOver || tooLong !== undefined) this.#slots.give();
    if (tooLong !== undefined) throw tooLong;
    return limit.wait<wire.SubmissionResult>((resolve, reject) => {
      const entry: Entry = { reference, call, bytes: bytes + OVERHEAD_BYTES, limit, state: "queued", resolve, reject };
      this.#queue.push(entry);
      this.#wake();
      return () => {
        if (entry.state === "queued") {
          this.#queue.splice(this.#queue.indexOf(entry), 1);
          this.#slots.give();
        } else {
          // The server counts it until it has answered.
          sent();
          entry.state = "given up";
        }
      };
    });
  }

  /** Makes a unary call, when there is a place. */
  async unary<R>(limit: Limit, call: (connection: Connection) => Promise<R>): Promise<R> {
    const place = this.#place(this.#unary, limit);
    if (place !== undefined) await place;
    try {
      return await call(this.connection);
    } finally {
      this.#unary.give();
    }
  }

  /** Hands everything to the stream and half-closes it. */
  async finish(limit: Limit): Promise<void> {
    if (!this.#isEmpty() && !this.#isEnded) {
      await limit.wait<void>((resolve) => {
        this.#flushed = resolve;
        this.#wake();
        return () => (this.#flushed = undefined);
      });
    }
    if (!this.#isEnded) this.#stream.end();
  }

  /** Ends the stream without a word. */
  cancel(): void {
    if (!this.#isEnded) this.#stream.cancel();
  }

  #place(slots: Slots, limit: Limit): Promise<void> | undefined {
    if (slots.waiting >= MAX_WAITING) throw new NotConnected(`${MAX_WAITING} calls wait already`);
    return slots.take(limit);
  }

  #event({ event }: wire.ServerEvent): void {
    switch (event?.$case) {
      case "delivery":
        this.#arrivals.delivery(event.value);
        break;
      case "deliveries":
        for (const delivery of event.value.deliveries) this.#arrivals.delivery(delivery);
        break;
      case "requestFailed":
        this.#arrivals.requestFailed(event.value);
        break;
      case "results":
        for (const result of event.value.results) this.#answered(result);
        break;
      case "error":
        this.#log.warn(`the server says: ${event.value.code} ${event.value.message}`);
        break;
      default:
      // A second Welcome, or an event of a later protocol.
    }
  }

  #answered(result: wire.SubmissionResult): void {
    const entry = this.#results.get(result.reference);
    if (entry === undefined) return;
    this.#results.delete(result.reference);
    this.#slots.give();
    if (entry.state === "sent") entry.resolve(result);
  }

  /** What is added until the running callbacks are through goes out together. */
  #wake(): void {
    if (this.#due || this.#full || this.#isEnded) return;
    this.#due = true;
    process.nextTick(() => {
      this.#due = false;
      this.#flush();
    });
  }

  #flush(): void {
    while (!this.#full && !this.#isEnded) {
      const event = this.#next();
      if (event === undefined) {
        this.#flushed?.();
        this.#flushed = undefined;
        return;
      }
      this.#full = !this.#stream.write({ event });
    }
  }

  #isEmpty(): boolean {
    return this.#acks.length === 0 && this.#nacks.length === 0 && this.#queue.length === 0;
  }

  #next(): wire.ClientEvent["event"] {
    const nack = this.#nacks.shift();
    if (nack !== undefined) return { $case: "nack", value: nack };
    if (this.#acks.length > 0) {
      if (this.features.has("acks")) {
        return { $case: "acks", value: { deliveryIds: this.#acks.splice(0, MAX_BATCH) } };
      }
      return { $case: "ack", value: { deliveryId: this.#acks.shift() ?? "" } };
    }
    // Whose time is over is not sent: its call takes it off the queue.
    for (const { limit } of [...this.#queue]) limit.look();
    if (this.#queue.length > 0) return { $case: "submit", value: { submissions: this.#nextSubmissions() } };
    return undefined;
  }

  /** An event that is longer than the server takes would end the stream. Measured only where it may be. */
  #tooLong(submission: wire.Submission, bytes: number): SetupError | undefined {
    if (bytes + OVERHEAD_BYTES <= this.#maxEventBytes) return undefined;
    const event: wire.ClientEvent = { event: { $case: "submit", value: { submissions: [submission] } } };
    const length = wire.ClientEvent.encode(event).finish().length;
    if (length <= this.#maxEventBytes) return undefined;
    const what = submission.call?.$case ?? "call";
    return new SetupError(`a ${what} of ${length} bytes: this server takes at most ${this.#maxEventBytes}`);
  }

  #nextSubmissions(): wire.Submission[] {
    let count = 0;
    let room = Math.min(MAX_BATCH_BYTES, this.#maxEventBytes);
    for (const { bytes } of this.#queue) {
      room -= bytes;
      if (count === MAX_BATCH || (room < 0 && count > 0)) break;
      count += 1;
    }
    return this.#queue.splice(0, count).map((entry) => {
      entry.state = "sent";
      this.#results.set(entry.reference, entry);
      return { reference: entry.reference, call: entry.call };
    });
  }

  #end(): void {
    this.#isEnded = true;
    const [queued, sent] = [this.#queue, [...this.#results.values()]];
    this.#queue = [];
    this.#results.clear();
    this.#slots.end(sessionOver());
    this.#unary.end(sessionOver());
    for (const entry of queued) entry.reject(sessionOver());
    for (const entry of sent) {
      if (entry.state === "sent") entry.reject(new Lost("the session ended before the answer"));
    }
    this.#flushed?.();
  }
}

function sessionOver(): Passing {
  return new Passing(new NotConnected("the session has ended"));
}
