// A commit: acknowledgement, state and messages happen together or not at all.

import type { SendOptions } from "./calls.js";
import { SetupError } from "./errors.js";
import { replyTo, type Message } from "./message.js";
import { toFields } from "./payload.js";
import type * as wire from "./proto/mas/runtime/v1/runtime.js";
import type { Sent } from "./receipt.js";
import { replyRequest, requestRequest, sendRequest, whole } from "./requests.js";
import { REQUEST_TIMEOUT_MS } from "./settings.js";

/** What a message of a commit may carry. */
export type MessageOptions = Omit<SendOptions, "timeout" | "signal">;

/** What was committed. */
export interface Committed {
  /** The accepted messages in their order. A reply that nobody waits for any more is not among them. */
  readonly sent: readonly Sent[];
  /** The state's version; 0 where it was not touched. */
  readonly version: number;
}

/** The reply to a request of a commit. */
export interface PendingReply {
  /** The reply, after the commit; throws `NoReply` when none comes in time or none will come. */
  message(): Promise<Message>;
}

/** Waits for the reply to the request at this place. @internal */
export type Awaiting = (place: number, timeout: number, request: wire.RequestRequest) => PendingReply;

/** Collects what is to happen together. */
export class Commit {
  readonly #instanceId: string;
  readonly #message: Message | undefined;
  readonly #awaiting: Awaiting;
  readonly #updates = new Map<string, string>();
  #expectedVersion: number | undefined;
  readonly #messages: wire.Submission[] = [];
  readonly #needs: SendOptions[] = [];
  #answered = false;
  #closed = false;

  /** @internal */
  constructor(instanceId: string, message: Message | undefined, awaiting: Awaiting) {
    this.#instanceId = instanceId;
    this.#message = message;
    this.#awaiting = awaiting;
  }

  /** Sends a message. */
  send(target: string, type: string, data?: object, options: MessageOptions = {}): void {
    this.#needs.push(options);
    this.#add({ $case: "send", value: sendRequest(this.#instanceId, target, type, data, options) });
  }

  /** Sends a request, whose reply can be had after the commit. */
  request(
    target: string,
    type: string,
    data?: object,
    options: MessageOptions & { readonly timeout?: number | undefined } = {},
  ): PendingReply {
    const timeout = options.timeout ?? REQUEST_TIMEOUT_MS;
    const value = requestRequest(this.#instanceId, target, type, data, timeout, options);
    this.#needs.push(options);
    return this.#awaiting(this.#add({ $case: "request", value }), timeout, value);
  }

  /** Answers the message that is committed. */
  reply(type: string, data?: object): void {
    if (this.#message === undefined) throw new SetupError("a commit without a message has nothing to reply to");
    const value = replyRequest(this.#instanceId, replyTo(this.#message), type, data);
    if (this.#answered) throw new SetupError("this commit answers its message already");
    this.#add({ $case: "reply", value });
    this.#answered = true;
  }

  /** Sets fields of the agent's state, if it has the version that is expected. */
  updateState(updates: object, options: { readonly expectedVersion?: number | undefined } = {}): void {
    this.#open();
    const { expectedVersion } = options;
    if (expectedVersion !== undefined) this.#expectedVersion = whole(expectedVersion, "expectedVersion");
    for (const [name, value] of toFields(updates)) this.#updates.set(name, value);
  }

  /** Takes no more. @internal */
  close(): { readonly commit: Omit<wire.Commit, "deliveryId">; readonly needs: readonly SendOptions[] } {
    this.#closed = true;
    const commit = { updates: this.#updates, expectedVersion: this.#expectedVersion, messages: this.#messages };
    return { commit, needs: this.#needs };
  }

  #add(call: NonNullable<wire.Submission["call"]>): number {
    this.#open();
    this.#messages.push({ reference: this.#messages.length + 1, call });
    return this.#messages.length - 1;
  }

  #open(): void {
    if (this.#closed) throw new SetupError("the commit is over");
  }
}
