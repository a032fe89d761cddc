// Places for calls that are under way; who finds none waits in order.

import type { Limit } from "./time.js";

/** A number of places. */
export class Slots {
  #free: number;
  #end: unknown;
  #ended = false;
  readonly #queue = new Set<{ take: () => void; fail: (why: unknown) => void }>();

  constructor(count: number) {
    this.#free = count;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#queue.size;
  }

  /** Takes a place, now or when one is free; undefined: taken at once. */
  take(limit: Limit): Promise<void> | undefined {
    if (this.#ended) return Promise.reject(this.#end);
    if (this.#free > 0) {
      this.#free -= 1;
      return undefined;
    }
    return limit.wait<void>((resolve, reject) => {
      const waiter = { take: resolve, fail: reject };
      this.#queue.add(waiter);
      return () => this.#queue.delete(waiter);
    });
  }

  /** Gives a place back. */
  give(): void {
    for (const next of this.#queue) {
      this.#queue.delete(next);
      next.take();
      return;
    }
    this.#free += 1;
  }

  /** Nobody gets a place any more. */
  end(why: unknown): void {
    this.#ended = true;
    this.#end = why;
    const queue = [...this.#queue];
    this.#queue.clear();
    for (const waiter of queue) waiter.fail(why);
  }
}
