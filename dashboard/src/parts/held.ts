// What a paused page shows: what was there when it was paused.

import { useRef } from "preact/hooks";

/** The newest value, or, while `held`, the one from when that began; a value that was not there yet is taken. */
export function useHeld<T>(newest: T | null, held: boolean): T | null {
  const kept = useRef<T | null>(newest);
  if (!held || kept.current === null) kept.current = newest;
  return kept.current;
}
