// Which commands whoever looks may have carried out by the server, and having one carried out.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { post } from "./api";
import { useAsked } from "./state";

/** The commands' names; none where the server carries out none for whoever asks. */
export const may = signal<ReadonlySet<string>>(new Set());

/** Asks once; the frame does. */
export function useCommands(): void {
  const { data } = useAsked<{ commands: string[] }>("/api/v1/commands", 0);
  useEffect(() => {
    if (data) may.value = new Set(data.commands);
  }, [data]);
}

/** A command as it is posted: its name, and what it needs. */
export type Command = { command: string } & Record<string, unknown>;

/** How it ended. */
export interface Done {
  done: number; failed: number; more: boolean; receipt: { lane: string; records: number } | null;
}

export function carryOut(command: Command, reason: string): Promise<{ done: Done }> {
  return post("/api/v1/commands", { command, reason });
}
