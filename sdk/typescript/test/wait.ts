// Waiting for conditions.

/** Longer than anything that is waited for takes; only a failing test waits that long. */
export const PATIENCE_MS = 20_000;
/** Between two looks at a condition that nothing announces. */
const LOOK_AGAIN_MS = 5;

/** What the condition gives once it is neither undefined nor false. */
export async function until<T>(
  what: string,
  condition: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const value = await condition();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > end) throw new Error(`not within ${PATIENCE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
  }
}

/** A promise and what settles it. */
export function gate<T = void>(): { readonly promise: Promise<T>; open(value: T): void } {
  let open!: (value: T) => void;
  const promise = new Promise<T>((resolve) => (open = resolve));
  return { promise, open };
}

/** The error that a promise is rejected with, of this class. */
export async function failure<E extends Error>(Kind: abstract new (...args: never[]) => E, promise: Promise<unknown>): Promise<E> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof Kind) return error;
    throw error;
  }
  throw new Error(`no ${Kind.name}`);
}

/** Keeps the event loop busy. */
export function blocked(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}
