// Tests by the names of docs/clients.md.

import { test, type TestContext } from "node:test";

/** Longest time of one test. */
const TIMEOUT_MS = 40_000;

/** A test of a behaviour that docs/clients.md names. */
export function behaviour(name: string, what: string, run: (t: TestContext) => Promise<void>): void {
  void test(`${name}: ${what}`, { timeout: TIMEOUT_MS }, run);
}
