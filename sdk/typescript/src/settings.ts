// How an agent is set up: options, their defaults, and the environment that `mas run` sets.

import { randomBytes } from "node:crypto";

import type { Credentials } from "./credentials.js";
import { SetupError } from "./errors.js";
import { safe, STDERR, type Logger } from "./log.js";
import { MAX_MS } from "./time.js";
import type { TraceParent } from "./tracing.js";

/** Handlers that run at a time. */
export const CONCURRENCY = 64;
/** Times, in milliseconds. */
export const CONNECT_TIMEOUT_MS = 10_000;
export const CALL_TIMEOUT_MS = 30_000;
export const REQUEST_TIMEOUT_MS = 60_000;
export const DRAIN_TIMEOUT_MS = 8_000;
export const REFUSED_RETRY_MS = 10_000;

const INSTANCE_ID = /^[A-Za-z0-9_-]{1,32}$/;
const ADDRESS = /^(\[[0-9A-Fa-f:.%]+\]|[^\s:[\]/]+):(\d{1,5})$/;

/** What can be set of an agent. Times are in milliseconds. */
export interface AgentOptions {
  /** `host:port`, or several, which are tried in their order; else `MAS_SERVER_ADDR`, where commas separate them. */
  readonly address?: string | readonly string[] | undefined;
  /** Paths of the PEM files; else `MAS_TLS_CA`, `MAS_TLS_CERT` and `MAS_TLS_KEY`. */
  readonly credentials?: Credentials | undefined;
  /** Names this process among those of the agent; else `MAS_INSTANCE_ID`, else random. */
  readonly instanceId?: string | undefined;
  /** Handlers that run at a time (64); 1 keeps the order of each sender. */
  readonly concurrency?: number | undefined;
  /** How long `start` may take (10 s). */
  readonly connectTimeout?: number | undefined;
  /** How long a call may take that says no time of its own (30 s). */
  readonly callTimeout?: number | undefined;
  /** How long handlers may go on when the agent stops (8 s). */
  readonly drainTimeout?: number | undefined;
  /** When a refused agent tries again (10 s). */
  readonly refusedRetry?: number | undefined;
  /** Whether the first refusal of the agent ends it. */
  readonly refusedIsFinal?: boolean | undefined;
  /** `false`: the library makes no idempotency keys, and a send or request whose answer was lost is `OutcomeUnknown`. */
  readonly repeatSends?: boolean | undefined;
  /** `false`: no proxy, whatever `https_proxy` and its like say. Loopback addresses never use one. */
  readonly proxy?: boolean | undefined;
  /** Where OpenTelemetry is installed: the span of a handler is in a trace of its own and links to the sender's (`link`), or
   * is its child, too (`parent`). */
  readonly traceParent?: TraceParent | undefined;
  /** Takes what the library has to say; by default warnings and errors go to stderr. */
  readonly logger?: Logger | undefined;
}

/** All that is settled when the agent is made. */
export interface Settings {
  readonly address: string | readonly string[] | undefined;
  readonly credentials: Credentials | undefined;
  readonly instanceId: string;
  readonly concurrency: number;
  readonly connectTimeout: number;
  readonly callTimeout: number;
  readonly drainTimeout: number;
  readonly refusedRetry: number;
  readonly refusedIsFinal: boolean;
  readonly repeatSends: boolean;
  readonly proxy: boolean;
  readonly traceParent: TraceParent;
  readonly log: Logger;
}

/** Where the server is and who the agent is. */
export interface Endpoint {
  readonly addresses: readonly string[];
  readonly credentials: Credentials;
}

/** The settings of these options; throws a `SetupError` that names all that is wrong. */
export function settingsOf(options: AgentOptions): Settings {
  const wrong: string[] = [];
  const instanceId = options.instanceId ?? (process.env["MAS_INSTANCE_ID"] || randomBytes(4).toString("hex"));
  if (!INSTANCE_ID.test(instanceId)) {
    wrong.push(`instance id ${JSON.stringify(instanceId)}: expected 1 to 32 of A-Z a-z 0-9 _ -`);
  }
  const time = (name: string, ms: number, least: number): number => {
    if (!(ms >= least && ms <= MAX_MS)) wrong.push(`${name}: expected ${least} to ${MAX_MS} milliseconds`);
    return ms;
  };
  const concurrency = options.concurrency ?? CONCURRENCY;
  if (!(Number.isInteger(concurrency) && concurrency >= 1)) wrong.push("concurrency: expected 1 or more");
  const traceParent = options.traceParent ?? "link";
  if (traceParent !== "link" && traceParent !== "parent") wrong.push(`traceParent ${JSON.stringify(traceParent)}: expected link or parent`);
  const settings: Settings = {
    address: options.address,
    credentials: options.credentials,
    instanceId,
    concurrency,
    connectTimeout: time("connectTimeout", options.connectTimeout ?? CONNECT_TIMEOUT_MS, 1),
    callTimeout: time("callTimeout", options.callTimeout ?? CALL_TIMEOUT_MS, 1),
    drainTimeout: time("drainTimeout", options.drainTimeout ?? DRAIN_TIMEOUT_MS, 0),
    refusedRetry: time("refusedRetry", options.refusedRetry ?? REFUSED_RETRY_MS, 1),
    refusedIsFinal: options.refusedIsFinal ?? false,
    repeatSends: options.repeatSends ?? true,
    proxy: options.proxy ?? true,
    traceParent,
    log: safe(options.logger ?? STDERR),
  };
  if (wrong.length > 0) throw new SetupError(wrong.join("; "));
  return settings;
}

/** Where to connect; throws a `SetupError` that names all variables that are not set. */
export function endpointOf(settings: Settings): Endpoint {
  const missing: string[] = [];
  const variable = (name: string): string => {
    const value = process.env[name];
    if (!value) missing.push(name);
    return value ?? "";
  };
  const address = settings.address ?? variable("MAS_SERVER_ADDR");
  const credentials = settings.credentials ?? {
    ca: variable("MAS_TLS_CA"),
    cert: variable("MAS_TLS_CERT"),
    key: variable("MAS_TLS_KEY"),
  };
  if (missing.length > 0) {
    const are = missing.length === 1 ? "is" : "are";
    throw new SetupError(`${missing.join(", ")} ${are} not set; \`mas run\` does so, or give address and credentials to Agent`);
  }
  const listed = typeof address === "string" ? address.split(",") : address;
  const addresses = listed.map((one) => one.trim()).filter((one) => one !== "");
  const wrong = addresses.filter((one) => portOf(one) < 1 || portOf(one) > 65_535);
  if (wrong.length > 0 || addresses.length === 0) {
    throw new SetupError(`address ${wrong.join(", ") || '""'}: expected host:port`);
  }
  return { addresses, credentials };
}

/** The host of an address, without the brackets of IPv6. */
export function hostOf(address: string): string {
  return (ADDRESS.exec(address)?.[1] ?? "").replace(/^\[|\]$/g, "");
}

/** The port of an address. */
export function portOf(address: string): number {
  return Number(ADDRESS.exec(address)?.[2] ?? 0);
}

/** Whether the address is of this machine. */
export function isLoopback(address: string): boolean {
  const host = hostOf(address).toLowerCase();
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}
