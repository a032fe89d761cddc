// What can go wrong, for callers and for handlers.

import type { Finding, Receipt } from "./receipt.js";
import type { Issue } from "./schema.js";

/** The root of what this package throws. `name` tells the classes apart, too: for a `switch`, and where a program has two copies
 * of this package. */
export class MasError extends Error {
  static {
    this.prototype.name = "MasError";
  }
}

/** A setting, a file, an environment variable or an argument: nothing was sent. */
export class SetupError extends MasError {
  static {
    this.prototype.name = "SetupError";
  }
  declare name: "SetupError";
}

/** No session with the server in time, or the agent is stopped: nothing was done. */
export class NotConnected extends MasError {
  static {
    this.prototype.name = "NotConnected";
  }
  declare name: "NotConnected";
}

/** The answer was lost on the way: it may or may not have happened. */
export class OutcomeUnknown extends MasError {
  static {
    this.prototype.name = "OutcomeUnknown";
  }
  declare name: "OutcomeUnknown";
}

/** The server does not offer this: nothing was sent. */
export class Unsupported extends MasError {
  static {
    this.prototype.name = "Unsupported";
  }
  declare name: "Unsupported";
}

/** Data is not what a schema takes. The message names the fields and never their values. */
export class PayloadError extends MasError {
  static {
    this.prototype.name = "PayloadError";
  }
  declare name: "PayloadError";
  /** The schema's own words, which may hold values. */
  readonly issues: readonly Issue[];
  /** The fields that do not fit, as JSON pointers; "" is the whole. */
  readonly fields: readonly string[];
  /** The message whose payload it is. */
  readonly messageId: string | undefined;

  constructor(message: string, fields: readonly string[], issues: readonly Issue[], messageId?: string) {
    super(message);
    this.fields = fields;
    this.issues = issues;
    this.messageId = messageId;
  }
}

/** What was called, of whom, of which type: in every error of a call that has reached the server. */
export interface Called {
  /** Such as `send`. */
  readonly call: string;
  readonly target?: string | undefined;
  readonly messageType?: string | undefined;
}

/** The request was accepted, and no reply came in time, or none will come. */
export class NoReply extends MasError {
  static {
    this.prototype.name = "NoReply";
  }
  declare name: "NoReply";
  readonly call: string;
  readonly target: string | undefined;
  readonly messageType: string | undefined;
  /** Under which the request is on record: `mas audit show ID`. */
  readonly messageId: string;
  readonly receipt: Receipt | undefined;
  /** Why none will come, where the server knows: `handler_failed`, `no_handler`, `max_attempts` or `expired`. */
  readonly reason: string | undefined;

  constructor(
    called: Called,
    why: string | { readonly reason: string },
    messageId: string,
    receipt: Receipt | undefined,
    options?: ErrorOptions,
  ) {
    super(noReplyText(called, why, messageId), options);
    this.call = called.call;
    this.target = called.target;
    this.messageType = called.messageType;
    this.messageId = messageId;
    this.receipt = receipt;
    this.reason = typeof why === "string" ? undefined : why.reason;
  }
}

/** What the server says beside a refusal. */
export interface RefusalFacts {
  /** gRPC's name of the status. */
  readonly code: string;
  /** The server's word for the case. */
  readonly detail: string;
  readonly retryAfter?: number | undefined;
  readonly messageId?: string | undefined;
  readonly receipt?: Receipt | undefined;
  readonly findings?: readonly Finding[];
}

/** The classes of refusals. */
type RefusedName =
  | "Refused"
  | "Unauthenticated"
  | "InvalidRequest"
  | "NotAuthorized"
  | "DlpBlocked"
  | "RateLimited"
  | "CircuitOpen"
  | "QueueFull"
  | "VersionMismatch";

/** The server refused: nothing happened. */
export class Refused extends MasError {
  static {
    this.prototype.name = "Refused";
  }
  declare name: RefusedName;
  readonly call: string;
  readonly target: string | undefined;
  readonly messageType: string | undefined;
  /** gRPC's name of the status, such as `PERMISSION_DENIED`. */
  readonly code: string;
  /** The server's word for the case, such as `not_authorized`. */
  readonly detail: string;
  /** Milliseconds after which another try may help. */
  readonly retryAfter: number | undefined;
  /** Under which the refused message is on record: `mas audit show ID`. */
  readonly messageId: string | undefined;
  readonly receipt: Receipt | undefined;
  /** What data-loss prevention found in the payload. */
  readonly findings: readonly Finding[];

  constructor(called: Called, facts: RefusalFacts) {
    super(refusalText(called, facts));
    this.call = called.call;
    this.target = called.target;
    this.messageType = called.messageType;
    this.code = facts.code;
    this.detail = facts.detail;
    this.retryAfter = facts.retryAfter;
    this.messageId = facts.messageId;
    this.receipt = facts.receipt;
    this.findings = facts.findings ?? [];
  }
}

