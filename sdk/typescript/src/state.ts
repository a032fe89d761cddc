// The agent's state, shared by its instances.

import type { CallOptions } from "./calls.js";
import { VersionMismatch } from "./errors.js";
import { fromFields } from "./payload.js";
import type { OutputOf, StandardSchema } from "./schema.js";
import { Backoff, Expired, type Limit } from "./time.js";

/** Waits before a change is made again, in milliseconds: from the first, doubling to the last. */
const CHANGE_FIRST_MS = 5;
const CHANGE_LAST_MS = 200;

/** The state as it was when it was read: fields of text, and a version. */
export class State {
  /** A text stands as it is, everything else as JSON. */
  readonly fields: Readonly<Record<string, string>>;
  /** Grows with every change; 0: there is none, or the server does not count. */
  readonly version: number;

  /** @internal */
  constructor(fields: ReadonlyMap<string, string>, version: number) {
    this.fields = Object.fromEntries(fields);
    this.version = version;
  }

  /** The state as the schema makes it; fields that are missing take the schema's defaults. */
  parse<S extends StandardSchema>(schema: S): Promise<OutputOf<S>> {
    return fromFields(schema, this.fields);
  }
}

/** Lets changes of the state within this process wait for each other. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs when those before are through, unless that takes longer than the limit. */
  take<T>(limit: Limit, run: () => Promise<T>): Promise<T> {
    const before = this.#last;
    const turn = limit
      .wait<void>((resolve) => {
        void before.then(() => resolve());
        return () => undefined;
      })
      .then(run);
    this.#last = Promise.allSettled([before, turn]).then(() => undefined);
    return turn;
  }
}

/** What a change reads and writes. */
export interface Access {
  read(options: CallOptions): Promise<State>;
  write(updates: object, options: CallOptions & { readonly expectedVersion: number }): Promise<number>;
}

/** Reads, changes and writes until nobody else has written meanwhile; within the limit. */
export async function change<T extends object>(
  access: Access,
  updatesOf: (state: State) => T | Promise<T>,
  limit: Limit,
  signal: AbortSignal | undefined,
): Promise<T> {
  const backoff = new Backoff(CHANGE_FIRST_MS, CHANGE_LAST_MS);
  const left = (): CallOptions => ({ timeout: Math.max(1, limit.left), ...(signal && { signal }) });
  for (;;) {
    const state = await access.read(left());
    const updates = await limit.wait<T>((resolve, reject) => {
      Promise.resolve(updatesOf(state)).then(resolve, reject);
      return () => undefined;
    });
    // A function that never waits may have kept the timer from firing.
    if (limit.left === 0) throw new Expired("the time is over");
    try {
      await access.write(updates, { ...left(), expectedVersion: state.version });
      return updates;
    } catch (error) {
      if (!(error instanceof VersionMismatch)) throw error;
      const wait = backoff.next();
      if (wait >= limit.left) throw error;
      await limit.sleep(wait);
    }
  }
}
