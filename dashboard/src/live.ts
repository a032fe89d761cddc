// Records as they are committed: the stream of /api/v1/events, in a bounded list that is shown a few times a second.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError, type AuditRecord, open, query } from "./api";
import { comebacks } from "./state";

/** Records that are kept. */
export const MAX_LIVE = 500;
/** How often the list changes, in milliseconds: a reader cannot follow more. */
const SHOW_MS = 250;
/** Records a second that are asked for: nobody reads more, and the server need not write them. */
const PER_SECOND = 200;
/** Longest unfinished event, in characters; a stream that goes beyond is broken off. */
const MAX_EVENT_CHARS = 1 << 20;
/** Between two attempts to get the stream again, in milliseconds. */
const AGAIN_MS = 1_000;

export interface LiveState { records: AuditRecord[]; seen: number; missed: number; skipped: number; open: boolean; error: ApiError | null }

const EMPTY: LiveState = { records: [], seen: 0, missed: 0, skipped: 0, open: false, error: null };
export const live = signal<LiveState>(EMPTY);

/** Reads `event:` and `data:` lines; calls back for each event. */
class Events {
  private rest = "";
  private name = "";
  private data: string[] = [];

  constructor(private readonly event: (name: string, data: string) => void) {}

  push(text: string): void {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop() ?? "";
    if (this.rest.length > MAX_EVENT_CHARS) throw new ApiError(-1, "The stream of records is not what it should be.", null);
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line === "") {
        if (this.data.length) this.event(this.name || "message", this.data.join("\n"));
        this.name = "";
        this.data = [];
      } else if (line.startsWith("event:")) this.name = line.slice(6).trim();
      else if (line.startsWith("data:")) this.data.push(line.slice(5).replace(/^ /, ""));
    }
  }
}

/** Follows the stream with these filters while it is wanted. */
export function useLive(filters: Record<string, string>, wanted: boolean): void {
  const asked = JSON.stringify(filters);
  const back = comebacks.value;
  useEffect(() => {
    live.value = { ...EMPTY, records: live.value.records };
    return () => {
      live.value = EMPTY;
    };
  }, [asked]);
  useEffect(() => {
    if (!wanted) return;
    const over = new AbortController();
    let fresh: AuditRecord[] = [];
    let [seen, missed, skipped] = [0, 0, 0];
    const show = () => {
      if (!seen && !missed && !skipped) return;
      const now = live.value;
      live.value = {
        ...now, records: [...fresh.reverse(), ...now.records].slice(0, MAX_LIVE),
        seen: now.seen + seen, missed: now.missed + missed, skipped: now.skipped + skipped,
      };
      fresh = [];
      [seen, missed, skipped] = [0, 0, 0];
    };
    const timer = setInterval(show, SHOW_MS);
    const take = (name: string, data: string) => {
      if (name === "record") {
        seen += 1;
        fresh.push(JSON.parse(data) as AuditRecord);
        if (fresh.length > MAX_LIVE) fresh.shift();
      } else if (name === "missed") missed += (JSON.parse(data) as { blocks: number }).blocks;
      else if (name === "skipped") skipped += (JSON.parse(data) as { records: number }).records;
    };
    const follow = async () => {
      while (!over.signal.aborted) {
        try {
          const path = query("/api/v1/events", { ...JSON.parse(asked) as Record<string, string>, per_second: PER_SECOND });
          const stream = await open(path, over.signal);
          live.value = { ...live.value, open: true, error: null };
          const events = new Events(take);
          const text = new TextDecoder();
          const reader = stream.getReader();
          for (let part = await reader.read(); !part.done; part = await reader.read()) events.push(text.decode(part.value, { stream: true }));
        } catch (error) {
          if (over.signal.aborted) return;
          const known = error instanceof ApiError ? error : new ApiError(0, "The stream of records broke off.", null);
          live.value = { ...live.value, open: false, error: known };
          // Another filter or another person may see it; asking again does not help.
          if (known.status >= 400 && known.status < 500) return;
        }
        live.value = { ...live.value, open: false };
        await new Promise((go) => setTimeout(go, AGAIN_MS));
      }
    };
    void follow();
    return () => {
      clearInterval(timer);
      show();
      over.abort();
      live.value = { ...live.value, open: false };
    };
  }, [asked, wanted, back]);
}
