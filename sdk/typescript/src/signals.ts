// SIGTERM and SIGINT: the first one asks to stop, a second one ends the process at once.

import { constants } from "node:os";

const SIGNALS = ["SIGTERM", "SIGINT"] as const;

/** Until the first signal. */
export interface Signals {
  readonly first: Promise<void>;
  close(): void;
}

/** Listens from now on. */
export function untilSignal(): Signals {
  let asked = false;
  let stop: () => void;
  const first = new Promise<void>((resolve) => (stop = resolve));
  const heard = (signal: NodeJS.Signals): void => {
    // As a shell reports a process that a signal has ended.
    if (asked) process.exit(128 + constants.signals[signal]);
    asked = true;
    stop();
  };
  for (const signal of SIGNALS) process.on(signal, heard);
  return {
    first,
    close: () => {
      for (const signal of SIGNALS) process.off(signal, heard);
    },
  };
}
