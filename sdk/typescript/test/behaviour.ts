// Tests by the names of docs/clients.md, and what is to end after the last one of a file.

import { test } from "node:test";

/** Longest time of one test. */
const TIMEOUT_MS = 40_000;

/** What was asked for by `--test-name-pattern`: what is not run must not be waited for. */
const patterns = process.execArgv.flatMap((word) => /^--test-name-pattern=\/?(.*?)\/?$/.exec(word)?.slice(1) ?? []);

const ends: (() => Promise<void>)[] = [];
let left = 0;

/** A test of a behaviour that docs/clients.md names. */
export function behaviour(name: string, what: string, run: () => Promise<void>): void {
  check(`${name}: ${what}`, run);
}

/** Another test. */
export function check(what: string, run: () => Promise<void>): void {
  if (patterns.length > 0 && !patterns.some((pattern) => new RegExp(pattern).test(what))) return;
  left += 1;
  void test(what, { timeout: TIMEOUT_MS }, async () => {
    try {
      await run();
    } finally {
      left -= 1;
      // Not by a hook: those of Node 18 wait for the process to be idle.
      if (left === 0) for (const end of ends.reverse()) await end();
    }
  });
}

/** Runs after the last test of the file, the newest first. */
export function atEnd(end: () => Promise<void>): void {
  ends.push(end);
}
