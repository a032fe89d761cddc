// Which handler takes which type of message.

import { SetupError } from "./errors.js";
import type { Message } from "./message.js";
import type { OutputOf, StandardSchema } from "./schema.js";

/** Handles a message. */
export type PlainHandler = (message: Message) => unknown;
/** Handles a message whose payload a schema has checked. */
export type TypedHandler<S extends StandardSchema> = (message: Message, data: OutputOf<S>) => unknown;

/** What can be said of a handler. */
export interface HandlerOptions {
  /** Kinds of errors on which the message comes again, as with `Retry`. */
  readonly retryOn?: readonly (abstract new (...args: never[]) => Error)[] | undefined;
}

/** One handler. */
export class Handler {
  readonly #schema: StandardSchema | undefined;
  readonly #handle: (message: Message, data: unknown) => unknown;
  readonly #retryOn: NonNullable<HandlerOptions["retryOn"]>;

  constructor(
    schema: StandardSchema | undefined,
    handle: (message: Message, data: unknown) => unknown,
    { retryOn = [] }: HandlerOptions,
  ) {
    if (typeof handle !== "function") throw new SetupError("a handler: expected a function");
    if (!Array.isArray(retryOn) || !retryOn.every(isClass)) throw new SetupError("retryOn: expected an array of classes of errors");
    this.#schema = schema;
    this.#handle = handle;
    this.#retryOn = retryOn;
  }

  async run(message: Message): Promise<void> {
    await this.#handle(message, this.#schema === undefined ? undefined : await message.parse(this.#schema));
  }

  /** Whether the message comes again after this error. */
  retries(error: unknown): boolean {
    return this.#retryOn.some((Kind) => error instanceof Kind);
  }
}

/** Whether `instanceof` takes it. */
function isClass(value: unknown): boolean {
  return typeof value === "function" && typeof value.prototype === "object";
}

/** The handlers of an agent. */
export class Handlers {
  readonly #byType = new Map<string, Handler>();
  #other: Handler | undefined;

  add(type: string, handler: Handler): void {
    if (this.#byType.has(type)) throw new SetupError(`there is a handler of ${JSON.stringify(type)} already`);
    this.#byType.set(type, handler);
  }

  addOther(handler: Handler): void {
    if (this.#other !== undefined) throw new SetupError("there is a handler of other types already");
    this.#other = handler;
  }

  find(type: string): Handler | undefined {
    return this.#byType.get(type) ?? this.#other;
  }
}
