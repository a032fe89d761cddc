// What all pages share: the address, which has their state; whether the server answers; and questions asked again and again.

import { computed, effect, signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { ApiError, type Check, get } from "./api";

/** How often it is asked whether the server is there, in milliseconds. */
const BEAT_MS = 1_000;
/** How long that answer may take. With BEAT_MS, a lost server is seen within 3 s. */
const BEAT_PATIENCE_MS = 1_500;
/** Longest wait after an error, in milliseconds. */
const MAX_WAIT_MS = 10_000;

// The address: `#/page/name?key=value`.

export interface Place { page: string; name: string; params: URLSearchParams }

function read(): Place {
  const hash = location.hash.replace(/^#\/?/, "");
  const at = hash.indexOf("?");
  const path = at < 0 ? hash : hash.slice(0, at);
  const [page = "", ...name] = path.split("/");
  let decoded = name.join("/");
  try {
    decoded = decodeURIComponent(decoded);
  } catch { /* Shown as it is. */ }
  return { page: page || "fleet", name: decoded, params: new URLSearchParams(at < 0 ? "" : hash.slice(at + 1)) };
}

export const place = signal(read());
addEventListener("hashchange", () => {
  place.value = read();
});

/** The address of a page with its state. */
export function href(page: string, name = "", params: Record<string, string | undefined> = {}): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) if (value) search.set(key, value);
  const text = search.toString();
  return `#/${page}${name ? `/${encodeURIComponent(name)}` : ""}${text ? `?${text}` : ""}`;
}

/** Changes the state of this page; what is empty leaves the address. */
export function setParams(changes: Record<string, string>): void {
  const { page, name, params } = place.value;
  const all = Object.fromEntries(params);
  history.replaceState(null, "", href(page, name, { ...all, ...changes }));
  place.value = read();
}

/** A part of this page's state. */
export const param = (name: string, otherwise = ""): string => place.value.params.get(name) ?? otherwise;

/** Whether the page stands still; part of the address, so that a link shows the same. */
export const paused = computed(() => place.value.params.get("paused") === "1");
export const setPaused = (on: boolean) => setParams({ paused: on ? "1" : "" });

// Whether the server answers.

/** Since when the server does not answer, as the browser's clock has it; null while it does. */
export const lostSince = signal<number | null>(null);
/** The checks that keep this server from being ready, with what is wrong; it tells at once, whatever else it waits for. */
export const failing = signal<Check[]>([]);
/** Counts the times that it came back. */
export const comebacks = signal(0);
const visible = signal(document.visibilityState !== "hidden");
document.addEventListener("visibilitychange", () => {
  visible.value = document.visibilityState !== "hidden";
});

async function beat(): Promise<void> {
  try {
    const answer = await fetch("/readyz", { cache: "no-store", signal: AbortSignal.timeout(BEAT_PATIENCE_MS) });
    const said = await answer.text();
    if (!answer.ok && answer.status !== 503) throw new Error(said);
    const now = answer.ok ? [] : [...said.matchAll(/^\[-\] (\w+): (.*)$/gm)].map(([, name = "", problem = ""]) => ({ name, problem }));
    if (JSON.stringify(now) !== JSON.stringify(failing.value)) failing.value = now;
    if (lostSince.value !== null) {
      lostSince.value = null;
      comebacks.value += 1;
    }
  } catch {
    lostSince.value ??= Date.now();
  }
}

/** Asks once a second, as long as somebody looks. */
export function keepBeating(): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let going = false;
  const turn = async () => {
    clearTimeout(timer);
    if (going || !visible.value) return;
    going = true;
    await beat();
    going = false;
    timer = setTimeout(turn, BEAT_MS);
  };
  effect(() => {
    if (visible.value) void turn();
  });
}

/** The time, for ages; moves once a second. */
export const clock = signal(Date.now());
setInterval(() => {
  if (visible.value) clock.value = Date.now();
}, 1_000);

// Questions.

export interface Asked<T> {
  data: T | null;
  error: ApiError | null;
  /** When the data came, by the browser's clock; 0: never. */
  at: number;
  again: () => void;
}

/**
 * Asks for a path again and again, until the page is paused, hidden or left; `everyMs` 0: once. With `missingMs` what is not
 * there yet is asked for again after so long.
 */
export function useAsked<T>(path: string | null, everyMs: number, missingMs = 0): Asked<T> {
  const [found, setFound] = useState<{ path: string | null; data: T | null; error: ApiError | null; at: number }>(
    { path: null, data: null, error: null, at: 0 });
  const [round, setRound] = useState(0);
  const [stands, shows, back] = [paused.value, visible.value, comebacks.value];
  useEffect(() => {
    if (path === null) return;
    const over = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let wait = everyMs;
    const turn = async () => {
      try {
        const data = await get<T>(path, over.signal);
        if (over.signal.aborted) return;
        wait = everyMs;
        setFound({ path, data, error: null, at: Date.now() });
      } catch (error) {
        if (over.signal.aborted) return;
        const known = error instanceof ApiError ? error : new ApiError(-1, String(error), null);
        // What came before stays on the page, with the error above it.
        setFound((before) => ({ path, data: before.path === path ? before.data : null, error: known, at: before.at }));
        wait = known.retryAfterS ? known.retryAfterS * 1_000 : Math.min(Math.max(wait, 500) * 2, MAX_WAIT_MS);
        // Asked again though it is asked but once, where a later answer may be another.
        if (everyMs === 0 && (known.status === 0 || known.status >= 500)) timer = setTimeout(turn, wait);
        if (missingMs > 0 && known.status === 404) timer = setTimeout(turn, missingMs);
      }
      if (everyMs > 0 && !stands) timer = setTimeout(turn, wait);
    };
    if (shows) void turn();
    return () => {
      clearTimeout(timer);
      over.abort();
    };
  }, [path, everyMs, round, stands, shows, back]);
  const current = found.path === path ? found : { data: null, error: null, at: 0 };
  return { data: current.data, error: current.error, at: current.at, again: () => setRound((n) => n + 1) };
}