/** The certificate is not one of an agent that may connect. */
export class Unauthenticated extends Refused {
  static {
    this.prototype.name = "Unauthenticated";
  }
  declare name: "Unauthenticated";
}

/** The request itself is wrong. */
export class InvalidRequest extends Refused {
  static {
    this.prototype.name = "InvalidRequest";
  }
  declare name: "InvalidRequest";
}

/** No rule allows it, or there is no such agent: both look the same. */
export class NotAuthorized extends Refused {
  static {
    this.prototype.name = "NotAuthorized";
  }
  declare name: "NotAuthorized";
}

/** The payload holds what must not be sent; `findings` says where. */
export class DlpBlocked extends Refused {
  static {
    this.prototype.name = "DlpBlocked";
  }
  declare name: "DlpBlocked";
}

/** Too many messages; `retryAfter` says when there is room again. */
export class RateLimited extends Refused {
  static {
    this.prototype.name = "RateLimited";
  }
  declare name: "RateLimited";
}

/** The target's handlers fail too often. */
export class CircuitOpen extends Refused {
  static {
    this.prototype.name = "CircuitOpen";
  }
  declare name: "CircuitOpen";
}

/** The target has too many messages waiting. */
export class QueueFull extends Refused {
  static {
    this.prototype.name = "QueueFull";
  }
  declare name: "QueueFull";
}

/** The state has another version than the one that was expected. */
export class VersionMismatch extends Refused {
  static {
    this.prototype.name = "VersionMismatch";
  }
  declare name: "VersionMismatch";
}

/** Thrown by a handler: deliver the message again; the server waits longer each time. The reason is put on record. */
export class Retry extends Error {
  static {
    this.prototype.name = "Retry";
  }
}

/**
 * Thrown by a handler: no further delivery will help, the message goes to the dead letters. The reason is put on record
 * and shown to operators: say what is wrong, and do not quote the payload.
 */
export class Reject extends Error {
  static {
    this.prototype.name = "Reject";
  }
}

const BY_DETAIL: ReadonlyMap<string, typeof Refused> = new Map<string, typeof Refused>([
  ["not_authorized", NotAuthorized],
  ["reply_sender_mismatch", NotAuthorized],
  ["dlp_blocked", DlpBlocked],
  ["rate_limited", RateLimited],
  ["circuit_open", CircuitOpen],
  ["queue_full", QueueFull],
  ["version_mismatch", VersionMismatch],
]);
const BY_CODE: ReadonlyMap<string, typeof Refused> = new Map<string, typeof Refused>([
  ["UNAUTHENTICATED", Unauthenticated],
  ["INVALID_ARGUMENT", InvalidRequest],
]);

/** The refusal in its own class, where it has one. */
export function refusal(called: Called, facts: RefusalFacts): Refused {
  const Kind = BY_DETAIL.get(facts.detail) ?? BY_CODE.get(facts.code) ?? Refused;
  return new Kind(called, facts);
}

/** The kind of an error, never its text. */
export function kindOf(error: unknown): string {
  if (!(error instanceof Error)) return error === null ? "null" : typeof error;
  const name = error instanceof MasError ? error.name : error.constructor.name || error.name;
  return /^[\w$.]{1,64}$/.test(name) ? name : "Error";
}

/** Such as `send "question" to worker`. */
export function describe({ call, target, messageType }: Called): string {
  const type = messageType === undefined ? "" : ` ${JSON.stringify(messageType)}`;
  return `${call}${type}${target === undefined ? "" : ` to ${target}`}`;
}

function noReplyText(called: Called, why: string | { readonly reason: string }, messageId: string): string {
  const record = `mas audit show ${messageId}`;
  if (typeof why === "string") return `${describe(called)}: ${why}; on record as ${messageId} (${record})`;
  const { target = "", messageType = "" } = called;
  const what = `no reply will come from ${target} to ${JSON.stringify(messageType)}`;
  return `${what}: ${why.reason} (message ${messageId}; ${record} says what became of it)`;
}

function refusalText(called: Called, { code, detail, retryAfter, messageId, findings = [] }: RefusalFacts): string {
  let text = `${describe(called)}: refused, ${detail || "no reason given"} (${code})`;
  if (findings.length > 0) {
    text += `: ${findings.map(({ type, pointer, action }) => `${type} at ${pointer} (${action})`).join(", ")}`;
  }
  if (retryAfter !== undefined) text += `; try again in ${retryAfter / 1000} s`;
  if (messageId !== undefined) text += `; on record as ${messageId} (mas audit show ${messageId})`;
  return text;
}
