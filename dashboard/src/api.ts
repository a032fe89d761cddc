// What the admin listener answers: the rows of docs/admin-api.md as types, and how they are asked for.

/** Longest that an answer is waited for, in milliseconds. */
const PATIENCE_MS = 20_000;

export interface Check { name: string; problem: string | null }
export interface Trouble { code: string; since_unix_ms: number; why: string }
export interface Redis {
  up: boolean; why?: string; used_bytes?: number; max_bytes?: number;
  dead_letters?: number; foreign_entries?: number; servers?: number;
}
export interface InboxRow { agent: string; waiting: number; delivered: number; bytes: number }
export interface Status {
  server: string; version: string; host: string | null; listen_addr: string | null; admin_addr: string | null;
  time_unix_ms: number; started_unix_ms: number | null; loaded_unix_ms: number;
  policy_version: string; rules_digest: string | null; ready: boolean; draining: boolean;
  checks: Check[]; troubles: Trouble[]; redis: Redis; checkpoint_unix_ms: number | null;
  connections: number; sessions: Record<string, number>; circuits_open: string[]; inboxes: InboxRow[];
  workers_busy: number[]; certificates_end_unix_s: Record<string, number>; cut?: boolean;
  /** Who is shut out; absent in servers that cannot do it. */
  quarantine?: Quarantined[]; quarantine_version?: number; quarantine_taken_unix_ms?: number; agents_certificates_end_unix_s?: Record<string, number>;
}
export interface Quarantined { whom: string; by: string; since_unix_ms: number }
export interface FleetServer {
  server: string; this: boolean; trusted: boolean; problem: string | null; age_ms: number | null; status: Status | null;
}
export interface Fleet {
  server: string; time_unix_ms: number; rules_differ: boolean; versions_differ: boolean; servers: FleetServer[];
  /** Why the other servers are not known. */
  others_unknown: string | null;
}

export interface Me { name: string | null; role: string; from: string }

export type Decisions = Record<string, number>;
export interface Agent {
  agent: string; capabilities: string[]; roles: string[]; may_send_to: number | null; may_be_sent_by: number | null;
  sessions: Record<string, number>;
  inbox: { waiting: number; delivered: number; bytes: number; oldest_ms: number | null };
  dead_letters: number | null;
  circuit: { open: boolean; since_unix_ms: number | null };
  rate: Record<"per_minute" | "per_hour", { limit: number; used: number | null }>;
  decisions: Decisions; deliveries: Record<string, number>;
  state: { fields: number; bytes: number; version: number; ttl_ms: number | null } | null;
  quarantined: Record<string, unknown> | null;
}
export interface Agents { time_unix_ms: number; next: string | null; total: number; agents: Agent[] }
export interface Edge { agent: string; decisions: Decisions }
export interface AgentWhole extends Agent {
  metadata: Record<string, unknown>; instances_configured: number | null;
  send_to: string[]; sent_by: string[]; sent: Edge[]; received: Edge[];
  instances: { instance: string; server: string; left_unix_ms: number | null }[];
}

export interface MapAnswer {
  time_unix_ms: number; agents: string[]; allowed: number[][]; edges: [number, number, Decisions][];
  other: Decisions; since_unix_ms: number; cut: boolean;
}

export interface AuditRecord {
  lane: string; seq: number; time_us: number; action: string; decision: string; agent: string; instance: string;
  fingerprint: string; message_id: string | null; message_type: string; target: string; target_instance: string;
  correlation_id: string; payload_sha256: string; payload_bytes: number; attempt: number; rule: string; reason: string;
  policy_version: string; findings: unknown; messages: { message_id: string; attempt: number }[]; sender_seq: number;
  trace: string;
}
export interface Records {
  records: AuditRecord[]; looked_at: number; reached_unix_us: number | null; next: string | null; complete: boolean;
  elsewhere: string[];
}
export type ChainStep = Pick<AuditRecord, "lane" | "seq" | "time_us" | "action" | "decision" | "agent" | "instance"
  | "target" | "target_instance" | "message_id" | "message_type" | "correlation_id" | "attempt" | "rule" | "reason"
  | "payload_bytes">;
export interface Chain { message_id: string; state: string; chain: ChainStep[]; related: ChainStep[]; cut: boolean }

export interface Proof {
  mas_audit_proof: number; lane: string; sequence: number; record: string; lane_size: number; path: string[];
  checkpoint: string;
}
export interface ProofAnswer { proof: Proof; leaf_hash: string; record: AuditRecord; public_key_file: string }

export interface Letter {
  id: string; time_ms: number; agent_id: string; instance_id: string; reason: string; attempts: number;
  history: { attempt: number; reason: string }[]; stream: string; message_id: string | null; ours: boolean;
}
export interface Letters { letters: Letter[]; looked_at: number; next: string | null; total: number }
export interface LetterWhole extends Letter {
  envelope: Record<string, unknown> | null; masked: boolean; payload_problem: string | null;
}

