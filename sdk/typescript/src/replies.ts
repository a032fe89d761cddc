// Replies and the requests that wait for them.

import type { Limit } from "./time.js";

/** Replies, and news that none will come, that came before their request's own answer: how many are kept, and for how long,
 * in milliseconds. What is forgotten is of a request that was given up. */
const MAX_EARLY = 1024;
const MAX_EARLY_MS = 10_000;

/** No reply will come, and why. Does not leave the package. */
export class Unanswered extends Error {
  readonly reason: string;

  constructor(reason: string) {
    super(reason);
    this.reason = reason;
  }
}

/** Who waits for which reply. */
export class Replies<M> {
  readonly #waiting = new Map<string, { resolve: (reply: M) => void; reject: (why: unknown) => void }>();
  readonly #early = new Map<string, { readonly came: M | Unanswered; readonly at: number }>();
  readonly #late: (reply: M) => void;
  /** Requests whose correlation id is not known yet. */
  #asking = 0;
  #over: unknown;

  /** `late` takes a reply that nobody waits for any more. */
  constructor(late: (reply: M) => void) {
    this.#late = late;
  }

  /** While `accept` runs, a reply may come before what it returns. */
  async asking<T>(accept: () => Promise<T>): Promise<T> {
    this.#asking += 1;
    try {
      return await accept();
    } finally {
      this.#asking -= 1;
      // What was accepted is waited for in the callbacks that follow at once.
      if (this.#asking === 0 && this.#early.size > 0) setImmediate(() => this.#asking === 0 && this.#forget(0, 0));
    }
  }

  /** The reply of this id, within the limit. */
  wait(correlationId: string, limit: Limit): Promise<M> {
    return limit.wait<M>((resolve, reject) => {
      const early = this.#early.get(correlationId);
      this.#early.delete(correlationId);
      if (early?.came instanceof Unanswered) reject(early.came);
      else if (early !== undefined) resolve(early.came);
      else if (this.#over !== undefined) reject(this.#over);
      else this.#waiting.set(correlationId, { resolve, reject });
      return () => this.#waiting.delete(correlationId);
    });
  }

  /** Hands a reply, or the news that none will come, to who waits for it. */
  arrived(correlationId: string, came: M | Unanswered): void {
    const waiting = this.#waiting.get(correlationId);
    if (waiting !== undefined) {
      this.#waiting.delete(correlationId);
      if (came instanceof Unanswered) waiting.reject(came);
      else waiting.resolve(came);
    } else if (this.#asking > 0 && !this.#early.has(correlationId)) {
      this.#early.set(correlationId, { came, at: performance.now() });
      this.#forget(MAX_EARLY, MAX_EARLY_MS);
    } else {
      this.#tooLate(came);
    }
  }

  /** No reply will come any more. */
  end(why: unknown): void {
    this.#over = why;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const one of waiting) one.reject(why);
  }

  /** Keeps so many, of such an age. */
  #forget(count: number, age: number): void {
    const oldest = performance.now() - age;
    for (const [id, { came, at }] of this.#early) {
      if (this.#early.size <= count && at >= oldest) break;
      this.#early.delete(id);
      this.#tooLate(came);
    }
  }

  /** Who gave its request up needs no news that no reply will come. */
  #tooLate(came: M | Unanswered): void {
    if (!(came instanceof Unanswered)) this.#late(came);
  }
}
