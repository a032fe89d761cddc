// Records of the trail as rows.

import type { AuditRecord, ChainStep } from "../api";
import { href } from "../state";
import { short } from "../text";
import { AgentLink, DecisionTag, Time } from "./bits";
import type { Column } from "./table";

/** Where a record's proof is shown. */
export const proofHref = (row: Pick<AuditRecord, "lane" | "seq">) => href("messages", `${row.lane}:${row.seq}`, { proof: `${row.lane}:${row.seq}` });

/** Whom a record is about on the other side: a link where that is an agent, and not a delivery or a stream. */
function Target({ row }: { row: AuditRecord | ChainStep }) {
  return /^[A-Za-z][\w-]*$/.test(row.target) ? <AgentLink name={row.target} /> : <span class={row.target ? "" : "quiet"}>{row.target || "–"}</span>;
}

function Message({ row }: { row: AuditRecord | ChainStep }) {
  const several = "messages" in row ? row.messages : [];
  if (row.message_id) return <a class="mono" href={href("messages", row.message_id)} title={row.message_id}>…{row.message_id.slice(-12)}</a>;
  const [first, ...more] = several;
  if (!first) return <span class="quiet">–</span>;
  return <span><a class="mono" href={href("messages", first.message_id)} title={first.message_id}>…{first.message_id.slice(-12)}</a>{more.length > 0 && ` and ${more.length}`}</span>;
}

export const RECORD_COLUMNS: Column<AuditRecord>[] = [
  { name: "time", head: "Time", value: (row) => new Date(row.time_us / 1_000).toISOString(), cell: (row) => <Time ms={row.time_us / 1_000} fine /> },
  { name: "action", head: "Action", value: (row) => row.action },
  { name: "decision", head: "Decision", value: (row) => row.decision, cell: (row) => <DecisionTag decision={row.decision} /> },
  { name: "agent", head: "From", value: (row) => row.agent, cell: (row) => <AgentLink name={row.agent} /> },
  { name: "target", head: "To", value: (row) => row.target, cell: (row) => <Target row={row} /> },
  { name: "type", head: "Type", value: (row) => row.message_type },
  { name: "why", head: "Rule, reason", value: (row) => [row.rule, row.reason].filter(Boolean).join(": ") },
  { name: "message_id", head: "Message", value: (row) => row.message_id ?? row.messages[0]?.message_id ?? "", cell: (row) => <Message row={row} /> },
  {
    name: "record", head: "Record", value: (row) => `${row.lane}:${row.seq}`,
    cell: (row) => <a href={proofHref(row)} title={`${row.lane}:${row.seq}`}>proof</a>,
  },
];

export const STEP_COLUMNS: Column<ChainStep>[] = [
  { name: "time", head: "Time", value: (row) => new Date(row.time_us / 1_000).toISOString(), cell: (row) => <Time ms={row.time_us / 1_000} fine /> },
  { name: "action", head: "Action", value: (row) => row.action },
  { name: "decision", head: "Decision", value: (row) => row.decision, cell: (row) => <DecisionTag decision={row.decision} /> },
  { name: "agent", head: "Who", value: (row) => row.agent, cell: (row) => <span><AgentLink name={row.agent} /> <span class="quiet">{row.instance}</span></span> },
  { name: "target", head: "To", value: (row) => row.target, cell: (row) => <span><Target row={row} /> <span class="quiet">{row.target_instance}</span></span> },
  { name: "type", head: "Type", value: (row) => row.message_type },
  { name: "attempt", head: "Attempt", value: (row) => row.attempt || null, cell: (row) => row.attempt || "", num: true },
  { name: "why", head: "Rule, reason", value: (row) => [row.rule, row.reason].filter(Boolean).join(": ") },
  { name: "bytes", head: "Bytes", value: (row) => row.payload_bytes, cell: (row) => row.payload_bytes || "", num: true },
  {
    name: "record", head: "Record", value: (row) => `${row.lane}:${row.seq}`,
    cell: (row) => <a href={href("messages", row.message_id ?? `${row.lane}:${row.seq}`, { proof: `${row.lane}:${row.seq}` })} title={`${row.lane}:${row.seq}`}>{short(row.lane, 6)}:{row.seq} proof</a>,
  },
];
