// A message that arrived.

import type { CallOptions } from "./calls.js";
import type { Commit, Committed } from "./commit.js";
import { describe, SetupError, type NotConnected } from "./errors.js";
import type { Sent } from "./receipt.js";
import { validate, type OutputOf, type StandardSchema } from "./schema.js";

/** What the protocol says of a message beside its payload. */
export interface Meta {
  readonly correlation_id?: string | null;
  readonly expects_reply?: boolean;
  readonly is_reply?: boolean;
  readonly sender_instance_id?: string | null;
  readonly traceparent?: string | null;
  readonly tracestate?: string | null;
}

/** The envelope of the protocol. */
export interface Envelope {
  readonly message_id: string;
  readonly sender_id: string;
  readonly target_id: string;
  readonly message_type: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly timestamp: number;
  readonly meta: Meta;
}

/** What a message does through its agent. */
export interface Doings {
  /** Answers it; undefined: nobody waits for the answer any more. */
  reply(to: Message, correlationId: string, type: string, data: object | undefined, options: CallOptions): Promise<Sent | undefined>;
  commit(of: Message, collect: (commit: Commit) => void | Promise<void>, options: CallOptions): Promise<Committed>;
}

/** One message from another agent. */
export class Message {
  readonly id: string;
  /** Who sent it, from the sender's certificate. */
  readonly sender: string;
  readonly target: string;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** When the server accepted it. */
  readonly timestamp: Date;
  readonly correlationId: string | undefined;
  readonly expectsReply: boolean;
  readonly isReply: boolean;
  /** Which delivery of this message it is, from 1; 0 where the server does not count. */
  readonly attempt: number;
  readonly meta: Meta;
  readonly #doings: Doings;
  #cancel: AbortController | undefined;
  #gaveUp: NotConnected | undefined;

  /** @internal */
  constructor(envelope: Envelope, attempt: number, doings: Doings) {
    const { meta } = envelope;
    this.id = envelope.message_id;
    this.sender = envelope.sender_id;
    this.target = envelope.target_id;
    this.type = envelope.message_type;
    this.data = envelope.data;
    this.timestamp = new Date(envelope.timestamp * 1000);
    this.correlationId = meta.correlation_id ?? undefined;
    this.expectsReply = meta.expects_reply ?? false;
    this.isReply = meta.is_reply ?? false;
    this.attempt = attempt;
    this.meta = meta;
    this.#doings = doings;
  }

  /** Aborted when the agent stops and this handler did not finish in time: the message stays with the server. */
  get signal(): AbortSignal {
    this.#cancel ??= new AbortController();
    if (this.#gaveUp !== undefined) this.#cancel.abort(this.#gaveUp);
    return this.#cancel.signal;
  }

  /** As logs name it. @internal */
  get title(): string {
    return `${JSON.stringify(this.type)} ${this.id} from ${this.sender}`;
  }

  /** Why its handler is to end: nothing may be done about the message any more. @internal */
  get gaveUp(): NotConnected | undefined {
    return this.#gaveUp;
  }

  /** @internal */
  giveUp(why: NotConnected): void {
    this.#gaveUp = why;
    this.#cancel?.abort(why);
  }

  /** The payload as the schema makes it; throws `PayloadError`. */
  parse<S extends StandardSchema>(schema: S): Promise<OutputOf<S>> {
    return validate(schema, this.data, `the payload of ${JSON.stringify(this.type)}`, this.id);
  }

  /** Answers a request. Undefined where nobody waits for the answer any more, which is logged. */
  async reply(type: string, data?: object, options: CallOptions = {}): Promise<Sent | undefined> {
    return this.#doings.reply(this, replyTo(this), type, data, options);
  }

  /**
   * Acknowledges this message, changes the state and sends what `collect` says, or nothing of it. A message that was
   * committed is handled, and its handler may go on.
   */
  async commit(collect: (commit: Commit) => void | Promise<void>, options: CallOptions = {}): Promise<Committed> {
    return this.#doings.commit(this, collect, options);
  }
}

/** The correlation id of a request; throws where the message asked for no reply. */
export function replyTo(message: Message): string {
  if (!message.expectsReply || message.isReply || message.correlationId === undefined) {
    const what = describe({ call: "reply", target: message.sender, messageType: message.type });
    throw new SetupError(`${what}: the message ${message.id} asked for no reply`);
  }
  return message.correlationId;
}

/** The envelope in a delivery; throws where it is none, which is a fault of the server's. */
export function readEnvelope(json: string): Envelope {
  const envelope = JSON.parse(json) as Partial<Envelope> | null;
  const texts = [envelope?.message_id, envelope?.sender_id, envelope?.target_id, envelope?.message_type];
  const objects: unknown[] = [envelope?.data, envelope?.meta];
  if (
    !texts.every((text) => typeof text === "string") ||
    !objects.every((value) => typeof value === "object" && value !== null) ||
    typeof envelope?.timestamp !== "number"
  ) {
    throw new TypeError("an envelope has ids, a type, a payload, a time and meta");
  }
  return envelope as Envelope;
}