export interface Permission {
  index: number; rule: string; type: string; text: string; agents: string[]; sender: string | null;
  targets: string[] | null; bidirectional: boolean | null;
}
export interface DlpRule { type: string; rule: string; action: string }
export interface Policy {
  policy_version: string; rules_digest: string; loaded_unix_ms: number; path: string | null;
  features: Record<string, boolean>; permissions: Permission[];
  roles: { name: string; permissions: string[]; agents: string[] }[];
  limits: Record<string, number>; rate_limit: { per_minute: number; per_hour: number };
  rate_limits_of_agents: { agent: string; per_minute: number; per_hour: number }[];
  delivery: Record<string, unknown>; circuit_breaker: Record<string, number> | null;
  dlp: { enabled: boolean; types: DlpRule[]; custom: DlpRule[] };
  operators: { name: string; role: string }[]; cut: boolean;
}
export interface Explained {
  decision: string; rule: string; rule_text: string | null; status: string | null; details: string | null; findings: unknown;
}

export interface LaneRow {
  lane: string; server: string | null; operator: string | null; opened_unix_ms: number | null; oldest: number; head: number;
  sealed: number | null; archived: number | null; alive: boolean;
}
export interface CheckpointRow {
  time_unix_ms: number; log: string; boot: string; counter: number; records: number; lanes: number; note: string;
}
export interface Verified {
  result: string; time_unix_ms: number; by: string; records: number; problems: number; newest_checkpoint_unix_ms: number | null;
  version: string; trusted: true;
}
export interface Audit {
  time_unix_ms: number;
  log: {
    id: string; origin: string; keys: { key_hash: string; from_unix_ms: number }[]; key_hash: string; public_key_file: string;
    store_key: string | null;
  } | null;
  refusing: string | null; lanes: LaneRow[]; lanes_cut: boolean; unsealed: number; checkpoints: CheckpointRow[];
  anchor: { path: string; state: string; why: string | null; counter: number | null; newest_unix_ms: number | null } | null;
  archive: {
    dir: string; segments: number | null; bytes: number | null; lag: number | null; max_records: number | null;
    archiver: string | null; here: boolean; why: string | null;
  } | null;
  verified: Verified | { trusted: false } | null;
}

type Column = (number | null)[];
export interface Performance {
  server: string; interval_ms: number; time_unix_ms: number[]; decisions: Record<string, Column>; deliveries: Column;
  queue_delay_us: Record<string, Column>; commit_us: Record<string, Column>; policy_us: Record<string, Column>;
  workers_busy: Column[]; mailbox_depth: Column[]; redis_used_bytes: Column; redis_max_bytes: number;
  connections: Column; sessions: Column;
}

/** What was answered instead of what was asked for; `whatToDo` is for the person who reads it. */
export class ApiError extends Error {
  constructor(readonly status: number, message: string, readonly retryAfterS: number | null) {
    super(message);
  }

  get whatToDo(): string {
    switch (this.status) {
      case 0: return "Look whether mas-server runs on that host and whether this machine reaches it. The page asks again by itself.";
      case 400: return "Change the filter that is named; the rest stays.";
      case 401:
      case 403: return "Ask whoever keeps mas.yaml for a role (its key operators) that may see this, or look from the server's own host.";
      case 404: return "It may be older than what is kept, not yet on record, or of a server that cannot do this. Look at the id.";
      case 429:
      case 503: return "Nothing is lost: the page asks again by itself. If it stays, look at the checks on the Fleet page.";
      default: return "Look into the server's log for the same time, and at the checks on the Fleet page.";
    }
  }
}

async function ask(path: string, init: RequestInit, signal?: AbortSignal): Promise<Response> {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  const bound = signal ? AbortSignal.any([signal, patience]) : patience;
  let answer: Response;
  try {
    answer = await fetch(path, { ...init, cache: "no-store", signal: bound });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The server does not answer.", null);
  }
  if (answer.ok) return answer;
  const text = await answer.text().catch(() => "");
  let why = text.trim();
  try {
    const said: unknown = JSON.parse(text);
    if (said !== null && typeof said === "object" && "error" in said) why = String(said.error);
  } catch { /* An answer that is no JSON is shown as it is. */ }
  const retry = Number(answer.headers.get("retry-after"));
  throw new ApiError(answer.status, why || `The server answered ${answer.status}.`, retry > 0 ? retry : null);
}

/** The answer to a question, as JSON. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const answer = await ask(path, {}, signal);
  return await answer.json() as T;
}

/** The answer as a stream of text, for server-sent events. */
export async function open(path: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
  const answer = await fetch(path, { cache: "no-store", signal, headers: { accept: "text/event-stream" } });
  if (answer.ok && answer.body) return answer.body;
  const said = await answer.json().catch(() => ({})) as { error?: string };
  throw new ApiError(answer.status, said.error ?? `The server answered ${answer.status}.`, null);
}

/** Has an operator's command carried out. */
export async function post<T>(path: string, body: unknown): Promise<T> {
  const answer = await ask(path, {
    method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" },
  });
  return await answer.json() as T;
}

/** A path with parameters; those that are empty are left out. */
export function query(path: string, params: Record<string, string | number | null | undefined>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== null && value !== undefined && value !== "") search.set(name, String(value));
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}
