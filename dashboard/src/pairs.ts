// Who may, who does, who was refused: the pairs of the map.

import type { Decisions, MapAnswer } from "./api";
import { PASSED } from "./codes";

export interface Pair { from: string; to: string; may: boolean; passed: number; refused: number; decisions: Decisions }

/** How a pair is, in words. */
export function pairState({ may, passed, refused }: Pick<Pair, "may" | "passed" | "refused">): string {
  if (refused && passed) return may ? "used, partly refused" : "was used, is refused";
  if (refused) return may ? "allowed, was refused" : "refused";
  if (passed) return may ? "used" : "was used, is not allowed now";
  return may ? "allowed, never used" : "not allowed, never tried";
}

export function decisionsText(decisions: Decisions): string {
  return Object.entries(decisions).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]).map(([name, n]) => `${n} ${name}`).join(", ");
}

export interface Pairs {
  names: string[];
  /** By sender's and receiver's place; nothing where it is neither allowed nor was tried. */
  at: (from: number, to: number) => Pair | null;
  all: Pair[];
}

const NOTHING: Pairs = { names: [], at: () => null, all: [] };

export function pairsOf(map: MapAnswer | null): Pairs {
  if (!map) return NOTHING;
  const { agents: names, allowed, edges } = map;
  const size = names.length;
  const found = new Map<number, Pair>();
  const pair = (from: number, to: number): Pair => {
    let one = found.get(from * size + to);
    if (!one) {
      one = { from: names[from] ?? "", to: names[to] ?? "", may: false, passed: 0, refused: 0, decisions: {} };
      found.set(from * size + to, one);
    }
    return one;
  };
  for (const [from, row] of allowed.entries()) for (const to of row) pair(from, to).may = true;
  for (const [from, to, decisions] of edges) {
    const one = pair(from, to);
    one.decisions = decisions;
    for (const [decision, n] of Object.entries(decisions)) {
      if (PASSED.has(decision)) one.passed += n;
      else one.refused += n;
    }
  }
  return { names, at: (from, to) => found.get(from * size + to) ?? null, all: [...found.values()] };
}
