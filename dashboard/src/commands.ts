// Which commands whoever looks may have carried out by the server.

import { useAsked } from "./state";

interface Listed { commands?: unknown }

/** The commands' names; empty where the server has none for whoever asks. */
export function useCommands(): Set<string> {
  const { data } = useAsked<Listed>("/api/v1/commands", 0);
  const names = Array.isArray(data?.commands) ? data.commands : [];
  return new Set(names.flatMap((one: unknown) =>
    typeof one === "string" ? [one] : one !== null && typeof one === "object" && "path" in one ? [String(one.path).replace("/api/v1/", "")] : []));
}
