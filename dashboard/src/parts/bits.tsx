// Small things that all pages show alike.

import type { ComponentChildren } from "preact";
import type { ApiError } from "../api";
import { MEANING, PASSED } from "../codes";
import { clock, href, lostSince } from "../state";
import { time, utc } from "../text";

export type Kind = "good" | "warn" | "bad" | "none";

/** The sign of a kind: told apart by shape, and by colour beside it. */
const SIGNS: Record<Kind, string> = { good: "✓", warn: "▲", bad: "✕", none: "·" };

/** A word with a sign. */
export function Tag({ kind, children, title }: { kind: Kind; children: ComponentChildren; title?: string | undefined }) {
  return <span class={`tag ${kind}`} title={title}><span aria-hidden="true">{SIGNS[kind]}</span> {children}</span>;
}

export function DecisionTag({ decision }: { decision: string }) {
  const kind: Kind = decision === "EVENT" ? "none" : decision === "ALERT" || decision === "DLP_REDACTED" ? "warn"
    : PASSED.has(decision) ? "good" : "bad";
  return <Tag kind={kind} title={MEANING[decision]}>{decision}</Tag>;
}

/** A time of day; its title says the same in UTC. */
export function Time({ ms, fine = false }: { ms: number | null; fine?: boolean }) {
  if (ms === null) return <span class="quiet">never</span>;
  return <time dateTime={utc(ms)} title={utc(ms)}>{time(ms, fine)}</time>;
}

export function AgentLink({ name }: { name: string }) {
  return name ? <a href={href("agents", name)}>{name}</a> : <span class="quiet">–</span>;
}

/** What went wrong, and what to do. */
export function Problem({ error }: { error: ApiError | null }) {
  // That nothing answers is said once, above the page.
  if (!error || (error.status === 0 && lostSince.value !== null)) return null;
  return (
    <div class="notice bad" role="alert">
      <p><strong>{error.message}</strong></p>
      <p>{error.whatToDo}</p>
    </div>
  );
}

/** What stands where rows will be, until they come. */
export function Waiting({ what }: { what: string }) {
  return <p class="waiting" role="status">Asking for {what} …</p>;
}

/** How old what is shown is. */
export function Age({ at }: { at: number }) {
  if (at === 0) return null;
  const s = Math.max(0, Math.round((clock.value - at) / 1_000));
  return <span class="quiet">as of {s < 3 ? "now" : `${s} s ago`}</span>;
}

export function Facts({ rows }: { rows: [string, ComponentChildren][] }) {
  return <dl class="facts">{rows.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>;
}

/** A share of a whole, as a bar that is told in words, too. */
export function Bar({ value, max, text }: { value: number; max: number; text: string }) {
  const share = max > 0 ? Math.min(1, value / max) : 0;
  const kind = share > 0.9 ? "bad" : share > 0.7 ? "warn" : "good";
  return (
    <span class="bar">
      <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        <rect class="track" width="100" height="6" /><rect class={kind} width={share * 100} height="6" />
      </svg>
      <span>{text}</span>
    </span>
  );
}
