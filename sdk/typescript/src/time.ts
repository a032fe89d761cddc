// Time: how long a call may take, and growing waits.

/** Longest time that a timer takes, in milliseconds: 2^31 - 1. */
export const MAX_MS = 2_147_483_647;

/** Who hears that a signal is aborted: one listener for all, as Node takes many on one signal for a leak. */
const hearing = new WeakMap<AbortSignal, { readonly each: Set<() => void>; readonly all: () => void }>();

function hear(signal: AbortSignal, listener: () => void): void {
  let heard = hearing.get(signal);
  if (heard === undefined) {
    const each = new Set<() => void>();
    heard = { each, all: () => each.forEach((one) => one()) };
    hearing.set(signal, heard);
    signal.addEventListener("abort", heard.all, { once: true });
  }
  heard.each.add(listener);
}

function unhear(signal: AbortSignal, listener: () => void): void {
  const heard = hearing.get(signal);
  if (heard === undefined) return;
  heard.each.delete(listener);
  if (heard.each.size > 0) return;
  signal.removeEventListener("abort", heard.all);
  hearing.delete(signal);
}

/** The time of a call is over. */
export class Expired extends Error {
  static {
    this.prototype.name = "Expired";
  }
}

/** The time and the cancellation of one call. Closed when the call is over, so that no timer is left behind. */
export class Limit {
  readonly ms: number;
  readonly #end: number;
  readonly #signal: AbortSignal | undefined;
  readonly #timer: NodeJS.Timeout;
  #over: { why: unknown } | undefined;
  #giveUp: ((why: unknown) => void) | undefined;

  constructor(ms: number, signal?: AbortSignal) {
    this.ms = Math.min(ms, MAX_MS);
    this.#end = performance.now() + this.ms;
    this.#signal = signal;
    this.#timer = setTimeout(this.#expire, this.ms);
    if (signal?.aborted) this.#abort();
    else if (signal !== undefined) hear(signal, this.#abort);
  }

  /** Milliseconds that are left. */
  get left(): number {
    return Math.max(0, this.#end - performance.now());
  }

  /** Whether nothing is begun any more: the time is over, or the caller has cancelled. */
  get isOver(): boolean {
    return this.#over !== undefined || this.left === 0;
  }

  /** Ends it where its time is over and the timer has not said so yet, as the program was busy. */
  look(): void {
    if (this.left === 0) this.#expire();
  }

  /**
   * Waits for what `start` begins. `start` returns how it is given up, which happens at the end of the time (throws
   * `Expired`) and at the caller's cancellation (throws the signal's reason). One wait at a time.
   */
  wait<T>(start: (resolve: (value: T) => void, reject: (why: unknown) => void) => () => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.look();
      if (this.#over !== undefined) return reject(this.#over.why);
      let settled = false;
      // What comes after the first answer is not of this wait any more.
      const settle = (): void => {
        if (!settled) this.#giveUp = undefined;
        settled = true;
      };
      const cancel = start(
        (value) => {
          settle();
          resolve(value);
        },
        (why) => {
          settle();
          reject(why);
        },
      );
      if (settled) return;
      this.#giveUp = (why) => {
        settled = true;
        cancel();
        reject(why);
      };
    });
  }

  /** Waits so many milliseconds. */
  sleep(ms: number): Promise<void> {
    return this.wait((resolve) => {
      const timer = setTimeout(resolve, ms);
      return () => clearTimeout(timer);
    });
  }

  /** The call is over. */
  close(): void {
    clearTimeout(this.#timer);
    if (this.#signal !== undefined) unhear(this.#signal, this.#abort);
  }

  readonly #expire = (): void => this.#finish(new Expired("the time is over"));
  readonly #abort = (): void => this.#finish(this.#signal?.reason);

  #finish(why: unknown): void {
    this.#over ??= { why };
    const giveUp = this.#giveUp;
    this.#giveUp = undefined;
    giveUp?.(why);
  }
}

/** Waits that double from `first` to `last`, each between half and all of that. */
export class Backoff {
  readonly #first: number;
  readonly #last: number;
  #next: number;

  constructor(first: number, last: number) {
    this.#first = first;
    this.#last = last;
    this.#next = first;
  }

  /** The next wait, in milliseconds. */
  next(): number {
    const wait = this.#next;
    this.#next = Math.min(wait * 2, this.#last);
    return jittered(wait);
  }

  /** From the first again. */
  reset(): void {
    this.#next = this.#first;
  }
}

/** Between half and all of it. */
export function jittered(ms: number): number {
  return ms * (0.5 + Math.random() / 2);
}
